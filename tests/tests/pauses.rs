//! Pauses of graphs and namespaces: on both databases, after a crash, and on several hosts.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, until};
use serde_json::{Value, json};

/// The time within which a pause holds on every host.
const HOLDS_WITHIN: Duration = Duration::from_secs(1);

fn waits(ms: u32) -> Value {
    json!({"nodes": [
        {"node_name": "wait", "identifier": "first", "inputs": {"ms": ms, "value": 1},
         "next_nodes": ["second"]},
        {"node_name": "wait", "identifier": "second", "inputs": {"ms": 0, "value": 1},
         "next_nodes": []},
    ]})
}

fn host(folder: &Path, database: Option<&str>) -> Result<Host> {
    let database = database.map(|url| vec!["--database", url]).unwrap_or_default();
    let arguments: Vec<_> = database.into_iter().chain(["--slots", "2"]).collect();
    Host::start_with(folder, &arguments, |_| ())
}

/// Runs a test on both databases, with a folder for hosts, and then checks all invariants.
fn on_both(name: &str, test: impl Fn(&Path, Option<&str>) -> Result<()>) -> Result<()> {
    let url = Postgres::shared()?.create_database(name)?;
    for database in [None, Some(url.as_str())] {
        let folder = tempfile::tempdir()?;
        test(folder.path(), database)
            .with_context(|| format!("on {}", database.unwrap_or("SQLite")))?;
        match database {
            Some(url) => check(&["--database", url])?,
            None => check(&["--data", &folder.path().to_string_lossy()])?,
        }
    }
    Ok(())
}

/// Starts a run, and returns its id.
fn start(host: &Host, graph: &str) -> Result<String> {
    host.run(graph, &json!({}), &json!({}))
}

/// Checks that a run is paused by the pause of `with`: the run, its graph or its namespace.
fn ensure_waits(host: &Host, run: &str, with: &str, reason: &str) -> Result<()> {
    let found = host.get(&format!("/runs/{run}"))?;
    let pause = &found["pause"];
    ensure!(found["status"] == "RUNNING" && found["paused"] == true, "{found}");
    ensure!(pause["of"] == with && pause["pause"]["reason"] == reason, "{found}");
    ensure!(pause["pause"]["since"].is_number(), "{found}");
    Ok(())
}

#[test]
fn a_paused_graph_holds_its_runs() -> Result<()> {
    on_both("pausegraph", |folder, database| {
        let first = host(folder, database)?;
        first.push("lab")?;
        first.apply("held", &waits(1_000))?;
        first.apply("free", &waits(0))?;
        let running = start(&first, "held")?;
        let paused = first.send(
            "POST",
            "/graphs/held/pause",
            &json!({"reason": "the other side is down"}),
        )?;
        ensure!(paused["pause"]["reason"] == "the other side is down", "{paused}");
        let new = start(&first, "held")?;
        until("the runs to follow", || {
            Ok((first.get(&format!("/runs/{running}"))?["paused"] == true).then_some(()))
        })?;
        // The running state ends, and its successor waits.
        until("the end of the running state", || {
            let counts = &first.get(&format!("/runs/{running}"))?["counts"];
            Ok((counts["success"] == 1 || first.holding()? == 0).then_some(()))
        })?;
        let other = start(&first, "free")?;
        ensure!(first.wait_for(&other)?["status"] == "SUCCESS");
        for run in [&running, &new] {
            ensure_waits(&first, run, "graph", "the other side is down")?;
        }
        let (refused, problem) =
            first.refused("POST", &format!("/runs/{new}/resume"), &json!({}))?;
        ensure!(refused == 409, "{problem}");
        first.kill()?;

        let second = host(folder, database)?;
        ensure_waits(&second, &new, "graph", "the other side is down")?;
        let shown = second.get("/graphs/held")?;
        ensure!(shown["pause"]["reason"] == "the other side is down", "{shown}");
        let resumed = second.send("POST", "/graphs/held/resume", &json!({}))?;
        ensure!(resumed["pause"].is_null(), "{resumed}");
        for run in [&running, &new] {
            let ended = second.wait_for(run)?;
            ensure!(ended["status"] == "SUCCESS" && ended["paused"] == false, "{ended}");
        }
        let long = json!({"reason": "x".repeat(501)});
        ensure!(second.refused("POST", "/graphs/held/pause", &long)?.0 == 422);
        ensure!(second.refused("POST", "/graphs/none/pause", &json!({}))?.0 == 404);
        Ok(())
    })
}

#[test]
fn a_paused_run_shows_its_pause() -> Result<()> {
    on_both("pauserun", |folder, database| {
        let first = host(folder, database)?;
        first.push("lab")?;
        first.apply("held", &waits(60_000))?;
        let run = start(&first, "held")?;
        first.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        ensure_waits(&first, &run, "run", "")?;
        let found = first.get(&format!("/runs/{run}"))?;
        let by = found["pause"]["pause"]["by"].as_str().context("a caller")?;
        ensure!(first.key().contains(by), "{found}");
        let shown = first.command()?.args(["run", "show", &run]).output()?;
        let shown = String::from_utf8(shown.stdout)?;
        let line = format!(" by {by}");
        ensure!(shown.contains("the run is paused since 2") && shown.contains(&line), "{shown}");
        first.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
        Ok(())
    })
}

#[test]
fn a_paused_namespace_holds_its_runs() -> Result<()> {
    on_both("pausespace", |folder, database| {
        const SPACE: &str = "//v1/operator/namespaces/default";
        let first = host(folder, database)?;
        first.push("lab")?;
        first.apply("held", &waits(0))?;
        let body = json!({"reason": "maintenance"});
        let paused = first.send("POST", &format!("{SPACE}/pause"), &body)?;
        ensure!(paused["pause"]["reason"] == "maintenance", "{paused}");
        let run = start(&first, "held")?;
        std::thread::sleep(HOLDS_WITHIN);
        ensure_waits(&first, &run, "namespace", "maintenance")?;
        let listed = first.get("/runs")?;
        ensure!(listed["runs"][0]["paused"] == true, "{listed}");
        first.kill()?;
        let second = host(folder, database)?;
        std::thread::sleep(HOLDS_WITHIN);
        ensure_waits(&second, &run, "namespace", "maintenance")?;
        second.send("POST", &format!("{SPACE}/resume"), &json!({}))?;
        ensure!(second.wait_for(&run)?["status"] == "SUCCESS");
        ensure!(second.get(SPACE)?["pause"].is_null());
        Ok(())
    })
}

#[test]
fn a_pause_holds_on_every_host() -> Result<()> {
    let url = Postgres::shared()?.create_database("pausehosts")?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("shared.key");
    let key = key.to_string_lossy();
    let start_host = |name: &str| {
        let arguments = ["--database", &url, "--slots", "2", "--key", &key];
        Host::start_with(&folder.path().join(name), &arguments, |_| ())
    };
    let (one, two) = (start_host("one")?, start_host("two")?);
    one.push("lab")?;
    one.apply("held", &waits(0))?;
    one.send("POST", "//v1/operator/namespaces/default/pause", &json!({"reason": "r"}))?;
    std::thread::sleep(HOLDS_WITHIN);
    let run = start(&two, "held")?;
    std::thread::sleep(HOLDS_WITHIN);
    ensure_waits(&two, &run, "namespace", "r")?;
    let begun = Instant::now();
    one.send("POST", "//v1/operator/namespaces/default/resume", &json!({}))?;
    ensure!(two.wait_for(&run)?["status"] == "SUCCESS");
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop((one, two));
    check(&["--database", &url])
}
