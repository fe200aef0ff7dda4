//! Isolation of guests, runs, namespaces and uploads from each other: cases that take more than one
//! guest, or a host of their own.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use exosphere_tests::guest::{self, Changes};
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, good, problem};
use serde_json::{Value, json};

use crate::report::Row;

type Test = fn() -> Result<()>;

/// Each case by its name.
pub const CASES: &[(&str, Test)] = &[
    ("isolation-stores", stores_are_apart),
    ("isolation-secrets", secrets_are_apart),
    ("isolation-namespaces", namespaces_are_apart),
    ("isolation-plugin-replaced", a_plugin_is_replaced_in_mid_run),
    ("isolation-no-slot-free", guests_wait_for_a_slot),
    ("isolation-code-cache-tampered", a_tampered_code_cache_is_compiled_again),
];

/// Runs a case.
pub fn row(name: &str, test: Test) -> Result<Row> {
    let started = Instant::now();
    test()?;
    let mut row = Row::new(name);
    row.answer = "as promised".to_owned();
    row.times.push(started.elapsed());
    Ok(row)
}

fn one_node_graph(node: &str, inputs: Value) -> Value {
    json!({
        "nodes": [{"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    })
}

/// Starts a host whose namespaces `default` and `other` have the same plugin.
fn two_namespaces() -> Result<Host> {
    let host = Host::start()?;
    host.push("lab")?;
    other_namespace(&host).push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    let path = "//v1/operator/namespaces/other/grants/lab";
    host.send("PUT", path, &json!({"secrets": ["token"]}))?;
    Ok(host)
}

fn other_namespace(host: &Host) -> Tenant<'_> {
    Tenant { host, name: "other" }
}

/// Applies a graph in `other`, runs it, and returns its one output.
fn output_in_other(host: &Host, name: &str, graph: &Value) -> Result<Value> {
    let run = other_namespace(host).start(name, graph)?;
    other_namespace(host).result(&run)?;
    other_namespace(host).output(&run, "only")
}

fn stores_are_apart() -> Result<()> {
    let host = two_namespaces()?;
    let mut writes =
        one_node_graph("kv", json!({"ops": [["set", "key", "hush"], ["increment", "n", 5]]}));
    writes["store_config"] = json!({"keep": true});
    let found = host.result_of("store", &writes, &json!({}))?;
    ensure!(found["store"]["key"] == "hush", "{found:#}");
    let reads = one_node_graph("kv", json!({"ops": [["get", "key"], ["get", "n"], ["keys"]]}));
    let expected_empty = json!([null, null, []]);
    let seen = output_in_other(&host, "store", &reads)?;
    ensure!(seen["results"] == expected_empty, "another namespace sees {seen}");
    // Another run of the same graph does not read them either.
    let found = host.result_of("store", &reads, &json!({}))?;
    let seen = host.output(found["run"].as_str().context("no run")?, "only")?;
    ensure!(seen["results"] == expected_empty, "another run sees {seen}");
    Ok(())
}

fn secrets_are_apart() -> Result<()> {
    let host = two_namespaces()?;
    let asks = one_node_graph("secret", json!({"name": "token"}));
    let with = |value: &str| {
        let mut graph = asks.clone();
        graph["secrets"] = json!({ "token": value });
        graph
    };
    host.apply("secret", &with("hush-hush-hush"))?;
    // The same name in another namespace, and another graph here, have none.
    for path in [other_namespace(&host).path("/graphs/secret"), "/graphs/elsewhere".to_owned()] {
        let (status, found) = host.refused("PUT", &path, &asks)?;
        ensure!(status == 422 && found.to_string().contains("token"), "{found:#}");
    }
    let seen = output_in_other(&host, "secret", &with("their-own-token"))?;
    ensure!(seen["value"] == "their-own-token", "another namespace sees {seen}");
    // A secret that the node does not declare is missing, though the graph has it.
    let declares = r#"{"nodes":[{"name":"attack","inputs":{"type":"object"},
        "outputs":{"type":"object"},"secrets":["other"]}]}"#;
    let changes = Changes { description: Some(declares.as_bytes()), ..Changes::default() };
    good(host.upload("declares", guest::component(&changes)?)?)?;
    host.grant("declares", &json!({"secrets": ["other"]}))?;
    let mut more_requests = json!({"nodes": [
        {"node_name": "secret", "identifier": "only", "inputs": {"name": "other"}, "next_nodes": ["declares"]},
        {"node_name": "attack", "identifier": "declares", "inputs": {}, "next_nodes": []},
    ]});
    more_requests["secrets"] = json!({"token": "hush-hush-hush", "other": "hush-hush"});
    let found = host.result_of("more", &more_requests, &json!({}))?;
    let seen = host.output(found["run"].as_str().context("no run")?, "only")?;
    ensure!(seen["value"].is_null(), "a node sees an undeclared secret: {seen}");
    Ok(())
}

fn namespaces_are_apart() -> Result<()> {
    let host = two_namespaces()?;
    let found = host.result_of("mine", &one_node_graph("whoami", json!({})), &json!({}))?;
    let run = found["run"].as_str().context("no run")?;
    for (method, path) in [
        ("GET", format!("/runs/{run}")),
        ("GET", format!("/runs/{run}/states")),
        ("GET", format!("/runs/{run}/states/1")),
        ("POST", format!("/runs/{run}/cancel")),
        ("POST", format!("/runs/{run}/pause")),
        ("POST", format!("/runs/{run}/redrive")),
        ("POST", format!("/runs/{run}/states/1/retry")),
        ("POST", "/graphs/mine/runs".to_owned()),
        ("GET", "/graphs/mine".to_owned()),
    ] {
        let (status, found) =
            host.refused(method, &other_namespace(&host).path(&path), &json!({}))?;
        ensure!(status == 404, "{method} {path}: {found:#}");
    }
    let seen = output_in_other(&host, "theirs", &one_node_graph("whoami", json!({})))?;
    ensure!(seen["namespace"] == "other", "{seen}");
    Ok(())
}

/// An open run keeps the bytes that it began with.
fn a_plugin_is_replaced_in_mid_run() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let version = |number: u32| {
        let functions = format!(
            r#"(data (i32.const 4096) "{{\22v\22:{number}}}")
               (func (export "execute") (param i32 i32 i32 i32) (result i32)
                 (call $return (i32.const 4096) (i32.const 7)))"#
        );
        guest::component(&Changes { functions: &functions, ..Changes::default() })
    };
    let graph = json!({"nodes": [
        {"node_name": "wait", "identifier": "first", "inputs": {"ms": 1500}, "next_nodes": ["last"]},
        {"node_name": "attack", "identifier": "last", "inputs": {}, "next_nodes": []},
    ]});
    good(host.upload("changing", version(1)?)?)?;
    host.apply("changing", &graph)?;
    let before = host.run("changing", &json!({}), &json!({}))?;
    good(host.upload("changing", version(2)?)?)?;
    ensure!(
        host.get(&format!("/runs/{before}"))?["status"] == "RUNNING",
        "the run ended too early"
    );
    host.apply("changing", &graph)?;
    let after = host.run("changing", &json!({}), &json!({}))?;
    // A plugin in use cannot be deleted.
    let (status, _) = problem(host.request("DELETE", "/plugins/changing")?.send()?)?;
    ensure!((400..500).contains(&status), "{status}");
    for (run, number) in [(before, 1), (after, 2)] {
        host.wait_for(&run)?;
        let output = host.output(&run, "last")?;
        ensure!(output["v"] == number, "{output} instead of version {number}");
    }
    Ok(())
}

fn guests_wait_for_a_slot() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--slots", "2"], |_| ())?;
    host.push("lab")?;
    let graph = json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 30}, "next_nodes": ["worker"]},
            {"node_name": "wait", "identifier": "worker", "inputs": {"ms": 60}, "next_nodes": []},
        ],
        "retry_policy": {"max_retries": 0},
    });
    let started = Instant::now();
    let found = host.result_of("many", &graph, &json!({}))?;
    ensure!(found["counts"]["success"] == 31, "{found:#}");
    ensure!(started.elapsed().as_millis() >= 15 * 60, "more than two ran at once");
    Ok(())
}

fn a_tampered_code_cache_is_compiled_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("me", &one_node_graph("whoami", json!({})))?;
    drop(host);
    let (file, good) = compiled_code(folder.path())?;
    let tampers: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[0] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
    ];
    for damage in tampers {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&file, &bytes)?;
        let log = folder.path().join("log");
        let stderr = File::create(&log)?;
        let host = Host::start_with(folder.path(), &[], |command| {
            command.stderr(stderr);
        })?;
        let run = host.run("me", &json!({}), &json!({}))?;
        ensure!(host.wait_for(&run)?["status"] == "SUCCESS", "it does not run");
        drop(host);
        let log = fs::read_to_string(log)?;
        ensure!(log.contains("WARN") && log.contains("code"), "it warns of nothing: {log}");
        ensure!(fs::read(&file)?.len() == good.len(), "the plugin was not compiled again");
    }
    Ok(())
}

/// Returns the one file of the code cache below a folder.
fn compiled_code(folder: &Path) -> Result<(std::path::PathBuf, Vec<u8>)> {
    let file = crate::generated_uploads::compiled(folder)?;
    let bytes = fs::read(&file)?;
    Ok((file, bytes))
}
