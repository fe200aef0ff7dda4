//! How hosts share work: no host keeps states that it cannot begin soon while
//! another has room, and no run of a namespace waits for all of a larger one.
//!
//! Not here: namespaces beside each other (`tenants`), and lost hosts (`hosts`).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::fleet::{Setup, with_fleet};
use exosphere_tests::postgres::Postgres;
use serde_json::{Value, json};

/// `n` branches that wait, and a unite that has the number of each.
fn branches(n: usize, ms: u64) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter", "next_nodes": ["merger"],
         "inputs": {"ms": ms, "value": "${{ splitter.outputs.i }}"}},
        {"node_name": "collect", "identifier": "merger", "unites": {"identifier": "splitter"},
         "inputs": {"values": "${{ splitter.outputs.i }}"}, "next_nodes": []},
    ]})
}

/// Has a host execute each node once: to load a plugin takes longer than what is
/// measured.
fn warm_up(host: &Host) -> Result<()> {
    let found = host.result_of("warm", &branches(2, 1), &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(())
}

/// Runs `n` branches of 2 s that are started at the first host; tells how long that
/// took and how many the second host executed.
fn spread(database: &str, slots: [u32; 2], n: usize) -> Result<(Duration, usize)> {
    let mut measured = None;
    let setups = slots.map(Setup::one_namespace);
    with_fleet(Postgres::shared()?, database, &setups, |fleet| {
        fleet.host(0)?.push("lab")?;
        // The second host alone, so that it is the one that loads the plugin.
        warm_up(fleet.host(1)?)?;
        warm_up(fleet.host(0)?)?;
        let before = fleet.members()[1].executions()?.len();
        fleet.host(0)?.apply("slow", &branches(n, 2_000))?;
        let begun = Instant::now();
        let run = fleet.host(0)?.run("slow", &json!({}), &json!({}))?;
        let found = fleet.host(0)?.wait_for(&run)?;
        let took = begun.elapsed();
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        let merged = fleet.host(1)?.output(&run, "merger")?;
        ensure!(merged["values"] == json!((0..n).collect::<Vec<_>>()), "{merged}");
        let there = fleet.members()[1].executions()?.len() - before;
        println!("{n} branches of 2 s on {slots:?} slots took {took:?}, {there} on the second");
        let attempts = "SELECT COUNT(*) FROM attempt";
        let attempts = Postgres::shared()?.psql(fleet.database(), attempts)?;
        ensure!(attempts == "0", "what was given back has used up an attempt: {attempts}");
        measured = Some((took, there));
        Ok(())
    })?;
    measured.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

#[test]
fn slow_branches_spread_over_equal_hosts() -> Result<()> {
    let (took, there) = spread("equal_hosts", [16, 16], 64)?;
    ensure!((24..=40).contains(&there), "{there} of 64 on the second host");
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    Ok(())
}

#[test]
fn slow_branches_leave_a_small_host() -> Result<()> {
    let (took, there) = spread("small_host", [4, 64], 20)?;
    ensure!(there >= 16, "{there} of 20 on the host with room");
    ensure!(took < Duration::from_secs(3), "it took {took:?}");
    Ok(())
}
