//! Crashes of a host: no state is lost, and no effect is repeated.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::{Host, check, until};
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Number of branches: a waiter and a tally each, between one splitter and one merger.
const BRANCHES: i64 = 999;
const STATES: i64 = 2 * BRANCHES + 2;
const KILLS: usize = 20;

fn graph() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": BRANCHES}, "next_nodes": ["waiter"]},
            {"node_name": "wait", "identifier": "waiter",
             "inputs": {"ms": 30, "value": "${{ splitter.outputs.i }}"}, "next_nodes": ["counter"]},
            {"node_name": "tally", "identifier": "counter",
             "inputs": {"key": "told", "value": "${{ waiter.outputs.value }}"}, "next_nodes": ["merger"]},
            {"node_name": "tally", "identifier": "merger",
             "inputs": {"key": "merged", "value": "${{ counter.outputs.value }}"},
             "unites": {"identifier": "splitter"}, "next_nodes": []},
        ],
        "store_config": {"keep": true},
    })
}

/// Starts a host whose log goes to a file, from which the test counts executions.
fn start(data: &Path, log: &File) -> Result<Host> {
    let log = log.try_clone()?;
    Host::start_with(data, &["--slots", "4", "--log-json"], move |command: &mut Command| {
        command.env("EXOSPHERE_LOG", "exosphere_orchestrator=debug").stderr(log);
    })
}

fn query(data: &Path, sql: &str) -> Result<i64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let database = Connection::open_with_flags(data.join("exosphere.db"), flags)?;
    database.busy_timeout(Duration::from_secs(10))?;
    Ok(database.query_row(sql, [], |row| row.get(0))?)
}

#[test]
fn twenty_kills_lose_and_repeat_nothing() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the seed is printed, and can be given")]
    let seed: u64 =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let log = File::create(folder.path().join("log"))?;

    let mut host = start(&data, &log)?;
    host.push("lab")?;
    host.push("tally")?;
    host.apply("crash", &graph())?;
    let run = host.run("crash", &json!({}), &json!({}))?;
    let mut found_queued = 0;
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(20..300)));
        host.kill()?;
        let queued = query(&data, "SELECT COUNT(*) FROM state WHERE status = 'QUEUED'")?;
        found_queued += usize::from(queued > 0);
        host = start(&data, &log)?;
        let count_sql = "SELECT COUNT(*) FROM state WHERE status = 'QUEUED' \
                       AND session <> (SELECT MAX(id) FROM session)";
        ensure!(
            query(&data, count_sql)? == 0,
            "the claims of the dead host were not reclaimed at once"
        );
    }
    ensure!(found_queued >= 15, "only {found_queued} of {KILLS} kills found QUEUED states");

    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    ensure!(
        found["counts"]["states"] == STATES && found["counts"]["success"] == STATES,
        "{found:#}"
    );
    let counters = json!({"told": BRANCHES.to_string(), "merged": "1"});
    ensure!(found["store"] == counters, "{}", found["store"]);
    let merged = host.output(&run, "merger")?;
    ensure!(merged["value"] == json!((0..BRANCHES).collect::<Vec<_>>()), "{merged}");
    ensure!(host.list(&run, "identifier=merger")?.len() == 1);
    drop(host);
    check(&["--data", &data.to_string_lossy()])?;

    let log = std::fs::read_to_string(folder.path().join("log"))?;
    let executions = log.matches("\"executing\"").count() as i64;
    println!(
        "{executions} executions of {STATES} states, {found_queued} kills found QUEUED states"
    );
    ensure!(executions > STATES, "nothing was executed again: {executions}");
    Ok(())
}

/// Kills a host during checkpoints, which copy the write-ahead log into the database file. Each run
/// writes more than 10 MB, and the host makes a checkpoint every 16 MB.
#[test]
fn kills_during_checkpoints_lose_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let graph = json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": "given"}, "next_nodes": []},
    ]});
    let inputs = json!({"value": "x".repeat(3 << 20)});
    let mut runs = Vec::new();
    for round in 0..4 {
        let host = Host::start_in(folder.path())?;
        if round == 0 {
            host.push("lab")?;
            host.apply("echo", &graph)?;
        }
        for _ in 0..6 + round {
            runs.push(host.run("echo", &inputs, &json!({}))?);
        }
        host.kill()?;
    }
    let copied = std::fs::metadata(folder.path().join("exosphere.db"))?.len();
    ensure!(copied > 16 << 20, "no checkpoint was done: the file has {copied} bytes");
    let host = Host::start_in(folder.path())?;
    for run in &runs {
        let ended = host.wait_for(run)?;
        ensure!(ended["status"] == "SUCCESS", "{ended}");
        ensure!(host.output(run, "only")?["value"] == inputs["value"], "run {run}");
    }
    drop(host);
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn first_signal_drains_second_signal_stops() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let graph = json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 20}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter", "inputs": {"ms": 700}, "next_nodes": []},
    ]});
    let begin = |ms: u64| -> Result<(Host, String)> {
        let host = Host::start_with(folder.path(), &["--slots", "2"], |_| ())?;
        host.push("lab")?;
        let mut graph = graph.clone();
        graph["nodes"][1]["inputs"]["ms"] = json!(ms);
        host.apply("drain", &graph)?;
        let run = host.run("drain", &json!({}), &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["states"] == 21)?;
        Ok((host, run))
    };
    let count = |status: &str| {
        let sql = format!("SELECT COUNT(*) FROM state WHERE status = '{status}' AND attempt < 2");
        query(folder.path(), &sql)
    };

    let (mut host, run) = begin(700)?;
    host.terminate()?;
    ensure!(host.wait()?.success(), "a drained host ends well");
    ensure!(count("QUEUED")? == 0, "a drained host holds nothing");
    let done = count("SUCCESS")?;
    ensure!((1..=5).contains(&done), "another state began during the drain: {done}");
    let losses = "SELECT COALESCE(MAX(losses), 0) FROM state";
    ensure!(query(folder.path(), losses)? == 0, "what was given back was not lost");
    drop(host);

    let host = Host::start_with(folder.path(), &[], |_| ())?;
    ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
    drop(host);

    let (mut host, run) = begin(20_000)?;
    host.terminate()?;
    until("the drain to begin", || {
        let refused = host.refused("POST", "/graphs/drain/runs", &json!({}));
        Ok(refused.ok().filter(|(status, _)| *status == 503).map(drop))
    })?;
    host.terminate()?;
    let stopped = std::time::Instant::now();
    host.wait()?;
    ensure!(stopped.elapsed() < Duration::from_secs(10), "the second signal stops at once");
    drop(host);
    ensure!(query(folder.path(), "SELECT COUNT(*) FROM state WHERE status = 'QUEUED'")? > 0);

    let host = Host::start_in(folder.path())?;
    let cancelled = host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    ensure!(cancelled["status"] == "CANCELLED", "{cancelled:#}");
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn a_data_folder_admits_one_host() -> Result<()> {
    let host = Host::start()?;
    let second = Command::new(exosphere_tests::binary()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(host.data())
        .output()?;
    let message = String::from_utf8_lossy(&second.stderr);
    ensure!(!second.status.success() && message.contains("is in use by another"), "{message}");
    Ok(())
}
