//! Views over all states of a run and over the runs of a graph: timeline, groups of failures,
//! distribution, comparison and statistics, through the API and the command line, on both
//! databases.

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::host::client;
use exosphere_tests::{Host, MAX_WAIT, checkout, good};
use serde_json::{Value, json};

/// The branches of a fanout.
const BRANCHES: u64 = 6;

/// Returns a fanout whose branches echo, wait and fail, each with a message of its own.
fn mixed() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": BRANCHES},
             "next_nodes": ["slow", "bad"]},
            {"node_name": "wait", "identifier": "slow", "next_nodes": [],
             "inputs": {"value": "${{ splitter.outputs.i }}", "ms": 30}},
            {"node_name": "fail_when", "identifier": "bad", "next_nodes": [],
             "inputs": {"value": "${{ splitter.outputs.i }}", "equals": "${{ splitter.outputs.i }}"}},
        ],
        "retry_policy": {"max_retries": 0},
    })
}

/// Returns a graph of one node that echoes its input.
fn echo(value: u32) -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": value}, "next_nodes": []},
    ]})
}

/// Runs the command line on a host, and returns its standard output.
fn exosphere(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = host.command()?.args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "exosphere {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a graph to its end, and returns the id of the run.
fn ended(host: &Host, name: &str, graph: &Value) -> Result<String> {
    let run = host.result_of(name, graph, &json!({}))?;
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

/// Returns the sum of a list of a series.
fn sum(series: &Value, list: &str) -> Result<f64> {
    let values = series[list].as_array().with_context(|| format!("{list} of {series:#}"))?;
    values.iter().map(|value| value.as_f64().context("a number")).sum()
}

/// Returns the item of a list whose identifier this is.
fn named<'v>(list: &'v Value, identifier: &str) -> Result<&'v Value> {
    let items = list.as_array().into_iter().flatten();
    let found = items.into_iter().find(|item| item["identifier"] == identifier);
    found.with_context(|| format!("{identifier} in {list:#}"))
}

#[test]
fn a_timeline_counts_every_execution() -> Result<()> {
    on_both("timeline_counts", &[], |host| {
        host.push("lab")?;
        let run = ended(host, "mixed", &mixed())?;
        for (query, path) in
            [("bins=0", "query.bins"), ("bins=401", "query.bins"), ("from=5&to=5", "query.from")]
        {
            let (status, problem) =
                host.refused("GET", &format!("/runs/{run}/timeline?{query}"), &json!({}))?;
            ensure!(status == 400 && problem["errors"][0]["path"] == path, "{problem}");
        }
        let timeline = host.get(&format!("/runs/{run}/timeline?bins=20"))?;
        let states = 1 + 2 * BRANCHES;
        ensure!(timeline["sample"] == json!({"examined": states, "of": states}), "{timeline:#}");
        let order: Vec<_> = timeline["series"].as_array().into_iter().flatten().collect();
        let order: Vec<_> = order.iter().filter_map(|it| it["identifier"].as_str()).collect();
        ensure!(order == ["splitter", "slow", "bad"], "{timeline:#}");
        for (identifier, failed) in [("slow", 0), ("bad", BRANCHES)] {
            let series = named(&timeline["series"], identifier)?;
            for (list, expected) in [("began", BRANCHES), ("ended", BRANCHES), ("failed", failed)] {
                ensure!(sum(series, list)? as u64 == expected, "{list} of {series:#}");
            }
        }
        // The area below the curve is the sum of the run times.
        let bin_ms = timeline["bin_ms"].as_f64().context("a width")?;
        let states = host.states(&run, "slow")?;
        let times = states.iter().map(|state| {
            let time = |member: &str| state[member].as_i64().context("a time");
            Ok((time("ended_at")? - time("began_at")?) as f64)
        });
        let times: f64 = times.sum::<Result<f64>>()?;
        let area = sum(named(&timeline["series"], "slow")?, "running")? * bin_ms;
        ensure!((area - times).abs() <= 0.02 * bin_ms * 20.0 + 1.0, "{area} and {times}");
        let by_host = host.get(&format!("/runs/{run}/timeline?by=host&bins=1"))?;
        let series = by_host["series"].as_array().context("series")?;
        ensure!(series.len() == 1 && series[0]["host"] == 1, "{by_host:#}");
        ensure!(series[0]["began"] == json!([1 + 2 * BRANCHES]), "{by_host:#}");
        // An interval before the run has nothing in it.
        let empty = host.get(&format!("/runs/{run}/timeline?from=1000&to=2000"))?;
        ensure!(empty["series"] == json!([]), "{empty:#}");
        let (status, problem) =
            host.refused("GET", &format!("/runs/{run}/timeline?from=2000&to=1000"), &json!({}))?;
        ensure!(status == 400, "{problem:#}");
        let text = exosphere(host, &["run", "timeline", &run])?;
        ensure!(text.contains("splitter") && text.contains('█'), "{text}");
        Ok(())
    })
}

#[test]
fn a_timeline_shows_earlier_attempts() -> Result<()> {
    on_both("timeline_attempts", &[], |host| {
        host.push("flaky")?;
        let graph = std::fs::read_to_string(checkout().join("tests/cases/retries/graph.json"))?;
        let run = ended(host, "flaky", &serde_json::from_str(&graph)?)?;
        let timeline = host.get(&format!("/runs/{run}/timeline"))?;
        let series = named(&timeline["series"], "flaky")?;
        for (list, expected) in [("began", 3.0), ("ended", 3.0), ("failed", 2.0)] {
            ensure!(sum(series, list)? == expected, "{list} of {series:#}");
        }
        let of = host.get(&format!("/runs/{run}/nodes/flaky/distribution"))?;
        ensure!(of["retried"] == 1 && of["retries"] == 2, "{of:#}");
        Ok(())
    })
}

#[test]
fn failures_are_grouped_and_found() -> Result<()> {
    on_both("failure_groups", &[], |host| {
        host.push("lab")?;
        let run = ended(host, "mixed", &mixed())?;
        let failures = host.get(&format!("/runs/{run}/failures"))?;
        let groups = failures["groups"].as_array().context("groups")?;
        ensure!(groups.len() == 1 && failures["others"] == 0, "{failures:#}");
        let group = &groups[0];
        ensure!(group["count"] == BRANCHES, "{failures:#}");
        ensure!(group["message"] == "<n> was told to fail", "{failures:#}");
        ensure!(group["first_at"].as_i64() <= group["last_at"].as_i64(), "{failures:#}");
        let example = group["example"].as_str().context("an example")?;
        let state = host.get(&format!("/runs/{run}/states/{example}"))?;
        ensure!(state["failure"]["kind"] == group["kind"], "{state:#}");
        ensure!(state["ended_at"] == group["first_at"], "{state:#} and {group:#}");
        let kind = group["filter"]["kind"].as_str().context("the group has a filter")?;
        ensure!(host.list(&run, &format!("kind={kind}"))?.len() as u64 == BRANCHES);
        let text = exosphere(host, &["run", "failures", &run])?;
        ensure!(text.contains("<n> was told to fail"), "{text}");
        ensure!(text.contains(&format!("run states {run} --kind {kind}")), "{text}");
        // A key without payloads sees how many failed, and not why.
        let key = json!({"label": "viewer", "role": "viewer", "payloads": false});
        let key = host.new_key(&key)?;
        let url = format!("{}/v1/namespaces/default/runs/{run}/failures", host.url());
        let client = client(&key, MAX_WAIT)?;
        let hidden = good(client.get(url).send()?)?;
        ensure!(hidden["withheld"] == json!(["message"]), "{hidden:#}");
        let group = &hidden["groups"][0];
        ensure!(group["count"] == BRANCHES && group["kind"] == kind, "{hidden:#}");
        ensure!(!hidden.to_string().contains("told"), "{hidden:#}");
        Ok(())
    })
}

#[test]
fn a_distribution_names_the_slowest_states() -> Result<()> {
    on_both("distribution", &[], |host| {
        host.push("lab")?;
        let run = ended(host, "mixed", &mixed())?;
        let of = host.get(&format!("/runs/{run}/nodes/slow/distribution"))?;
        let times = &of["run_times"];
        ensure!(times["count"] == BRANCHES, "{of:#}");
        ensure!(times["p50_ms"].as_u64().is_some_and(|ms| ms >= 29), "{of:#}");
        ensure!(times["max_ms"].as_u64() >= times["p99_ms"].as_u64(), "{of:#}");
        let buckets = times["buckets"].as_array().context("buckets")?;
        let counted: u64 = buckets.iter().filter_map(|it| it["count"].as_u64()).sum();
        ensure!(counted == BRANCHES, "{of:#}");
        let slowest = of["slowest"].as_array().context("slowest states")?;
        ensure!(slowest.len() as u64 == BRANCHES, "{of:#}");
        ensure!(slowest[0]["run_ms"] == times["max_ms"], "{of:#}");
        ensure!(slowest[0]["path"].as_str().is_some_and(|path| path.starts_with("splitter.slow[")));
        let text = exosphere(host, &["run", "distribution", &run, "slow"])?;
        ensure!(text.contains("waiting times") && text.contains("splitter.slow["), "{text}");
        let (status, problem) =
            host.refused("GET", &format!("/runs/{run}/nodes/slwo/distribution"), &json!({}))?;
        ensure!(status == 404 && problem.to_string().contains("slow"), "{problem:#}");
        Ok(())
    })
}

#[test]
fn a_run_is_compared_with_its_last_success() -> Result<()> {
    on_both("comparison", &[], |host| {
        host.push("lab")?;
        let first = ended(host, "one", &echo(1))?;
        let (status, problem) =
            host.refused("GET", &format!("/runs/{first}/compare"), &json!({}))?;
        ensure!(status == 409, "{problem:#}");
        let second = ended(host, "one", &echo(2))?;
        let compared = host.get(&format!("/runs/{second}/compare"))?;
        ensure!(compared["with"]["run"] == first.as_str(), "{compared:#}");
        ensure!(compared["median_of"] == 1, "{compared:#}");
        let change = &compared["revisions"];
        ensure!(change["from"] == 1 && change["to"] == 2, "{compared:#}");
        ensure!(change["changed"] == json!(["only"]), "{compared:#}");
        let node = named(&compared["nodes"], "only")?;
        for side in ["run", "with", "median"] {
            ensure!(node[side]["success"] == 1 && node[side]["states"] == 1, "{node:#}");
        }
        let mixed = ended(host, "mixed", &mixed())?;
        let other = host.get(&format!("/runs/{mixed}/compare?with={first}"))?;
        ensure!(other["revisions"].is_null(), "{other:#}");
        ensure!(named(&other["nodes"], "bad")?["run"]["errored"] == BRANCHES, "{other:#}");
        ensure!(named(&other["nodes"], "only")?["run"].is_null(), "{other:#}");
        let text = exosphere(host, &["run", "compare", &second])?;
        ensure!(text.contains("revision 1 to 2: changed: only"), "{text}");
        Ok(())
    })
}

#[test]
fn a_graph_has_statistics_of_its_runs() -> Result<()> {
    on_both("statistics", &[], |host| {
        host.push("lab")?;
        let mut runs = vec![ended(host, "mixed", &mixed())?];
        host.apply("mixed", &echo(1))?;
        for _ in 0..3 {
            runs.push(host.run("mixed", &json!({}), &json!({}))?);
        }
        let mut cpu_us = 0;
        let mut memory = 0;
        for run in &runs {
            let run = host.wait_for(run)?;
            let counts = &run["counts"];
            let cpu = counts["cpu_us"].as_u64().context("CPU time")?;
            ensure!(cpu > 0, "{run:#}");
            cpu_us += cpu;
            memory = memory.max(counts["peak_memory_bytes"].as_u64().context("memory")?);
        }
        ensure!(memory > 0);
        let stats = host.get("/graphs/mixed/stats?bins=5")?;
        let total = &stats["total"];
        let expected = [("started", 4), ("success", 3), ("failed", 1), ("running", 0)];
        for (member, count) in expected {
            ensure!(total[member] == count, "{stats:#}");
        }
        ensure!(total["success_rate"] == 0.75 && stats["is_cut"] == false, "{stats:#}");
        ensure!(total["cpu_us"] == cpu_us && total["peak_memory_bytes"] == memory, "{stats:#}");
        let bins = stats["bins"].as_array().context("bins")?;
        let started: u64 = bins.iter().filter_map(|bin| bin["started"].as_u64()).sum();
        ensure!(bins.len() == 5 && started == 4, "{stats:#}");
        // A week ends now, so that all runs are in its last part.
        ensure!(bins[4]["started"] == 4, "{stats:#}");
        let text = exosphere(host, &["graph", "stats", "mixed", "--since", "1h"])?;
        ensure!(text.contains("75.0 %"), "{text}");
        let (status, problem) = host.refused("GET", "/graphs/absent/stats", &json!({}))?;
        ensure!(status == 404, "{problem:#}");
        Ok(())
    })
}
