//! Deletion of runs, graphs and plugins, and revisions of graphs, on both databases.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, binary, good, until};
use serde_json::{Value, json};

const SLOTS: &[&str] = &["--slots", "2"];

fn fan(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": branches}, "next_nodes": ["worker"]},
        {"node_name": "wait", "identifier": "worker",
         "inputs": {"ms": 0, "value": "${{ splitter.outputs.i }}"}, "next_nodes": []},
    ]})
}

/// Runs a command of the client against a host, and returns what it printed.
fn client(host: &Host, arguments: &[&str]) -> Result<(bool, String)> {
    let output = host.command()?.args(arguments).output()?;
    let printed = [&output.stdout[..], &output.stderr[..]].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
}

/// Returns the status of a request without a body.
fn status(host: &Host, method: &str, path: &str) -> Result<u16> {
    Ok(host.request(method, path)?.send()?.status().as_u16())
}

#[test]
fn a_large_run_is_deleted_in_pieces() -> Result<()> {
    on_both("deleterun", SLOTS, |host| {
        host.push("lab")?;
        host.apply("wide", &fan(3_000))?;
        host.apply("small", &fan(1))?;
        let run = host.run("wide", &json!({}), &json!({}))?;
        let path = format!("/runs/{run}");
        let (refused, problem) = host.refused("DELETE", &path, &json!({}))?;
        ensure!(refused == 409, "a run that has not ended stays: {problem}");
        host.wait_for(&run)?;
        let deleted = good(host.request("DELETE", &path)?.send()?)?;
        ensure!(deleted["run"] == run.as_str(), "{deleted}");
        for (method, path) in [("GET", path.clone()), ("DELETE", path.clone())] {
            ensure!(status(host, method, &path)? == 404, "{method} {path}");
        }
        ensure!(status(host, "GET", &format!("{path}/states"))? == 404);
        ensure!(host.get("/runs")?["runs"] == json!([]));
        // Other runs continue meanwhile.
        let other = host.run("small", &json!({}), &json!({}))?;
        ensure!(host.wait_for(&other)?["status"] == "SUCCESS");
        let (ok, text) = client(host, &["run", "delete", &other])?;
        ensure!(ok && text.contains("deleted"), "{text}");
        Ok(())
    })
}

#[test]
fn a_graph_is_deleted_when_asked() -> Result<()> {
    on_both("deletegraph", SLOTS, |host| {
        host.push("lab")?;
        host.apply("gone", &fan(2))?;
        let run = host.run("gone", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        let (refused, problem) = host.refused("DELETE", "/graphs/gone", &json!({}))?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(refused == 409 && detail.contains("--with-runs"), "{problem}");
        let (ok, text) = client(host, &["graph", "delete", "gone", "--with-runs"])?;
        ensure!(ok && text.contains("1 revision and 1 run"), "{text}");
        ensure!(status(host, "GET", "/graphs/gone")? == 404);
        ensure!(status(host, "GET", &format!("/runs/{run}"))? == 404);
        ensure!(host.refused("POST", "/graphs/gone/runs", &json!({}))?.0 == 404);
        // A new graph of this name has nothing of the old one.
        host.apply("gone", &fan(3))?;
        let next = host.run("gone", &json!({}), &json!({}))?;
        let ended = host.wait_for(&next)?;
        ensure!(ended["revision"] == 1 && ended["counts"]["states"] == 4, "{ended}");
        Ok(())
    })
}

#[test]
fn a_plugin_in_use_is_not_removed() -> Result<()> {
    on_both("removeplugin", SLOTS, |host| {
        host.push("lab")?;
        host.push("text")?;
        host.apply("uses", &fan(1))?;
        let (refused, problem) = host.refused("DELETE", "/plugins/lab", &json!({}))?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(refused == 409 && detail.contains("uses (revision 1)"), "{problem}");
        let (ok, text) = client(host, &["plugin", "remove", "text"])?;
        ensure!(ok && text.contains("text removed"), "{text}");
        ensure!(status(host, "GET", "/plugins/text")? == 404);
        let (ok, text) = client(host, &["plugin", "remove", "lab", "--unused"])?;
        ensure!(ok && text.contains("nothing was removed"), "{text}");
        let run = host.run("uses", &json!({}), &json!({}))?;
        ensure!(host.wait_for(&run)?["status"] == "SUCCESS", "its plugin is still there");
        good(host.request("DELETE", "/graphs/uses?with_runs=true")?.send()?)?;
        let removed = good(host.request("DELETE", "/plugins/lab")?.send()?)?;
        ensure!(removed["digests"].as_array().map(Vec::len) == Some(1), "{removed}");
        ensure!(host.refused("PUT", "/graphs/uses", &fan(1))?.0 == 422);
        Ok(())
    })
}

#[test]
fn an_old_revision_is_compared_and_restored() -> Result<()> {
    on_both("revisions", SLOTS, |host| {
        host.push("lab")?;
        host.apply("grows", &fan(2))?;
        let second = host.apply("grows", &fan(5))?;
        ensure!(second["revision"] == 2, "{second}");
        let list = host.get("/graphs/grows/revisions")?;
        let numbers: Vec<_> = list["revisions"].as_array().context("a list")?.iter().collect();
        ensure!(numbers.len() == 2 && numbers[0]["current"] == true, "{list}");
        ensure!(numbers[0]["revision"] == 2 && numbers[1]["current"] == false, "{list}");
        let first = host.get("/graphs/grows/revisions/1")?;
        ensure!(first["template"]["nodes"][0]["inputs"]["n"] == 2, "{first}");
        ensure!(status(host, "GET", "/graphs/grows/revisions/3")? == 404);
        ensure!(status(host, "GET", "/graphs/none/revisions")? == 404);
        let diff = host.get("/graphs/grows/diff?from=1&to=2")?;
        let fields = json!([{"field": "inputs.n", "from": 2, "to": 5}]);
        ensure!(diff["changed"] == json!([{"identifier": "splitter", "fields": fields}]), "{diff}");
        let (ok, text) = client(host, &["graph", "diff", "grows"])?;
        ensure!(ok && text.contains("~ node splitter inputs.n: 2 -> 5"), "{text}");

        // A start may name a revision, and its key holds it to that.
        let pinned = json!({"revision": 1, "idempotency_key": "k"});
        let run = host.send("POST", "/graphs/grows/runs?wait_ms=20000", &pinned)?;
        ensure!(run["revision"] == 1 && run["counts"]["states"] == 3, "{run}");
        let other = json!({"revision": 2, "idempotency_key": "k"});
        let (reused, problem) = host.refused("POST", "/graphs/grows/runs", &other)?;
        ensure!(reused == 422 && problem["errors"][0]["path"] == "$.revision", "{problem}");
        let (missing, problem) =
            host.refused("POST", "/graphs/grows/runs", &json!({"revision": 9}))?;
        ensure!(missing == 404, "{problem}");

        // A rollback is conditional, and makes a new revision.
        let stale = format!("\"{}\"", first["digest"].as_str().unwrap_or_default());
        let roll_back = || host.request("POST", "/graphs/grows/rollback");
        let body = json!({"revision": 1});
        let answer = roll_back()?.header("if-match", &stale).json(&body).send()?;
        ensure!(answer.status().as_u16() == 412, "{}", answer.status());
        let (ok, text) = client(host, &["graph", "rollback", "grows", "1"])?;
        ensure!(ok && text.contains("revision 3"), "{text}");
        let current = host.get("/graphs/grows")?;
        ensure!(current["revision"] == 3 && current["digest"] == first["digest"], "{current}");
        let again = good(roll_back()?.json(&body).send()?)?;
        ensure!(again["changed"] == false && again["revision"] == 3, "{again}");
        let run = host.result_of("grows", &fan(2), &json!({}))?;
        ensure!(run["revision"] == 3 && run["counts"]["states"] == 3, "{run}");
        Ok(())
    })
}

#[test]
fn a_removal_continues_after_a_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), SLOTS, |_| ())?;
    host.push("lab")?;
    host.apply("wide", &fan(3_000))?;
    let run = host.run("wide", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    good(host.request("DELETE", &format!("/runs/{run}"))?.send()?)?;
    host.kill()?;
    let data = folder.path().to_string_lossy().into_owned();
    exosphere_tests::check(&["--data", &data])?;
    let host = Host::start_with(folder.path(), SLOTS, |_| ())?;
    ensure!(status(&host, "GET", &format!("/runs/{run}"))? == 404);
    // The host removes everything; `check` counts the states that are left.
    until("the end of the removal", || {
        let checked =
            Command::new(binary()?).args(["check", "--json", "--data", &data]).output()?;
        let report: Value = serde_json::from_slice(&checked.stdout)?;
        Ok((report["checked"]["outputs"] == 0).then_some(()))
    })
}
