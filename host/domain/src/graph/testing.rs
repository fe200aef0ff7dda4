//! Graphs for tests, written in one line of text: `A > B C; B > D; C > D;
//! D(A)`.
//!
//! Not here: plugins. The nodes name a plugin that does not exist.

use serde_json::{Value, json};

use super::{Graph, Problem};
use crate::ids::Digest;

/// A graph under construction.
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    json: Value,
}

impl GraphBuilder {
    /// Parses nodes and edges: nodes separated by `;`, each with its targets
    /// after `>`. `D(A)` is a unite of A. A node may be omitted only if it has
    /// no targets and unites nothing.
    pub fn from_text(text: &str) -> Self {
        let mut nodes: Vec<Value> = Vec::new();
        let mut mentioned = Vec::new();
        for line in text.split(';').map(str::trim).filter(|line| !line.is_empty()) {
            let (head, tail) = line.split_once('>').unwrap_or((line, ""));
            let next: Vec<_> = tail.split_whitespace().collect();
            let (name, source) = match head.trim().split_once('(') {
                Some((name, source)) => (name, Some(source.trim_end_matches(')'))),
                None => (head.trim(), None),
            };
            let mut node = a_node(name);
            node["next_nodes"] = json!(next);
            if let Some(source) = source {
                node["unites"] = json!({"identifier": source});
            }
            nodes.push(node);
            mentioned.extend(next);
        }
        for name in mentioned {
            if !nodes.iter().any(|node| node["identifier"] == name) {
                nodes.push(a_node(name));
            }
        }
        GraphBuilder { json: json!({ "nodes": nodes }) }
    }

    /// Gives a node an input template.
    pub fn input(self, node: &str, name: &str, template: impl Into<Value>) -> Self {
        let template = template.into();
        self.with(node, |node| node["inputs"][name] = template)
    }

    /// Changes a node's JSON in the template.
    pub fn with(mut self, node: &str, change: impl FnOnce(&mut Value)) -> Self {
        let nodes = self.json["nodes"].as_array_mut();
        if let Some(found) = nodes.into_iter().flatten().find(|found| found["identifier"] == node) {
            change(found);
        }
        self
    }

    /// Sets the template's store configuration.
    pub fn store(mut self, config: Value) -> Self {
        self.json["store_config"] = config;
        self
    }

    /// Builds the graph.
    ///
    /// # Errors
    /// All problems found, at least one.
    pub fn build(&self) -> Result<Graph, Vec<Problem>> {
        Graph::from_json(&self.json)
    }
}

fn a_node(name: &str) -> Value {
    json!({
        "node_name": name,
        "identifier": name,
        "plugin": "testing",
        "digest": Digest::from_content(name.as_bytes()),
        "inputs": {},
        "next_nodes": [],
    })
}
