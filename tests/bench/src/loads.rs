//! The loads, in rounds: yardsticks, the host on both databases, and optionally peers, one after
//! the other in each round.

use std::time::Duration;

use anyhow::{Context, Result};
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::baselines::{self, Yardsticks};
use crate::closed_loop::{Went, alone, closed};
use crate::graphs::{CARRIERS, CHAIN, CHAINS, CHAINS_OF, FANOUTS, WIDE, fanout_of};
use crate::open_loop;
use crate::peers::{self, Peers};
use crate::results::{Figures, Unit};
use crate::system_under_test::Subject;

/// One-state runs, and the clients that start them.
pub const SINGLES: (u64, u64) = (10_000, 64);
/// One-state runs on an idle host, and its idle time before each.
const ALONE: (u64, Duration) = (300, Duration::from_millis(10));
/// Runs of the wide graph, and its clients.
const WIDES: (u64, u64) = (100, 16);
/// Runs that use their store, and their clients.
const STORES: (u64, u64) = (2_000, 64);
/// Payloads: name, bytes, runs of the chain that carries them, clients.
const PAYLOADS: [(&str, usize, u64, u64); 3] =
    [("1 KB", 1_000, 400, 64), ("64 KB", 64_000, 100, 16), ("1 MB", 1_000_000, 16, 4)];

/// The name of the load whose latencies are measured.
pub const ONE_STATE: &str = "one-state run on an idle host";
/// The name of the load that measures the maximum rate of runs.
pub const CLIENTS: &str = "one-state runs, 64 clients";

/// Measures all loads, after an uncounted round. A peer that fails is reported, and left out from
/// then on.
pub fn run(
    postgres: &Postgres,
    mut peers: Option<Peers>,
    rounds: u32,
    notes: &mut Vec<String>,
    figures: &mut Figures,
) -> Result<()> {
    let yardsticks = Yardsticks::new(postgres)?;
    let subjects = Subject::both(postgres, "loads")?;
    for number in 0..=rounds {
        eprintln!(
            "loads: round {number} of {rounds}{}",
            if number == 0 { " (warms up)" } else { "" }
        );
        let mut found = Figures::default();
        yardsticks.round(&mut found)?;
        for subject in &subjects {
            round(subject, &mut found).with_context(|| format!("on {}", subject.name))?;
            compare(subject.name, &mut found)?;
        }
        if let Some(peers) = &mut peers {
            for subject in &subjects {
                beside(subject, &mut found)?;
            }
            notes.extend(peers.round(number, &mut found));
        }
        if number > 0 {
            found.0.iter().for_each(|it| figures.add(&it.load, &it.subject, it.unit, it.values[0]));
        }
    }
    Ok(())
}

fn round(subject: &Subject, figures: &mut Figures) -> Result<()> {
    let name = subject.name;
    for branches in FANOUTS {
        fanout(subject, "fanout", branches, &fanout_of(branches), figures)?;
    }
    fanout(subject, "minimal", FANOUTS[1], "fanout of 20,000, the smallest node", figures)?;
    let went = closed(&subject.work("chain", &json!({})), CHAINS, CHAINS)?;
    note(&went, CHAINS_OF, name, (CHAINS * CHAIN) as f64, figures);
    let (runs, clients) = SINGLES;
    let mut went = closed(&subject.work("single", &json!({})), clients, runs)?;
    let most = went.rate(runs as f64);
    figures.add(CLIENTS, name, Unit::RunsPerSecond, most);
    figures.add_latencies(CLIENTS, name, &mut went.latencies);
    let (runs, clients) = WIDES;
    let went = closed(&subject.work("wide", &json!({})), clients, runs)?;
    note(&went, "a wide graph of 100, 16 clients", name, (runs * WIDE) as f64, figures);
    for (words, bytes, runs, clients) in PAYLOADS {
        let inputs = json!({"value": "x".repeat(bytes)});
        let went = closed(&subject.work("carriers", &inputs), clients, runs)?;
        let load = format!("chains of 10 that carry {words}");
        note(&went, &load, name, (runs * CARRIERS) as f64, figures);
    }
    let (runs, clients) = STORES;
    let went = closed(&subject.work("store", &json!({})), clients, runs)?;
    note(&went, "a node that calls the store 100 times", name, runs as f64, figures);
    let (runs, pause) = ALONE;
    let mut latencies = alone(&subject.work("single", &json!({})), runs, pause)?;
    figures.add_latencies(ONE_STATE, name, &mut latencies);
    open_loop::run(subject, most, figures)
}

/// Adds the ratios of the host's rates to the possible rates of this machine, in this minute.
fn compare(name: &str, figures: &mut Figures) -> Result<()> {
    let [ten, fanout, hundred] = FANOUTS.map(fanout_of);
    let (whole, chains) = (baselines::whole(), yardsticks::chains());
    let (batch, small) = (baselines::batch_of(256), yardsticks::batch_of(64));
    let pairs = [
        (&*ten, &*whole),
        (&*fanout, &*whole),
        (&*hundred, &*whole),
        (&*fanout, &*batch),
        (CHAINS_OF, &*chains),
        (CHAINS_OF, &*small),
    ];
    for (load, yardstick) in pairs {
        let rate = figures.latest(load, name).with_context(|| format!("no {load}"))?;
        let possible = baselines::possible(figures, name, yardstick).context("no yardstick")?;
        figures.add(&format!("{load} : {yardstick}"), name, Unit::Ratio, rate / possible);
    }
    Ok(())
}

/// Measures a fanout of `branches` branches, by the clock of the client that starts it.
pub fn fanout(
    subject: &Subject,
    graph: &str,
    branches: u64,
    load: &str,
    figures: &mut Figures,
) -> Result<()> {
    let went = closed(&subject.work(graph, &json!({"n": branches})), 1, 1)?;
    note(&went, load, subject.name, branches as f64 + 2.0, figures);
    Ok(())
}

fn note(went: &Went, load: &str, subject: &str, states: f64, figures: &mut Figures) {
    figures.add(load, subject, Unit::StatesPerSecond, went.rate(states));
}

/// Runs the shapes of the peers, in sizes that the peers can do.
fn beside(subject: &Subject, figures: &mut Figures) -> Result<()> {
    fanout(subject, "fanout", peers::BRANCHES, peers::FANOUT, figures)?;
    let went = closed(&subject.work("chain", &json!({})), peers::CHAIN_RUNS, peers::CHAIN_RUNS)?;
    note(&went, peers::CHAINS, subject.name, (peers::CHAIN_RUNS * CHAIN) as f64, figures);
    let went = closed(&subject.work("single", &json!({})), peers::CLIENTS, peers::SINGLE_RUNS)?;
    figures.add(
        peers::SINGLES,
        subject.name,
        Unit::RunsPerSecond,
        went.rate(peers::SINGLE_RUNS as f64),
    );
    let mut went = closed(&subject.work("single", &json!({})), 1, peers::LATENCY_RUNS)?;
    figures.add_latencies(peers::LATENCY, subject.name, &mut went.latencies);
    Ok(())
}
