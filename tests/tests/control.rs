//! Control of runs by users, on both databases: delayed and repeated starts, pause, cancel,
//! redrive.
//!
//! Not here: several hosts (`hosts`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, until};
use serde_json::{Value, json};

/// Runs a test on a host on SQLite and on one on Postgres, and then checks all invariants.
fn on_both(name: &str, test: impl Fn(&Harness) -> Result<()>) -> Result<()> {
    let url = Postgres::shared()?.create_database(name)?;
    for database in [None, Some(url.as_str())] {
        let folder = tempfile::tempdir()?;
        let harness = Harness { folder: folder.path(), database };
        test(&harness).with_context(|| format!("on {}", database.unwrap_or("SQLite")))?;
        match database {
            Some(url) => check(&["--database", url])?,
            None => check(&["--data", &folder.path().to_string_lossy()])?,
        }
    }
    Ok(())
}

/// A database on which hosts are started one after the other.
struct Harness<'a> {
    folder: &'a Path,
    database: Option<&'a str>,
}

impl Harness<'_> {
    fn host(&self) -> Result<Host> {
        let database = self.database.map(|url| vec!["--database", url]).unwrap_or_default();
        let arguments: Vec<_> = database.into_iter().chain(["--slots", "2"]).collect();
        let host = Host::start_with(self.folder, &arguments, |_| ())?;
        host.push("lab")?;
        Ok(host)
    }
}

fn waiters(branches: u32, ms: u32) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": branches}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter",
         "inputs": {"ms": ms, "value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ waiter.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]})
}

fn start(host: &Host, graph: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = host.request("POST", &format!("/graphs/{graph}/runs"))?.json(body).send()?;
    Ok((answer.status().as_u16(), answer.json()?))
}

fn id(run: &Value) -> Result<String> {
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

#[test]
fn a_start_can_be_delayed() -> Result<()> {
    on_both("later", |harness| {
        let host = harness.host()?;
        host.apply("later", &waiters(1, 0))?;
        let started = Instant::now();
        let (_, run) = start(&host, "later", &json!({"delay_ms": 700}))?;
        let run = id(&run)?;
        let states = host.list(&run, "")?;
        ensure!(states.len() == 1 && states[0]["status"] == "CREATED", "{states:?}");
        ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
        ensure!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
        let (status, problem) = host.refused(
            "POST",
            "/graphs/later/runs",
            &json!({"delay_ms": 1u64 << 40, "idempotency_key": ""}),
        )?;
        let paths: Vec<_> =
            problem["errors"].as_array().into_iter().flatten().map(|e| &e["path"]).collect();
        ensure!(
            status == 422 && json!(paths) == json!(["$.idempotency_key", "$.delay_ms"]),
            "{problem}"
        );
        Ok(())
    })
}

#[test]
fn a_repeated_key_returns_the_same_run() -> Result<()> {
    on_both("once", |harness| {
        let host = harness.host()?;
        host.apply("once", &waiters(2, 0))?;
        host.apply("other", &waiters(1, 0))?;
        let body = json!({"idempotency_key": "invoice 4711"});
        let (first, run) = start(&host, "once", &body)?;
        let (second, repeated) = start(&host, "once", &body)?;
        ensure!((first, second) == (201, 200) && run["run"] == repeated["run"], "{run} {repeated}");
        let (status, problem) = host.refused("POST", "/graphs/other/runs", &body)?;
        ensure!(status == 422, "{problem}");
        host.kill()?;
        let host = harness.host()?;
        let (_, after_end) = start(&host, "once", &body)?;
        ensure!(after_end["run"] == run["run"], "it holds after a crash: {after_end}");
        ensure!(host.wait_for(&id(&run)?)?["counts"]["states"] == 4);
        ensure!(host.get("/runs")?["runs"].as_array().map(Vec::len) == Some(1));
        Ok(())
    })
}

#[test]
fn a_start_can_wait_for_the_result() -> Result<()> {
    on_both("ends", |harness| {
        let host = harness.host()?;
        host.apply("ends", &waiters(2, 20))?;
        let ended = "ends/runs?wait_ms=30000";
        let post = |path: &str, body: &Value| -> Result<(u16, Value)> {
            let answer = host.request("POST", &format!("/graphs/{path}"))?.json(body).send()?;
            Ok((answer.status().as_u16(), answer.json()?))
        };
        let body = json!({"idempotency_key": "one"});
        let (status, run) = post(ended, &body)?;
        ensure!(status == 201 && run["status"] == "SUCCESS" && run["revision"] == 1, "{run}");
        let started = Instant::now();
        let (status, repeated) = post(ended, &body)?;
        ensure!(status == 200 && repeated["run"] == run["run"], "{repeated}");
        ensure!(started.elapsed() < Duration::from_secs(20), "one that is over is not waited for");
        let (_, delayed) = post("ends/runs?wait_ms=1", &json!({"delay_ms": 60_000}))?;
        ensure!(delayed["status"] == "RUNNING", "the wait did not end first: {delayed}");
        // The cached graph is the previous revision.
        host.apply("ends", &waiters(3, 0))?;
        let (_, next) = post(ended, &json!({}))?;
        ensure!(next["revision"] == 2 && next["counts"]["states"] == 5, "{next}");
        Ok(())
    })
}

#[test]
fn a_paused_run_only_finishes_running_states() -> Result<()> {
    on_both("pause", |harness| {
        let host = harness.host()?;
        host.apply("pause", &waiters(30, 100))?;
        let run = host.run("pause", &json!({}), &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["success"].as_u64() > Some(2))?;
        let paused = host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        ensure!(paused["paused"] == true && paused["status"] == "RUNNING", "{paused}");
        // Claimed states that have not begun are released.
        until("the end of what runs", || Ok((host.holding()? == 0).then_some(())))?;
        let before = host.get(&format!("/runs/{run}"))?["counts"].clone();
        ensure!(
            before["success"].as_u64() < Some(12),
            "a state that was not running has ended: {before}"
        );
        host.kill()?;

        let host = harness.host()?;
        let found = host.get(&format!("/runs/{run}"))?;
        ensure!(found["paused"] == true && found["counts"] == before, "{found}");
        // The due states of the paused run do not delay other runs.
        ensure!(host.result_of("free", &waiters(3, 0), &json!({}))?["status"] == "SUCCESS");
        let found = host.get(&format!("/runs/{run}"))?;
        ensure!(found["counts"] == before, "{found}");

        let resumed = host.send("POST", &format!("/runs/{run}/resume"), &json!({}))?;
        ensure!(resumed["paused"] == false, "{resumed}");
        let ended = host.wait_for(&run)?;
        ensure!(ended["status"] == "SUCCESS" && ended["counts"]["success"] == 32, "{ended}");
        let (status, problem) = host.refused("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        ensure!(status == 409, "{problem}");
        Ok(())
    })
}

#[test]
fn a_paused_run_can_be_cancelled() -> Result<()> {
    on_both("stop", |harness| {
        let host = harness.host()?;
        host.apply("stop", &waiters(50, 30_000))?;
        let run = host.run("stop", &json!({}), &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["states"] == 52)?;
        host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        let cancelled = host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
        ensure!(cancelled["status"] == "CANCELLED", "{cancelled}");
        ensure!(cancelled["counts"]["open"] == 0 && cancelled["counts"]["cancelled"] == 51);
        Ok(())
    })
}

#[test]
fn a_redrive_repairs_a_failed_run() -> Result<()> {
    on_both("redrive", |harness| {
        let host = harness.host()?;
        host.apply("redrive", &json!({"nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 700}, "next_nodes": ["worker"]},
            {"node_name": "fail_when", "identifier": "worker", "next_nodes": ["merger"],
             "inputs": {"value": "x", "equals": "x", "until_attempt": 1}},
            {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
             "unites": {"identifier": "splitter"}, "next_nodes": []},
        ]}))?;
        let run = host.run("redrive", &json!({}), &json!({}))?;
        let failed = host.wait_for(&run)?;
        ensure!(failed["status"] == "FAILED" && failed["counts"]["errored"] == 701, "{failed}");
        let path = format!("/runs/{run}/redrive");
        let redriven = host.send("POST", &path, &json!({}))?;
        ensure!(redriven["retried"] == 700 && redriven["late"] == 0, "{redriven}");
        let healed = host.wait_for(&run)?;
        ensure!(healed["status"] == "SUCCESS" && healed["counts"]["success"] == 702, "{healed}");
        let (status, problem) = host.refused("POST", &path, &json!({}))?;
        ensure!(status == 409, "{problem}");
        Ok(())
    })
}

#[test]
fn runs_are_paged_newest_first() -> Result<()> {
    on_both("pages", |harness| {
        let host = harness.host()?;
        host.apply("pages", &waiters(1, 0))?;
        let mut runs = Vec::new();
        for _ in 0..5 {
            runs.push(host.run("pages", &json!({}), &json!({}))?);
        }
        runs.reverse();
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let page = host.get(&format!("/runs?graph=pages&limit=2{after}"))?;
            for run in page["runs"].as_array().context("a page has runs")? {
                listed.push(id(run)?);
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        ensure!(listed == runs, "{listed:?} {runs:?}");
        Ok(())
    })
}
