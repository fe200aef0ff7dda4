//! Graphs of the loads. All nodes are trivial: the loads measure the host.

use serde_json::{Value, json};

/// Numbers of branches of the fanouts.
pub const FANOUT_SIZES: [u64; 3] = [10_000, 20_000, 100_000];
/// Number of chains that run at the same time, and the name of that load.
pub const CHAIN_COUNT: u64 = 200;
pub const CHAINS_NAME: &str = "200 chains of 50";
/// Number of nodes of the chain.
pub const CHAIN_LENGTH: u64 = 50;
/// Number of nodes of the short chain that carries payloads.
pub const CARRIER_CHAIN_LENGTH: u64 = 10;
/// Number of nodes of the wide graph: a root, its successors, and a unite.
pub const WIDE_NODES: u64 = 100;
/// Number of operations of the node that uses the store.
const STORE_OPERATIONS: usize = 100;

/// Returns the name of the load of a fanout.
pub fn fanout_of(branches: u64) -> String {
    format!("fanout of {},000", branches / 1000)
}

/// Returns all graphs, by name.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("fanout", fanout("echo", json!({"value": "${{ splitter.outputs.i }}"}))),
        ("minimal", fanout("attack", json!({}))),
        ("chain", chain(CHAIN_LENGTH)),
        ("carriers", chain(CARRIER_CHAIN_LENGTH)),
        ("single", chain(1)),
        ("wide", wide()),
        ("store", store()),
    ]
}

fn nodes(nodes: Vec<Value>) -> Value {
    json!({ "nodes": nodes })
}

fn node(name: &str, identifier: &str, inputs: Value, next: &[String]) -> Value {
    json!({"node_name": name, "identifier": identifier, "inputs": inputs, "next_nodes": next})
}

fn uniting(mut node: Value, source: &str) -> Value {
    node["unites"] = json!({"identifier": source});
    node
}

/// Returns a graph of `n` branches of one node each, united.
fn fanout(worker: &str, inputs: Value) -> Value {
    nodes(vec![
        node("fan", "splitter", json!({"n": 1}), &["worker".into()]),
        node(worker, "worker", inputs, &["merger".into()]),
        uniting(node("echo", "merger", json!({"value": 0}), &[]), "splitter"),
    ])
}

/// Returns a chain of nodes, each of which returns its input.
fn chain(length: u64) -> Value {
    let link = |at: u64| {
        let value = match at {
            0 => json!(0),
            _ => json!(format!("${{{{ n{}.outputs.value }}}}", at - 1)),
        };
        let next: Vec<String> =
            (at + 1 < length).then(|| format!("n{}", at + 1)).into_iter().collect();
        node("echo", &format!("n{at}"), json!({"value": value}), &next)
    };
    nodes((0..length).map(link).collect())
}

/// Returns a graph of a root, many successors, and a unite of them.
fn wide() -> Value {
    let names: Vec<String> = (0..WIDE_NODES - 2).map(|at| format!("n{at}")).collect();
    let mut all = vec![node("fan", "root", json!({"n": 1}), &names)];
    all.extend(names.iter().map(|name| {
        node("echo", name, json!({"value": "${{ root.outputs.i }}"}), &["merger".into()])
    }));
    all.push(uniting(node("echo", "merger", json!({"value": 0}), &[]), "root"));
    nodes(all)
}

/// Returns a graph of one node that sets and reads its store.
fn store() -> Value {
    let operation = |at: usize| match at % 2 {
        0 => json!(["set", format!("key{}", at % 10), "value"]),
        _ => json!(["get", format!("key{}", (at - 1) % 10)]),
    };
    let operations: Vec<Value> = (0..STORE_OPERATIONS).map(operation).collect();
    nodes(vec![node("kv", "only", json!({"ops": operations}), &[])])
}

/// Returns a graph of the one node of such a plugin.
pub fn tally(plugin: &str) -> Value {
    let mut only = node("tally", "only", json!({"key": "k"}), &[]);
    only["plugin"] = json!(plugin);
    nodes(vec![only])
}
