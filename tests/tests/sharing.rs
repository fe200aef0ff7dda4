//! Sharing of work: no host keeps claimed states that another could begin sooner, and no run of a
//! namespace waits for all states of a larger one.
//!
//! Not here: fairness among namespaces (`namespaces`), and lost hosts (`hosts`).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, until};
use serde_json::{Value, json};

/// Returns a graph of `n` branches that wait, and a unite with the number of each.
fn branches(n: usize, ms: u64) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter", "next_nodes": ["merger"],
         "inputs": {"ms": ms, "value": "${{ splitter.outputs.i }}"}},
        {"node_name": "collect", "identifier": "merger", "unites": {"identifier": "splitter"},
         "inputs": {"values": "${{ splitter.outputs.i }}"}, "next_nodes": []},
    ]})
}

/// Warms up a host: executes each node once, since loading a plugin takes longer than the measured
/// times.
fn warm_up(host: &Host) -> Result<()> {
    let found = host.result_of("warm", &branches(2, 1), &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(())
}

/// Runs `n` branches of 2 s, started on the first host. Returns the duration and the number of
/// branches that the second host executed.
fn spread(database: &str, slots: [u32; 2], n: usize) -> Result<(Duration, usize)> {
    let mut measured = None;
    let setups = slots.map(Setup::one_namespace);
    with_cluster(Postgres::shared()?, database, &setups, |cluster| {
        cluster.host(0)?.push("lab")?;
        // The second host alone, so that it is the one that loads the plugin.
        warm_up(cluster.host(1)?)?;
        warm_up(cluster.host(0)?)?;
        let before = cluster.members()[1].executions()?.len();
        cluster.host(0)?.apply("slow", &branches(n, 2_000))?;
        let started = Instant::now();
        let run = cluster.host(0)?.run("slow", &json!({}), &json!({}))?;
        let found = cluster.host(0)?.wait_for(&run)?;
        let elapsed = started.elapsed();
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        let merged = cluster.host(1)?.output(&run, "merger")?;
        ensure!(merged["values"] == json!((0..n).collect::<Vec<_>>()), "{merged}");
        let remote_executions = cluster.members()[1].executions()?.len() - before;
        println!(
            "{n} branches of 2 s on {slots:?} slots took {elapsed:?}, {remote_executions} on the second"
        );
        let attempts = "SELECT COUNT(*) FROM attempt";
        let attempts = Postgres::shared()?.psql(cluster.database(), attempts)?;
        ensure!(attempts == "0", "a released state has used an attempt: {attempts}");
        measured = Some((elapsed, remote_executions));
        Ok(())
    })?;
    measured.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

#[test]
fn slow_branches_spread_over_equal_hosts() -> Result<()> {
    let (elapsed, remote_executions) = spread("equal_hosts", [16, 16], 64)?;
    ensure!((24..=40).contains(&remote_executions), "{remote_executions} of 64 on the second host");
    ensure!(elapsed < Duration::from_secs(5), "it took {elapsed:?}");
    Ok(())
}

#[test]
fn slow_branches_move_to_larger_hosts() -> Result<()> {
    let (elapsed, remote_executions) = spread("small_host", [4, 64], 20)?;
    ensure!(remote_executions >= 16, "{remote_executions} of 20 on the host with room");
    ensure!(elapsed < Duration::from_secs(3), "it took {elapsed:?}");
    Ok(())
}

/// Returns a graph of one step that echoes.
fn step() -> Value {
    json!({"nodes": [{"node_name": "echo", "identifier": "only", "inputs": {"value": 1}, "next_nodes": []}]})
}

/// Returns a graph of `n` branches that echo.
fn fan(n: usize) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["worker"]},
        {"node_name": "echo", "identifier": "worker",
         "inputs": {"value": "${{ splitter.outputs.i }}"}, "next_nodes": []},
    ]})
}

/// Runs a test on a host on each database, with 64 slots, of which a namespace has 48.
fn on_both(database: &str, test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--slots", "64"], |_| ())?;
    host.push("lab")?;
    test(&host)?;
    host.kill()?;
    check(&["--data", folder.path().to_str().unwrap_or_default()])?;
    with_cluster(Postgres::shared()?, database, &[Setup::slots(64)], |cluster| {
        cluster.host(0)?.push("lab")?;
        test(cluster.host(0)?)
    })
}

/// Runs a graph that was applied, and returns the duration.
fn timed(host: &Host, name: &str) -> Result<Duration> {
    let started = Instant::now();
    let run = host.run(name, &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(started.elapsed())
}

fn cancel(host: &Host, run: &str) -> Result<()> {
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    until("every slot to be free", || Ok((host.holding()? == 0).then_some(())))
}

/// A run of slow nodes occupies all slots of the namespace that one run can have. Small runs use
/// the last one, and wait for none of its 500 states.
#[test]
fn one_step_runs_beside_a_slow_run() -> Result<()> {
    on_both("beside_slow", |host| {
        host.apply("step", &step())?;
        host.apply("few", &fan(100))?;
        warm_up(host)?;
        let baseline = (timed(host, "step")?, timed(host, "few")?);
        host.apply("slow", &branches(500, 2_000))?;
        let large = host.run("slow", &json!({}), &json!({}))?;
        std::thread::sleep(Duration::from_secs(1));
        let steps = [timed(host, "step")?, timed(host, "step")?, timed(host, "step")?];
        let few = timed(host, "few")?;
        println!("alone {baseline:?}; beside 500 of 2 s: one step {steps:?}, 101 states {few:?}");
        for elapsed in steps {
            ensure!(elapsed < Duration::from_millis(500), "a step took {elapsed:?}");
        }
        ensure!(few < Duration::from_secs(1), "101 states took {few:?}");
        ensure!(host.get(&format!("/runs/{large}"))?["status"] == "RUNNING");
        cancel(host, &large)
    })
}

#[test]
fn one_step_runs_beside_a_wide_run() -> Result<()> {
    const STATES: usize = 20_000;
    on_both("beside_wide", |host| {
        host.apply("step", &step())?;
        host.apply("wide", &fan(STATES))?;
        warm_up(host)?;
        timed(host, "step")?;
        let median = |mut all: Vec<Duration>| {
            all.sort();
            all[all.len() / 2]
        };
        let baseline = median((0..9).map(|_| timed(host, "step")).collect::<Result<_>>()?);
        let large = host.run("wide", &json!({}), &json!({}))?;
        // The run's states are created in one transaction, which is not measured.
        host.wait_until(&large, |run| run["counts"]["states"].as_u64() > Some(1))?;
        let mut contended = Vec::new();
        while contended.len() < 9 && host.get(&format!("/runs/{large}"))?["status"] == "RUNNING" {
            contended.push(timed(host, "step")?);
        }
        ensure!(contended.len() >= 3, "the wide run is over after {contended:?}");
        println!("a step: alone {baseline:?}, beside {STATES} states {contended:?}");
        // A step waits for four commits, of some hundred states each: a debug build takes 100 ms
        // for one. It does not wait for the states of the other run.
        let elapsed = median(contended);
        ensure!(elapsed < Duration::from_secs(1), "{elapsed:?}, alone {baseline:?}");
        cancel(host, &large).or_else(|_| host.wait_for(&large).map(drop))
    })
}
