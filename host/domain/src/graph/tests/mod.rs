//! Tests of graphs, by tables and by properties.

mod properties;
mod reference;
mod shape;
mod start;
mod templates;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::budget::StepBudget;
use crate::grant::Grants;
use crate::node::NodeDescription;

/// A test catalog: the nodes of the worked example, one that reads a secret,
/// one that two plugins export, and one with open schemas.
struct TestCatalog;

const NODES: [&str; 7] = ["split", "count", "merge", "notify", "twice", "open", "fetch"];

fn description(name: &str) -> NodeDescription {
    let (inputs, outputs, secrets) = match name {
        "split" => (
            json!({"text": {"type": "string"}, "size": {"type": "integer", "minimum": 1}}),
            json!({"chunk": {"type": "string"}, "meta": {"$ref": "#/$defs/Meta"}}),
            vec![],
        ),
        "count" => (
            json!({"chunk": {"type": "string"}}),
            json!({"counts": {"type": "object", "additionalProperties": {"type": "integer"}}}),
            vec![],
        ),
        "merge" => (
            json!({"counts": {"type": "array"}}),
            json!({"top": {"type": "array", "items": {"$ref": "#/$defs/Meta"}}}),
            vec!["api_key"],
        ),
        "notify" => (json!({"to": {"type": "string"}}), json!({}), vec!["api_key"]),
        _ => (Value::Null, Value::Null, vec![]),
    };
    let schema = |properties: Value, required: Value| match properties {
        Value::Null => json!({}),
        properties => json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "$defs": {"Meta": {"type": "object", "properties": {"index": {"type": "integer"}}}},
        }),
    };
    let required = match name {
        "split" => json!(["text"]),
        "count" => json!(["chunk"]),
        "merge" => json!(["counts"]),
        _ => json!([]),
    };
    NodeDescription {
        name: name.parse().unwrap(),
        description: String::new(),
        inputs: schema(inputs, required),
        outputs: schema(outputs, json!([])),
        secrets: secrets.into_iter().map(|name: &str| name.parse().unwrap()).collect(),
    }
}

impl Catalog for TestCatalog {
    fn exporters(&self, node: &Name) -> Vec<Exporter> {
        if !NODES.contains(&node.as_str()) {
            return Vec::new();
        }
        let (plugins, imports): (&[&str], &[&str]) = match node.as_str() {
            "twice" => (&["one", "two"], &[]),
            "fetch" => (&["web"], &["wasi:http/outgoing-handler@0.2.6", "wasi:config/store@0.2.0"]),
            _ => (&["text"], &["exosphere:node/secrets@0.1.0"]),
        };
        let exporter = |plugin: &&str| Exporter {
            plugin: plugin.parse().unwrap(),
            digest: Digest::from_content(plugin.as_bytes()),
            node: Arc::new(description(node.as_str()).into()),
            imports: imports.iter().map(|import| (*import).to_owned()).collect(),
            grants: Arc::new(Grants {
                secrets: BTreeSet::from(["api_key".parse().unwrap()]),
                ..Grants::default()
            }),
        };
        plugins.iter().map(exporter).collect()
    }

    fn node_names(&self) -> Vec<Name> {
        NODES.iter().map(|name| name.parse().unwrap()).collect()
    }
}

/// Returns the worked example of the model.
fn example() -> Value {
    json!({
        "nodes": [
            {"node_name": "split", "identifier": "splitter", "inputs": {"text": "initial"}, "next_nodes": ["worker"]},
            {"node_name": "count", "identifier": "worker", "inputs": {"chunk": "${{ splitter.outputs.chunk }}"},
             "next_nodes": ["merger"], "retry_policy": {"max_retries": 5}, "timeout_ms": 10000},
            {"node_name": "merge", "identifier": "merger", "inputs": {"counts": "${{ worker.outputs.counts }}"},
             "unites": {"identifier": "splitter", "strategy": "ALL_SUCCESS"}, "next_nodes": []}
        ],
        "retry_policy": {
            "max_retries": 3, "strategy": "EXPONENTIAL", "backoff_factor": 2000,
            "exponent": 2, "max_delay": null
        },
        "store_config": {"required_keys": ["cursor"], "default_values": {"batch_size": "100"}},
        "secrets": {"api_key": "hush"}
    })
}

fn apply(template: &Value) -> Result<Applied, Vec<Problem>> {
    let namespace = "default".parse().unwrap();
    let secrets = BTreeSet::new();
    let limits = Limits::default();
    let context = Context {
        namespace: &namespace,
        catalog: &TestCatalog,
        secrets: &secrets,
        limits: &limits,
        budget: &StepBudget::new(u64::MAX),
    };
    validate(template, &context)
}

fn lines(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

fn problem_lines(template: &Value) -> Vec<String> {
    apply(template).map_or_else(lines, |_| Vec::new())
}
