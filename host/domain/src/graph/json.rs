//! Stored JSON of a graph: the template's own form, with every default written
//! out, and the plugin and digest of every node.

use serde_json::{Map, Value, json};

use super::build::build;
use super::problems::Problems;
use super::raw::{self, Form};
use super::{Graph, MaxFailed, Node, OnEmpty, Problem, Strategy, Unites};
use crate::limits::{Limit, LimitValues};

impl Graph {
    /// Writes the graph as JSON. The graph holds no secret.
    pub fn to_json(&self) -> Value {
        let nodes: Vec<_> = self.nodes.iter().map(|node| self.node_to_json(node)).collect();
        let mut json = json!({
            "nodes": nodes,
            "store_config": {
                "required_keys": self.store.required_keys,
                "default_values": self.store.default_values,
                "keep": self.store.keep,
            },
        });
        // Omitted if there are none, as in graphs stored before limits existed:
        // the same graph, applied again, stays the same revision.
        if !self.limits.is_empty() {
            json["limits"] = json!(self.limits);
        }
        json
    }

    /// Reads a graph that [`Graph::to_json`] wrote.
    ///
    /// # Errors
    /// All problems found, at least one.
    pub fn from_json(value: &Value) -> Result<Graph, Vec<Problem>> {
        let mut problems = Problems::default();
        let raw = raw::read(value, &Form::Revision, &mut problems);
        let graph = raw.and_then(|raw| build(raw, &mut problems));
        problems.or(graph)
    }

    /// Writes one of the nodes as JSON.
    pub(super) fn node_to_json(&self, node: &Node) -> Value {
        let inputs: Map<_, _> =
            node.inputs.iter().map(|(name, template)| (name.clone(), template.to_json())).collect();
        let next: Vec<_> = node.next.iter().map(|next| &self.node(*next).identifier).collect();
        let mut json = json!({
            "node_name": node.node_name,
            "identifier": node.identifier,
            "plugin": node.plugin,
            "digest": node.digest,
            "inputs": inputs,
            "next_nodes": next,
            "retry_policy": node.retry.to_json(),
        });
        if let Some(unites) = &node.unites {
            json["unites"] = self.unites_to_json(unites);
        }
        if let Some(timeout_ms) = node.limits.get(Limit::TimeoutMs) {
            json["timeout_ms"] = json!(timeout_ms);
        }
        let overrides: LimitValues =
            node.limits.iter().filter(|(limit, _)| *limit != Limit::TimeoutMs).collect();
        if !overrides.is_empty() {
            json["limits"] = json!(overrides);
        }
        json
    }

    fn unites_to_json(&self, unites: &Unites) -> Value {
        let mut json = json!({
            "identifier": self.node(unites.source).identifier,
            "on_empty": match unites.on_empty { OnEmpty::Prune => "PRUNE", OnEmpty::Run => "RUN" },
        });
        json["strategy"] = match unites.strategy {
            Strategy::AllSuccess => json!("ALL_SUCCESS"),
            Strategy::AllDone(_) => json!("ALL_DONE"),
        };
        match unites.strategy {
            Strategy::AllSuccess | Strategy::AllDone(MaxFailed::Any) => {}
            Strategy::AllDone(MaxFailed::Count(count)) => json["max_failed"] = json!(count),
            Strategy::AllDone(MaxFailed::Percent(percent)) => {
                json["max_failed"] = json!(format!("{percent}%"));
            }
        }
        json
    }
}
