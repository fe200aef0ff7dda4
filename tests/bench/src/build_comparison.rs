//! A comparison of two builds of the host: runs the main loads on both databases, the two builds in
//! turn and in alternating order, and prints the ratio of each pair.
//!
//! Not here: a verdict, and absolute results (`loads`).

use std::path::Path;

use anyhow::Result;
use exosphere_tests::binary;
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::closed_loop::closed;
use crate::graphs::{CHAIN_COUNT, CHAIN_LENGTH, CHAINS_NAME, FANOUT_SIZES, fanout_of};
use crate::loads::{ONE_STATE_AT_MAX_RATE, ONE_STATE_RUNS, fanout};
use crate::results::{Measurement, Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// Measures `rounds` pairs after an uncounted one, and prints the ratios of this build to
/// `baseline`.
pub fn run(postgres: &Postgres, baseline: &Path, rounds: u32) -> Result<()> {
    let (current_binary, mut ratios) = (binary()?, Results::default());
    for database in [None, Some(postgres)] {
        let now = SystemUnderTest::start_binary(&current_binary, database, "now")?;
        let before = SystemUnderTest::start_binary(baseline, database, "before")?;
        for number in 0..=rounds {
            eprintln!("{}: round {number} of {rounds}", now.name);
            let (mut current, mut previous) = (Results::default(), Results::default());
            let mut pair = [(&now, &mut current), (&before, &mut previous)];
            if number % 2 == 1 {
                pair.reverse();
            }
            for (system, results) in pair {
                main_loads(system, results)?;
            }
            if number > 0 {
                add_ratios(&current, &previous, &mut ratios);
            }
        }
    }
    ratios.0.iter().for_each(print);
    Ok(())
}

/// Runs the loads whose speed every change must keep.
fn main_loads(system: &SystemUnderTest, results: &mut Results) -> Result<()> {
    fanout(system, "fanout", FANOUT_SIZES[1], &fanout_of(FANOUT_SIZES[1]), results)?;
    let chains = closed(&system.work("chain", &json!({})), CHAIN_COUNT, CHAIN_COUNT)?;
    let rate = chains.rate((CHAIN_COUNT * CHAIN_LENGTH) as f64);
    results.add(CHAINS_NAME, system.name, Unit::StatesPerSecond, rate);
    let (runs, clients) = ONE_STATE_RUNS;
    let singles = closed(&system.work("single", &json!({})), clients, runs)?;
    results.add(ONE_STATE_AT_MAX_RATE, system.name, Unit::RunsPerSecond, singles.rate(runs as f64));
    Ok(())
}

fn add_ratios(now: &Results, before: &Results, ratios: &mut Results) {
    for (now, before) in now.0.iter().zip(&before.0) {
        let ratio = now.values[0] / before.values[0];
        ratios.add(&now.load, &now.subject, Unit::Ratio, ratio);
    }
}

fn print(measurement: &Measurement) {
    let (min, max) = measurement.spread();
    let all: Vec<String> = measurement.values.iter().map(|ratio| format!("{ratio:.2}")).collect();
    println!(
        "{}, {}: median {:.3}, least {min:.2}, most {max:.2} ({})",
        measurement.load,
        measurement.subject,
        measurement.median(),
        all.join(" ")
    );
}
