//! Misbehaving guests: each fails alone and with a typed error, while a healthy run continues.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

fn one_node_graph(node: &str, inputs: Value) -> Value {
    json!({
        "nodes": [{"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    })
}

#[test]
fn hostile_guests_fail_with_typed_errors() -> Result<()> {
    let host = Host::start()?;
    host.push("hostile")?;
    host.push("lab")?;
    host.apply("healthy", &json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 200}, "next_nodes": ["worker"]},
        {"node_name": "wait", "identifier": "worker", "inputs": {"ms": 20}, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]}))?;
    let megabytes = |n: u64| n << 20;
    // Node, inputs, kind, and a part of the message: the exceeded limit, or the guest's own text.
    let cases = [
        ("spin", json!({}), "limit", "cpu"),
        ("eat_memory", json!({}), "limit", "memory"),
        ("overflow_stack", json!({}), "limit", "stack_bytes"),
        ("panic", json!({"message": "the guest's own words"}), "trap", "the guest's own words"),
        ("exit", json!({"code": 0}), "exit", "0"),
        ("exit", json!({"code": 1}), "exit", "1"),
        ("too_much_output", json!({"bytes": megabytes(5)}), "limit", "output"),
        ("too_much_output", json!({"bytes": megabytes(40)}), "limit", ""),
        ("many_outputs", json!({"n": 200_001}), "limit", "outputs"),
        ("deep_output", json!({"depth": 65}), "invalid-output", "output_depth"),
        ("not_json_output", json!({"text": "rubbish"}), "invalid-output", "JSON"),
        ("not_json_output", json!({"text": "[1]"}), "invalid-output", "object"),
        ("host_call_flood", json!({"calls": 200_000}), "limit", "host_calls"),
        ("bad_key", json!({"key": "a.b"}), "store", "a.b"),
    ];
    let mut started = Vec::new();
    for (number, (node, inputs, ..)) in cases.iter().enumerate() {
        let name = format!("hostile{number}");
        host.apply(&name, &one_node_graph(node, inputs.clone()))?;
        started.push(host.run(&name, &json!({}), &json!({}))?);
    }
    let healthy = host.run("healthy", &json!({}), &json!({}))?;
    ensure!(host.wait_for(&healthy)?["status"] == "SUCCESS", "the healthy run beside them");
    for (run, (node, inputs, kind, expected)) in started.iter().zip(cases) {
        let found = host.wait_for(run)?;
        let failure = &found["failures"][0]["failure"];
        let message = failure["message"].as_str().unwrap_or_default();
        let as_expected = failure["kind"] == kind && message.contains(expected);
        ensure!(as_expected, "{node} {inputs}: {found:#}");
    }
    // All slots are free again.
    until("every slot to be free", || Ok((host.holding()? == 0).then_some(())))?;
    let healthy_run = host.run("healthy", &json!({}), &json!({}))?;
    ensure!(host.wait_for(&healthy_run)?["status"] == "SUCCESS", "a healthy run after them");
    Ok(())
}

#[test]
fn deadlines_end_waiting_guests() -> Result<()> {
    let host = Host::start()?;
    host.push("hostile")?;
    let mut graph = one_node_graph("sleep", json!({"ms": 60_000}));
    graph["nodes"][0]["timeout_ms"] = json!(200);
    let started = Instant::now();
    let found = host.result_of("sleeper", &graph, &json!({}))?;
    ensure!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
    let failure = &found["failures"][0]["failure"];
    ensure!(failure["kind"] == "timeout", "{found:#}");
    ensure!(failure["message"].as_str().unwrap().contains("200"), "{failure}");
    Ok(())
}

#[test]
fn guests_cannot_see_the_machine() -> Result<()> {
    let host = Host::start()?;
    host.push("hostile")?;
    for (node, inputs) in [("open_file", json!({})), ("env", json!({})), ("read_stdin", json!({}))]
    {
        let found = host.result_of(node, &one_node_graph(node, inputs), &json!({}))?;
        ensure!(found["status"] == "SUCCESS", "{node}: {found:#}");
        let run = found["run"].as_str().unwrap();
        let output = host.output(run, "only")?.to_string();
        for secret in ["EXOSPHERE", "PATH", "root:", "HOME"] {
            ensure!(!output.contains(secret), "{node} saw {secret}: {output}");
        }
    }
    Ok(())
}

#[test]
fn guest_logs_are_kept_and_bounded() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.push("hostile")?;
    let lines = json!({"lines": ["first\u{1b}[31m line", "second"], "stdout": "printed", "stderr": "complained"});
    let found = host.result_of("log", &one_node_graph("log", lines), &json!({}))?;
    let states = host.states(found["run"].as_str().unwrap(), "only")?;
    let logs = states[0]["attempts"][0]["logs"].as_array().unwrap();
    let logged: Vec<_> = logs
        .iter()
        .map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap()))
        .collect();
    ensure!(logged.contains(&("info", "printed")), "{logged:?}");
    ensure!(logged.contains(&("warn", "complained")), "{logged:?}");
    ensure!(logged.iter().all(|(_, line)| !line.contains('\u{1b}')), "{logged:?}");

    let flood = one_node_graph("log_flood", json!({"lines": 100_000, "bytes": 100}));
    let found = host.result_of("flood", &flood, &json!({}))?;
    let states = host.states(found["run"].as_str().unwrap(), "only")?;
    let logs = states[0]["attempts"][0]["logs"].as_array().unwrap();
    ensure!(logs.len() <= 1_001, "{} lines were kept", logs.len());
    Ok(())
}

#[test]
fn a_cancel_stops_running_guests() -> Result<()> {
    let host = Host::start()?;
    host.push("hostile")?;
    host.push("lab")?;
    host.apply("long", &json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 100}, "next_nodes": ["sleeper", "spinner"]},
        {"node_name": "sleep", "identifier": "sleeper", "inputs": {"ms": 60_000}, "next_nodes": ["merger"]},
        {"node_name": "spin", "identifier": "spinner", "inputs": {}, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ splitter.outputs.i }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]}))?;
    let run = host.run("long", &json!({}), &json!({}))?;
    host.wait_until(&run, |run| run["counts"]["states"] == 202)?;
    // Spinning begins a little later, and takes more than a hundred times the bound below.
    let stats = ProcessStats(host.pid());
    let before = stats.cpu_seconds()?;
    until("some spinning", || Ok((stats.cpu_seconds()? > before + 1.5).then_some(())))?;
    let started = Instant::now();
    let found = host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    ensure!(found["status"] == "CANCELLED" && found["counts"]["open"] == 0, "{found:#}");
    ensure!(found["counts"]["cancelled"] == 201, "{found:#}");
    until("every slot to be free", || Ok((host.holding()? == 0).then_some(())))?;
    ensure!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    // The CPU time until the cancel is recorded.
    let states = until("the spinners' CPU time", || {
        let states = host.states(&run, "spinner")?;
        let used = |state: &Value| state["usage"]["cpu_us"].as_u64() > Some(10_000);
        Ok(states.iter().any(used).then_some(states))
    })?;
    ensure!(states.iter().all(|state| state["status"] == "CANCELLED"), "{states:#?}");
    let (status, _) = host.refused("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    ensure!(status == 409, "it is over");
    Ok(())
}

#[test]
fn a_node_sees_only_its_secrets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    let mut graph = one_node_graph("secret", json!({"name": "token"}));
    graph["nodes"][0]["next_nodes"] = json!(["me"]);
    graph["nodes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}));
    let (status, problem) = host.refused("PUT", "/graphs/secret", &graph)?;
    ensure!(status == 422 && problem.to_string().contains("token"), "{problem:#}");
    graph["secrets"] = json!({"token": "hush-hush-hush"});
    let (status, problem) = host.refused("PUT", "/graphs/secret", &graph)?;
    let command = "exosphere grant add lab --secret token";
    ensure!(status == 422 && problem.to_string().contains(command), "{problem:#}");
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    let found = host.result_of("secret", &graph, &json!({}))?;
    let run = found["run"].as_str().unwrap();
    ensure!(host.output(run, "only")?["value"] == "hush-hush-hush", "{found:#}");
    let me = host.output(run, "me")?;
    ensure!(me["run"] == run && me["identifier"] == "me" && me["attempt"] == 1, "{me}");
    ensure!(me["namespace"] == "default" && me["graph"] == "secret", "{me}");
    ensure!(me["state"] == format!("{run}/only.me[0]"), "{me}");
    let key = me["idempotency_key"].as_str().unwrap_or_default();
    ensure!(key.starts_with(&format!("{run}/")) && key.ends_with("/0"), "{me}");
    let shown = host.get("/graphs/secret")?.to_string();
    ensure!(!shown.contains("hush"), "{shown}");
    drop(host);

    use std::os::unix::fs::PermissionsExt;
    let key = std::fs::metadata(folder.path().join("host.key"))?;
    ensure!(key.permissions().mode() & 0o777 == 0o600 && key.len() == 32);
    // The node returned it, so it is in that output; nowhere else.
    let database = rusqlite::Connection::open(folder.path().join("exosphere.db"))?;
    let count = |table: &str, column: &str| -> Result<i64> {
        let sql = format!(
            "SELECT COUNT(*) FROM {table} WHERE instr(CAST({column} AS BLOB), CAST('hush' AS BLOB)) > 0"
        );
        Ok(database.query_row(&sql, [], |row| row.get(0))?)
    };
    ensure!(count("output", "body")? == 1);
    ensure!(count("revision", "body")? == 0 && count("secret", "sealed")? == 0);
    Ok(())
}
