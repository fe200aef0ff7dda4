//! Deadlines of runs, on both databases, after a crash and with several hosts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, until};
use serde_json::{Value, json};

const SLOTS: &[&str] = &["--slots", "2"];

fn waits(ms: u32) -> Value {
    json!({"nodes": [
        {"node_name": "wait", "identifier": "waiter", "inputs": {"ms": ms, "value": 1},
         "next_nodes": []},
    ]})
}

fn start(host: &Host, graph: &str, body: &Value) -> Result<String> {
    let run = host.send("POST", &format!("/graphs/{graph}/runs"), body)?;
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

#[test]
fn a_deadline_stops_a_running_run() -> Result<()> {
    on_both("deadline", SLOTS, |host| {
        host.push("lab")?;
        host.apply("long", &waits(25_000))?;
        host.apply("short", &waits(0))?;
        let begun = Instant::now();
        let run = start(host, "long", &json!({"deadline_ms": 800}))?;
        ensure!(host.get(&format!("/runs/{run}"))?["deadline_at"].is_number());
        let ended = host.wait_for(&run)?;
        ensure!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
        ensure!(ended["status"] == "FAILED" && ended["reason"] == "deadline", "{ended}");
        // Its guest is stopped, long before its own timeout.
        until("the end of the guest", || Ok((host.holding()? == 0).then_some(())))?;
        ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let ended = host.wait_until(&run, |run| run["counts"]["open"] == 0)?;
        ensure!(ended["counts"]["cancelled"] == 1, "{ended}");
        for path in ["redrive", "resume"] {
            let path = format!("/runs/{run}/{path}");
            let (refused, problem) = host.refused("POST", &path, &json!({}))?;
            ensure!(refused == 409, "{problem}");
        }
        let met = start(host, "short", &json!({"deadline_ms": 60_000, "start_by_ms": 60_000}))?;
        let ended = host.wait_for(&met)?;
        ensure!(ended["status"] == "SUCCESS" && ended["reason"].is_null(), "{ended}");
        Ok(())
    })
}

#[test]
fn a_run_must_begin_in_time() -> Result<()> {
    on_both("startby", SLOTS, |host| {
        host.push("lab")?;
        host.apply("late", &waits(0))?;
        let body = json!({"delay_ms": 300, "start_by_ms": 1_200});
        let run = start(host, "late", &body)?;
        host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        let ended = host.wait_for(&run)?;
        ensure!(ended["status"] == "FAILED" && ended["reason"] == "start-by", "{ended}");
        let run = start(host, "late", &body)?;
        ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
        let invalid = json!({"delay_ms": 300, "start_by_ms": 300, "deadline_ms": 0});
        let (refused, problem) = host.refused("POST", "/graphs/late/runs", &invalid)?;
        let paths: Vec<_> =
            problem["errors"].as_array().into_iter().flatten().map(|e| &e["path"]).collect();
        let expected = json!(["$.deadline_ms", "$.start_by_ms"]);
        ensure!(refused == 422 && json!(paths) == expected, "{problem}");
        Ok(())
    })
}

#[test]
fn a_deadline_survives_a_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), SLOTS, |_| ())?;
    host.push("lab")?;
    host.apply("long", &waits(25_000))?;
    let run = start(&host, "long", &json!({"deadline_ms": 1_000}))?;
    host.kill()?;
    let host = Host::start_with(folder.path(), SLOTS, |_| ())?;
    let ended = host.wait_for(&run)?;
    ensure!(ended["status"] == "FAILED" && ended["reason"] == "deadline", "{ended}");
    drop(host);
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn another_host_enforces_a_deadline() -> Result<()> {
    let url = Postgres::shared()?.create_database("deadlinehosts")?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let key = folders[0].path().join("keys");
    let key = key.to_string_lossy();
    let hosts = folders.iter().map(|folder| {
        let arguments = ["--database", &url, "--slots", "2", "--key", &key];
        Host::start_with(folder.path(), &arguments, |_| ())
    });
    let mut hosts = hosts.collect::<Result<Vec<_>>>()?;
    let other = hosts.pop().context("two hosts")?;
    let first = hosts.pop().context("two hosts")?;
    first.push("lab")?;
    first.apply("long", &waits(25_000))?;
    let run = start(&first, "long", &json!({"deadline_ms": 1_500}))?;
    first.kill()?;
    let ended = other.wait_for(&run)?;
    ensure!(ended["status"] == "FAILED" && ended["reason"] == "deadline", "{ended}");
    drop(other);
    check(&["--database", &url])
}
