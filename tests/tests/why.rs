//! The reasons why states and runs wait: each is brought about, and told in data and in words, on
//! both databases.

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

/// Returns a graph of one node.
fn one(node: &str, inputs: &Value) -> Value {
    json!({"nodes": [
        {"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []},
    ]})
}

fn start(host: &Host, graph: &str, body: &Value) -> Result<String> {
    let started = host.send("POST", &format!("/graphs/{graph}/runs"), body)?;
    Ok(started["run"].as_str().context("a run has an id")?.to_owned())
}

/// Waits until the reason of a state is `reason`, and returns it with its sentence.
fn why(host: &Host, run: &str, state: &str, reason: &str) -> Result<(Value, String)> {
    let path = format!("/runs/{run}/states/{state}/why");
    let found = until("the reason", || {
        let found = host.get(&path)?;
        Ok((found["why"]["reason"] == reason).then_some(found))
    });
    let found = found.with_context(|| format!("{reason}: {:?}", host.get(&path)))?;
    let sentence = found["sentence"].as_str().context("a reason has a sentence")?;
    Ok((found["why"].clone(), sentence.to_owned()))
}

/// Returns the reasons of a run with the number of states of each.
fn reasons(host: &Host, run: &str) -> Result<Vec<(String, u64)>> {
    let found = host.get(&format!("/runs/{run}/why"))?;
    let reasons = found["reasons"].as_array().context("a run has reasons")?;
    let read =
        |reason: &Value| Some((reason["reason"].as_str()?.to_owned(), reason["states"].as_u64()?));
    reasons.iter().map(|reason| read(reason).with_context(|| format!("{found:#}"))).collect()
}

fn cancel(host: &Host, run: &str) -> Result<()> {
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({})).map(drop)
}

#[test]
fn reasons_of_time_are_told() -> Result<()> {
    on_both("why_time", &[], |host| {
        host.push("lab")?;
        host.apply("wait", &one("wait", &json!({"ms": 60_000, "value": 1})))?;
        host.apply("echo", &one("echo", &json!({"value": 1})))?;
        let retried = json!({
            "nodes": [{"node_name": "fail_when", "identifier": "only", "next_nodes": [],
                "inputs": {"value": 1, "equals": 1, "permanent": false}}],
            "retry_policy": {"max_retries": 5, "strategy": "FIXED", "backoff_factor": 3_600_000,
                "max_delay": 3_600_000},
        });
        host.apply("retried", &retried)?;
        let turns = json!({"i": 0, "turns": ["requeue"], "key": "k", "requeue_ms": 3_600_000});
        host.apply("requeued", &one("chore", &turns))?;

        let run = start(host, "wait", &json!({}))?;
        let (why_it, words) = why(host, &run, "only", "running")?;
        ensure!(why_it["deadline_at"].as_i64() > why_it["since"].as_i64(), "{why_it}");
        ensure!(
            words.starts_with("only has been running on ") && words.contains("its deadline"),
            "{words}"
        );
        ensure!(reasons(host, &run)? == [("running".to_owned(), 1)]);
        cancel(host, &run)?;
        let ended = until("the end", || {
            let found = host.get(&format!("/runs/{run}/states/only/why"))?;
            Ok(found["why"].is_null().then_some(found))
        })?;
        ensure!(ended["sentence"] == "only has ended: CANCELLED", "{ended}");

        let run = start(host, "echo", &json!({"delay_ms": 3_600_000}))?;
        let (why_it, words) = why(host, &run, "only", "delayed")?;
        ensure!(why_it["until"].is_number() && words.contains("in 59 min"), "{words} {why_it}");
        ensure!(reasons(host, &run)? == [("delayed".to_owned(), 1)]);
        let shown =
            String::from_utf8(host.command()?.args(["run", "why", &run, "only"]).output()?.stdout)?;
        ensure!(shown.contains("only begins in 59 min"), "{shown}");

        let run = start(host, "retried", &json!({}))?;
        let (why_it, words) = why(host, &run, "only", "backoff")?;
        ensure!(why_it["retry"] == 1 && why_it["max_retries"] == 5, "{why_it}");
        ensure!(why_it["after"] == "retryable", "{why_it}");
        ensure!(words.contains("retry 1 of 5"), "{words}");
        ensure!(reasons(host, &run)? == [("backoff".to_owned(), 1)]);

        let run = start(host, "requeued", &json!({}))?;
        let (why_it, words) = why(host, &run, "only", "requeued")?;
        ensure!(why_it["until"].is_number() && words.contains("as its node asked"), "{words}");
        ensure!(reasons(host, &run)? == [("requeued".to_owned(), 1)]);
        Ok(())
    })
}

#[test]
fn reasons_of_pauses_are_told() -> Result<()> {
    on_both("why_pauses", &[], |host| {
        host.push("lab")?;
        host.apply("echo", &one("echo", &json!({"value": 1})))?;
        let reason = json!({"reason": "maintenance"});
        for (of, pause, resume) in [
            ("graph", "/graphs/echo/pause", "/graphs/echo/resume"),
            (
                "namespace",
                "//v1/operator/namespaces/default/pause",
                "//v1/operator/namespaces/default/resume",
            ),
        ] {
            host.send("POST", pause, &reason)?;
            let run = start(host, "echo", &json!({}))?;
            let (why_it, words) = why(host, &run, "only", "paused")?;
            ensure!(why_it["of"] == of && why_it["because"] == "maintenance", "{why_it}");
            ensure!(why_it["since"].is_number() && why_it["by"].is_string(), "{why_it}");
            ensure!(words.contains(&format!("its {of} has been paused for")), "{words}");
            ensure!(reasons(host, &run)? == [("paused".to_owned(), 1)]);
            host.send("POST", resume, &json!({}))?;
            host.wait_for(&run)?;
        }
        let run = start(host, "echo", &json!({"delay_ms": 3_600_000}))?;
        host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        let (why_it, words) = why(host, &run, "only", "paused")?;
        ensure!(why_it["of"] == "run" && words.contains("its run has been paused"), "{words}");
        Ok(())
    })
}

#[test]
fn a_paused_wide_run_tells_one_reason() -> Result<()> {
    on_both("why_wide", &["--slots", "1"], |host| {
        host.push("lab")?;
        let wide = json!({"nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 6_000},
             "next_nodes": ["branch"]},
            {"node_name": "wait", "identifier": "branch", "inputs": {"ms": 300, "value": 1},
             "next_nodes": ["joined"]},
            {"node_name": "echo", "identifier": "joined", "inputs": {"value": 1},
             "unites": {"identifier": "split"}, "next_nodes": []},
        ]});
        host.apply("wide", &wide)?;
        let run = start(host, "wide", &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["states"] == 6_002)?;
        host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
        // What runs ends; then all branches are paused, and the unite waits for them.
        let found = until("the pause of every branch", || {
            let found = host.get(&format!("/runs/{run}/why"))?;
            let kinds: Vec<_> = found["reasons"].as_array().into_iter().flatten().collect();
            let is_paused = |at: usize, reason: &str| kinds[at]["reason"] == reason;
            let all = kinds.len() == 2
                && is_paused(0, "paused")
                && is_paused(1, "unite")
                && kinds[0]["states"] == kinds[1]["open"];
            Ok(all.then_some(found))
        })?;
        let (paused, unite) = (&found["reasons"][0], &found["reasons"][1]);
        ensure!(paused["states"].as_u64() > Some(5_900), "{found:#}");
        // States that nothing claims are found, too, and so are those around them.
        ensure!(paused["example"].is_string() && unite["example"] == "split.joined", "{found:#}");
        let oldest = unite["oldest"].as_array().context("the oldest")?;
        ensure!(oldest.len() == 3 && oldest[0]["reason"] == "paused", "{found:#}");
        let words = found["sentence"].as_str().unwrap_or_default();
        ensure!(words.contains("states are paused: the run has been paused"), "{words}");
        cancel(host, &run)
    })
}

#[test]
fn reasons_of_slots_are_told() -> Result<()> {
    on_both("why_slots", &["--slots", "2", "--namespace-slots", "2"], |host| {
        host.push("lab")?;
        host.apply("wait", &one("wait", &json!({"ms": 60_000, "value": 1})))?;
        host.namespace("small", &json!({"slots": 1}))?;
        let small = |path: &str| format!("//v1/namespaces/small{path}");
        let upload = exosphere_tests::component("lab")?;
        let request = host.request("POST", &small("/plugins?name=lab"))?;
        let request = request.header("content-type", "application/wasm").body(upload);
        let answer = request.send()?;
        ensure!(answer.status().is_success(), "{}", answer.text()?);
        let graph = one("wait", &json!({"ms": 60_000, "value": 1}));
        host.send("PUT", &small("/graphs/wait"), &graph)?;
        let start_small = || -> Result<String> {
            let started = host.send("POST", &small("/graphs/wait/runs"), &json!({}))?;
            Ok(started["run"].as_str().context("an id")?.to_owned())
        };
        let runs = [start_small()?, start_small()?];
        let found = until("one waits for its namespace", || {
            for run in &runs {
                let found = host.get(&small(&format!("/runs/{run}/states/only/why")))?;
                if found["why"]["reason"] == "namespace-share" {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })?;
        ensure!(found["why"]["used"] == 1 && found["why"]["slots"] == 1, "{found}");
        let words = found["sentence"].as_str().context("a sentence")?;
        ensure!(words.contains("a slot of its namespace, which has 1 of 1 here"), "{words}");
        // The other slot goes to the first run, and the next one waits for a slot.
        let first = start(host, "wait", &json!({}))?;
        why(host, &first, "only", "running")?;
        let second = start(host, "wait", &json!({}))?;
        let (why_it, words) = why(host, &second, "only", "no-slot")?;
        ensure!(why_it["slots"] == 2 && words.contains("the host's 2 are taken"), "{words}");
        ensure!(reasons(host, &second)? == [("no-slot".to_owned(), 1)]);
        // A host that stops claims nothing.
        host.terminate()?;
        let (_, words) = why(host, &second, "only", "no-host")?;
        ensure!(words.contains("this one is stopping"), "{words}");
        Ok(())
    })
}

#[test]
fn reasons_of_unites_are_told() -> Result<()> {
    on_both("why_unites", &[], |host| {
        host.push("lab")?;
        let graph = json!({"nodes": [
            {"node_name": "fan", "identifier": "outer", "inputs": {"n": 2},
             "next_nodes": ["inner"]},
            {"node_name": "fan", "identifier": "inner", "next_nodes": ["worker"],
             "inputs": {"n": 3, "value": "${{ outer.outputs.i }}"}},
            {"node_name": "wait", "identifier": "worker", "next_nodes": ["joined"],
             "inputs": {"ms": 60_000, "value": 1}},
            {"node_name": "echo", "identifier": "joined", "next_nodes": ["final"],
             "inputs": {"value": 1}, "unites": {"identifier": "inner"}},
            {"node_name": "echo", "identifier": "final", "next_nodes": [],
             "inputs": {"value": 1}, "unites": {"identifier": "outer"}},
        ]});
        host.apply("nested", &graph)?;
        let run = start(host, "nested", &json!({}))?;
        until("six workers", || Ok((host.states(&run, "worker")?.len() == 6).then_some(())))?;
        let state = host.states(&run, "final")?;
        let path = state.first().and_then(|state| state["path"].as_str()).context("a unite")?;
        let (why_it, words) = why(host, &run, path, "unite")?;
        ensure!(why_it["open"] == 2, "{why_it:#}");
        let oldest = why_it["oldest"].as_array().context("the oldest")?;
        ensure!(oldest.len() == 2, "{why_it:#}");
        for member in oldest {
            ensure!(member["reason"] == "unite" && member["open"] == 3, "{why_it:#}");
            let leaves = member["oldest"].as_array().context("its oldest")?;
            ensure!(leaves.len() == 3, "{why_it:#}");
            ensure!(leaves.iter().all(|leaf| leaf["reason"] == "running"), "{why_it:#}");
        }
        ensure!(words.contains("2 members have not ended; the oldest, "), "{words}");
        let counted = reasons(host, &run)?;
        ensure!(counted == [("running".to_owned(), 6), ("unite".to_owned(), 3)], "{counted:?}");
        cancel(host, &run)
    })
}

#[test]
fn the_end_of_a_large_run_is_told() -> Result<()> {
    on_both("why_cancelling", &["--slots", "1"], |host| {
        host.push("lab")?;
        let graph = json!({"nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 30_000},
             "next_nodes": ["branch"]},
            {"node_name": "wait", "identifier": "branch", "inputs": {"ms": 600_000, "value": 1},
             "next_nodes": []},
        ]});
        host.apply("wide", &graph)?;
        let run = start(host, "wide", &json!({}))?;
        host.wait_until(&run, |run| run["counts"]["states"] == 30_001)?;
        let counted = reasons(host, &run)?;
        let all: u64 = counted.iter().map(|(_, states)| states).sum();
        ensure!(all == 30_000 && counted.len() <= 4, "{counted:?}");
        cancel(host, &run)?;
        let mut seen = 0;
        until("the end of the states", || {
            let found = host.get(&format!("/runs/{run}/why"))?;
            match found["reasons"].as_array().map(Vec::as_slice) {
                Some([]) => Ok(Some(())),
                Some([only]) if only["reason"] == "cancelling" => {
                    ensure!(only["of"] == 30_001 && only["left"] == only["states"], "{found:#}");
                    seen += 1;
                    Ok(None)
                }
                _ => anyhow::bail!("{found:#}"),
            }
        })?;
        ensure!(seen > 0, "the states ended before they were asked about");
        Ok(())
    })
}

#[test]
fn a_lost_host_is_told() -> Result<()> {
    let postgres = Postgres::shared()?;
    with_cluster(postgres, "why_lost", &[Setup::slots(2), Setup::slots(2)], |cluster| {
        let host = cluster.host(0)?;
        host.push("lab")?;
        host.apply("wait", &one("wait", &json!({"ms": 60_000, "value": 1})))?;
        let run = start(host, "wait", &json!({}))?;
        let executor = cluster.wait_for_executor(&format!("{run}/only"), None)?;
        cluster.member(executor).kill()?;
        let other = cluster.host(1 - executor)?;
        let (why_it, words) = why(other, &run, "only", "host-lost")?;
        ensure!(why_it["host"].is_string() && words.contains("which is lost"), "{words}");
        why(other, &run, "only", "running")?;
        cancel(other, &run)
    })
}
