//! The loads, in rounds: each round measures the baselines, the host on both databases, and
//! optionally peers.

use std::time::Duration;

use anyhow::{Context, Result};
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::baselines::{self, Baselines};
use crate::closed_loop::{LoopTimes, closed, run_sequentially};
use crate::graphs::{
    CARRIER_CHAIN_LENGTH, CHAIN_COUNT, CHAIN_LENGTH, CHAINS_NAME, FANOUT_SIZES, WIDE_NODES,
    fanout_of,
};
use crate::open_loop;
use crate::peers::{self, Peers};
use crate::results::{Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// Numbers of one-state runs and of the clients that start them.
pub const ONE_STATE_RUNS: (u64, u64) = (10_000, 64);
/// Number of one-state runs on an idle host, and its idle time before each.
const IDLE_HOST_RUNS: (u64, Duration) = (300, Duration::from_millis(10));
/// Number of runs of the wide graph, and number of clients.
const WIDE_RUNS: (u64, u64) = (100, 16);
/// Number of runs that use their store, and number of clients.
const STORE_RUNS: (u64, u64) = (2_000, 64);
/// Payloads: name, bytes, runs of the chain that carries them, clients.
const PAYLOADS: [(&str, usize, u64, u64); 3] =
    [("1 KB", 1_000, 400, 64), ("64 KB", 64_000, 100, 16), ("1 MB", 1_000_000, 16, 4)];

/// The name of the load whose latencies are measured.
pub const ONE_STATE: &str = "one-state run on an idle host";
/// The name of the load that measures the maximum rate of runs.
pub const ONE_STATE_AT_MAX_RATE: &str = "one-state runs, 64 clients";

/// Measures all loads, after an uncounted round. A peer that fails is reported, and then left out.
pub fn run(
    postgres: &Postgres,
    mut peers: Option<Peers>,
    rounds: u32,
    notes: &mut Vec<String>,
    results: &mut Results,
) -> Result<()> {
    let baselines = Baselines::new(postgres)?;
    let systems = SystemUnderTest::both(postgres, "loads")?;
    for number in 0..=rounds {
        eprintln!(
            "loads: round {number} of {rounds}{}",
            if number == 0 { " (warms up)" } else { "" }
        );
        let mut found = Results::default();
        baselines.round(&mut found)?;
        for system in &systems {
            round(system, &mut found).with_context(|| format!("on {}", system.name))?;
            compare(system.name, &mut found)?;
        }
        if let Some(peers) = &mut peers {
            for system in &systems {
                beside(system, &mut found)?;
            }
            notes.extend(peers.round(number, &mut found));
        }
        if number > 0 {
            found.0.iter().for_each(|it| results.add(&it.load, &it.subject, it.unit, it.values[0]));
        }
    }
    Ok(())
}

fn round(system: &SystemUnderTest, results: &mut Results) -> Result<()> {
    let name = system.name;
    for branches in FANOUT_SIZES {
        fanout(system, "fanout", branches, &fanout_of(branches), results)?;
    }
    fanout(system, "minimal", FANOUT_SIZES[1], "fanout of 20,000, the smallest node", results)?;
    let times = closed(&system.work("chain", &json!({})), CHAIN_COUNT, CHAIN_COUNT)?;
    add_rate(&times, CHAINS_NAME, name, (CHAIN_COUNT * CHAIN_LENGTH) as f64, results);
    let (runs, clients) = ONE_STATE_RUNS;
    let mut times = closed(&system.work("single", &json!({})), clients, runs)?;
    let max_rate = times.rate(runs as f64);
    results.add(ONE_STATE_AT_MAX_RATE, name, Unit::RunsPerSecond, max_rate);
    results.add_latencies(ONE_STATE_AT_MAX_RATE, name, &mut times.latencies);
    let (runs, clients) = WIDE_RUNS;
    let times = closed(&system.work("wide", &json!({})), clients, runs)?;
    add_rate(&times, "a wide graph of 100, 16 clients", name, (runs * WIDE_NODES) as f64, results);
    for (label, bytes, runs, clients) in PAYLOADS {
        let inputs = json!({"value": "x".repeat(bytes)});
        let times = closed(&system.work("carriers", &inputs), clients, runs)?;
        let load = format!("chains of 10 that carry {label}");
        add_rate(&times, &load, name, (runs * CARRIER_CHAIN_LENGTH) as f64, results);
    }
    let (runs, clients) = STORE_RUNS;
    let times = closed(&system.work("store", &json!({})), clients, runs)?;
    add_rate(&times, "a node that calls the store 100 times", name, runs as f64, results);
    let (runs, pause) = IDLE_HOST_RUNS;
    let mut latencies = run_sequentially(&system.work("single", &json!({})), runs, pause)?;
    results.add_latencies(ONE_STATE, name, &mut latencies);
    open_loop::run(system, max_rate, results)
}

/// Adds the ratios of the host's rates to the baselines of the same round.
fn compare(name: &str, results: &mut Results) -> Result<()> {
    let [ten, fanout, hundred] = FANOUT_SIZES.map(fanout_of);
    let (whole, chains) = (baselines::whole_fanout(), baselines::chains());
    let (batch, small) = (baselines::batch_of(256), baselines::batch_of(64));
    let pairs = [
        (&*ten, &*whole),
        (&*fanout, &*whole),
        (&*hundred, &*whole),
        (&*fanout, &*batch),
        (CHAINS_NAME, &*chains),
        (CHAINS_NAME, &*small),
    ];
    for (load, baseline) in pairs {
        let rate = results.latest(load, name).with_context(|| format!("no {load}"))?;
        let possible = baselines::possible(results, name, baseline).context("no baseline")?;
        results.add(&format!("{load} : {baseline}"), name, Unit::Ratio, rate / possible);
    }
    Ok(())
}

/// Measures a fanout of `branches` branches, by the clock of the client that starts it.
pub fn fanout(
    system: &SystemUnderTest,
    graph: &str,
    branches: u64,
    load: &str,
    results: &mut Results,
) -> Result<()> {
    let times = closed(&system.work(graph, &json!({"n": branches})), 1, 1)?;
    add_rate(&times, load, system.name, branches as f64 + 2.0, results);
    Ok(())
}

fn add_rate(times: &LoopTimes, load: &str, system: &str, states: f64, results: &mut Results) {
    results.add(load, system, Unit::StatesPerSecond, times.rate(states));
}

/// Runs the shapes of the peers, in sizes that the peers can do.
fn beside(system: &SystemUnderTest, results: &mut Results) -> Result<()> {
    fanout(system, "fanout", peers::BRANCHES, peers::FANOUT, results)?;
    let times = closed(&system.work("chain", &json!({})), peers::CHAIN_RUNS, peers::CHAIN_RUNS)?;
    add_rate(
        &times,
        peers::CHAINS,
        system.name,
        (peers::CHAIN_RUNS * CHAIN_LENGTH) as f64,
        results,
    );
    let times = closed(&system.work("single", &json!({})), peers::CLIENTS, peers::SINGLE_RUNS)?;
    results.add(
        peers::SINGLES,
        system.name,
        Unit::RunsPerSecond,
        times.rate(peers::SINGLE_RUNS as f64),
    );
    let mut times = closed(&system.work("single", &json!({})), 1, peers::LATENCY_RUNS)?;
    results.add_latencies(peers::LATENCY, system.name, &mut times.latencies);
    Ok(())
}
