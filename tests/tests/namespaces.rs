//! Namespaces on one host: no namespace can block another, and each is held to the limits and slots
//! that its operators set.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, problem, until};
use serde_json::{Value, json};

/// Returns a graph of one node, without retries.
fn one_node_graph(node: &str, inputs: Value) -> Value {
    json!({
        "nodes": [{"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    })
}

/// Returns a fanout of `n` spinning nodes.
fn spinners(n: u32) -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["spinner"]},
            {"node_name": "spin", "identifier": "spinner", "inputs": {}, "next_nodes": []},
        ],
        "retry_policy": {"max_retries": 1000, "strategy": "FIXED", "backoff_factor": 0},
    })
}

/// Returns an ordinary graph: a fanout of 200 and a unite.
fn honest() -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 200}, "next_nodes": ["worker"]},
        {"node_name": "echo", "identifier": "worker",
         "inputs": {"value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]})
}

/// Endless loops occupy all slots of one namespace, with thousands more queued; runs of another
/// take a little longer than alone.
#[test]
fn endless_loops_do_not_starve_other_namespaces() -> Result<()> {
    let host = Host::start()?;
    let (attacker, good) =
        (Tenant { host: &host, name: "evil" }, Tenant { host: &host, name: "good" });
    attacker.push("hostile")?;
    for tenant in [&attacker, &good] {
        tenant.push("lab")?;
    }
    let timed = |name: &str| -> Result<Duration> {
        let started = Instant::now();
        let run = good.start(name, &honest())?;
        let found = good.result(&run)?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        Ok(started.elapsed())
    };
    timed("warm")?;
    let baseline = timed("alone")?;
    let flood = attacker.start("flood", &spinners(5_000))?;
    until("the loops to fill their share", || Ok((host.holding()? >= 48).then_some(())))?;
    let mut contended: Vec<Duration> =
        (0..5).map(|n| timed(&format!("beside{n}"))).collect::<Result<_>>()?;
    contended.sort();
    let median = contended[2];
    println!("a run of 202 states: alone {baseline:?}, beside endless loops {median:?}");
    ensure!(attacker.run(&flood)?["status"] == "RUNNING", "the loops go on");
    // Without fairness it would wait minutes for all earlier states.
    ensure!(
        median < baseline * 4 + Duration::from_secs(2),
        "alone {baseline:?}, beside {contended:?}"
    );
    host.send("POST", &attacker.path(&format!("/runs/{flood}/cancel")), &json!({}))?;
    until("every slot to be free", || Ok((host.holding()? == 0).then_some(())))
}

/// Each level can lower a limit, and none can raise one. The failure of an attempt that exceeds a
/// limit names the limit, its value and the level that set it.
#[test]
fn limits_can_only_be_lowered() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--limit", "memory_bytes=64MiB"], |_| ())?;
    host.push("hostile")?;
    let breach = |name: &str, graph: &Value| -> Result<String> {
        let found = host.result_of(name, graph, &json!({}))?;
        let failure = &found["failures"][0]["failure"];
        ensure!(failure["kind"] == "limit", "{found:#}");
        Ok(failure["message"].as_str().unwrap().to_owned())
    };
    let mut graph = one_node_graph("eat_memory", json!({}));
    let message = breach("host", &graph)?;
    ensure!(
        message.contains("64 MiB (`memory_bytes`)") && message.contains("exosphere serve --limit"),
        "{message}"
    );

    host.namespace("default", &json!({"limits": {"memory_bytes": 32 << 20}}))?;
    let message = breach("namespace", &graph)?;
    ensure!(
        message.contains("32 MiB (`memory_bytes`)")
            && message
                .contains("`exosphere namespace set --limit memory_bytes=.. --namespace default`"),
        "{message}"
    );

    graph["limits"] = json!({"memory_bytes": 16 << 20});
    let message = breach("graph", &graph)?;
    ensure!(
        message.contains("16 MiB (`memory_bytes`)") && message.contains("of the graph"),
        "{message}"
    );

    graph["nodes"][0]["limits"] = json!({"memory_bytes": 8 << 20});
    let message = breach("node", &graph)?;
    ensure!(
        message.contains("8 MiB (`memory_bytes`)") && message.contains("of the node"),
        "{message}"
    );

    graph["limits"] = json!({"memory_bytes": 33 << 20});
    graph["nodes"][0]["limits"] = json!({"memory_bytes": 34 << 20, "cpu_m": 5});
    let (status, problem) = host.refused("PUT", "/graphs/raised", &graph)?;
    let errors = problem["errors"].to_string();
    let all =
        ["$.limits.memory_bytes", "$.nodes[0].limits.memory_bytes", "did you mean \\\"cpu_ms\\\""];
    ensure!(status == 422 && all.iter().all(|path| errors.contains(path)), "{problem:#}");

    let body = json!({"limits": {"memory_bytes": 65 << 20}, "slots": 0});
    let path = "//v1/operator/namespaces/default";
    let (status, problem) = host.refused("PUT", path, &body)?;
    let errors = problem["errors"].to_string();
    ensure!(
        status == 422 && errors.contains("$.limits.memory_bytes") && errors.contains("$.slots"),
        "{problem:#}"
    );
    Ok(())
}

/// A namespace with one slot runs one node at a time.
#[test]
fn a_namespace_cannot_exceed_its_slots() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.namespace("default", &json!({"slots": 1}))?;
    host.apply("slow", &json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 20}, "next_nodes": ["worker"]},
        {"node_name": "wait", "identifier": "worker", "inputs": {"ms": 20}, "next_nodes": []},
    ]}))?;
    let started = Instant::now();
    let run = host.run("slow", &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    ensure!(started.elapsed() >= Duration::from_millis(400), "it took {:?}", started.elapsed());
    Ok(())
}

/// Concurrent commands change the same grants and settings: each new value is kept, and no removed
/// one reappears.
#[test]
fn concurrent_changes_are_all_kept() -> Result<()> {
    let host = Host::start()?;
    let taken: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    let config: BTreeMap<_, _> = taken.iter().map(|key| (key, "v")).collect();
    host.grant("race", &json!({ "config": config }))?;
    let add = |n: usize| format!("grant add race --config k{n}=v");
    let remove = |key: &String| format!("grant remove race --config {key}");
    let limits = ["cpu_ms=7", "outputs=7", "handles=7", "log_lines=7", "http_calls=7"];
    let set = |limit: &&str| format!("namespace set --limit {limit}");
    let lines = (0..10).map(add).chain(taken.iter().map(remove)).chain(limits.iter().map(set));
    let running: Vec<_> = lines
        .map(|line| {
            let mut command = host.command()?;
            command.args(line.split(' '));
            Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
        })
        .collect::<Result<_>>()?;
    for command in running {
        let output = command.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let found = host.get("//v1/operator/namespaces/default/grants/race")?;
    let keys: Vec<_> = found["grants"]["config"].as_object().unwrap().keys().collect();
    ensure!(keys.len() == 10 && keys.iter().all(|key| key.starts_with('k')), "{keys:?}");
    let found = host.get("//v1/operator/namespaces/default")?;
    ensure!(found["limits"].as_object().unwrap().len() == limits.len(), "{found}");
    Ok(())
}

/// A condition is checked; a request without one always succeeds.
#[test]
fn settings_support_conditional_updates() -> Result<()> {
    let host = Host::start()?;
    for (path, body) in [
        ("//v1/operator/namespaces/default", json!({"slots": 3})),
        ("//v1/operator/namespaces/default/grants/web", json!({"config": {"k": "v"}})),
    ] {
        let version = |answer: reqwest::blocking::Response| {
            answer.headers()["etag"].to_str().map(str::to_owned)
        };
        let before = version(host.request("GET", path)?.send()?)?;
        let put = |tag: &str| -> Result<_> {
            Ok(host.request("PUT", path)?.header("if-match", tag).json(&body).send()?)
        };
        let answer = put(&before)?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let after = version(answer)?;
        ensure!(after != before && version(host.request("GET", path)?.send()?)? == after);
        let (status, found) = problem(put(&before)?)?;
        let detail = found["detail"].as_str().unwrap();
        ensure!(status == 412 && detail.contains("changed since you read"), "{found:#}");
        ensure!(problem(put("unquoted")?)?.0 == 400);
        ensure!(put(&after)?.status() == 200 && put("*")?.status() == 200);
        host.send("PUT", path, &json!({}))?;
    }
    Ok(())
}

/// A namespace need not be made: the first plugin does so, and a check needs none.
#[test]
fn a_first_upload_makes_its_namespace() -> Result<()> {
    let host = Host::start()?;
    let tenant = Tenant { host: &host, name: "fresh" };
    let settings = "//v1/operator/namespaces/fresh";
    let check = tenant.path("/plugins/check?name=lab");
    let request = host.request("POST", &check)?.header("content-type", "application/wasm");
    ensure!(request.body(exosphere_tests::component("lab")?).send()?.status() == 200);
    ensure!(host.refused("GET", settings, &json!({}))?.0 == 404);
    let graph = one_node_graph("whoami", json!({}));
    let (status, found) = host.refused("PUT", &tenant.path("/graphs/g"), &graph)?;
    ensure!(status == 422, "its plugins do not exist: {found:#}");
    tenant.push("lab")?;
    ensure!(host.get(settings)?["name"] == "fresh");
    Ok(())
}
