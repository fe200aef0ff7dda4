//! A baseline comparison of two builds of the host: the main loads on both databases, the two
//! builds in turn, each round in the other order. Quotes the ratio of each pair.
//!
//! Not here: a verdict, and figures to quote alone; see `loads`.

use std::path::Path;

use anyhow::Result;
use exosphere_tests::binary;
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::closed_loop::closed;
use crate::graphs::{CHAIN, CHAINS, CHAINS_OF, FANOUTS, fanout_of};
use crate::loads::{CLIENTS, SINGLES, fanout};
use crate::results::{Figure, Figures, Unit};
use crate::system_under_test::Subject;

/// Measures `rounds` pairs after an uncounted one, and prints the ratios of this build to the one
/// at `baseline`.
pub fn run(postgres: &Postgres, baseline: &Path, rounds: u32) -> Result<()> {
    let (ours, mut ratios) = (binary()?, Figures::default());
    for database in [None, Some(postgres)] {
        let now = Subject::of(&ours, database, "now")?;
        let before = Subject::of(baseline, database, "before")?;
        for number in 0..=rounds {
            eprintln!("{}: round {number} of {rounds}", now.name);
            let (mut found_now, mut found_before) = (Figures::default(), Figures::default());
            let mut pair = [(&now, &mut found_now), (&before, &mut found_before)];
            if number % 2 == 1 {
                pair.reverse();
            }
            for (subject, figures) in pair {
                main_loads(subject, figures)?;
            }
            if number > 0 {
                add_ratios(&found_now, &found_before, &mut ratios);
            }
        }
    }
    ratios.0.iter().for_each(print);
    Ok(())
}

/// Runs the loads whose speed every change must keep.
fn main_loads(subject: &Subject, figures: &mut Figures) -> Result<()> {
    fanout(subject, "fanout", FANOUTS[1], &fanout_of(FANOUTS[1]), figures)?;
    let chains = closed(&subject.work("chain", &json!({})), CHAINS, CHAINS)?;
    let rate = chains.rate((CHAINS * CHAIN) as f64);
    figures.add(CHAINS_OF, subject.name, Unit::StatesPerSecond, rate);
    let (runs, clients) = SINGLES;
    let singles = closed(&subject.work("single", &json!({})), clients, runs)?;
    figures.add(CLIENTS, subject.name, Unit::RunsPerSecond, singles.rate(runs as f64));
    Ok(())
}

fn add_ratios(now: &Figures, before: &Figures, ratios: &mut Figures) {
    for (now, before) in now.0.iter().zip(&before.0) {
        let ratio = now.values[0] / before.values[0];
        ratios.add(&now.load, &now.subject, Unit::Ratio, ratio);
    }
}

fn print(figure: &Figure) {
    let (least, most) = figure.spread();
    let all: Vec<String> = figure.values.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!(
        "{}, {}: median {:.3}, least {least:.2}, most {most:.2} ({})",
        figure.load,
        figure.subject,
        figure.median(),
        all.join(" ")
    );
}
