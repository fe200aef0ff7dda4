//! The differences between two graphs by structure: nodes, edges and settings. Not here: their
//! words for a terminal.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::Graph;

/// The differences between two graphs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct GraphDiff {
    /// The identifiers of nodes that only the second graph has.
    pub added: Vec<String>,
    /// The identifiers of nodes that only the first graph has.
    pub removed: Vec<String>,
    /// The nodes that both have, with their different fields.
    pub changed: Vec<NodeDiff>,
    /// The edges that only the second graph has.
    pub edges_added: Vec<Edge>,
    /// The edges that only the first graph has.
    pub edges_removed: Vec<Edge>,
    /// The different settings of the graphs themselves.
    pub settings: Vec<FieldDiff>,
}

/// A node that differs between two graphs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeDiff {
    /// The identifier of the node.
    pub identifier: String,
    /// The different fields.
    pub fields: Vec<FieldDiff>,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDiff {
    /// The name of the field: `digest`, `inputs.text`, `retry_policy.max_retries`.
    pub field: String,
    /// The value in the first graph; `None` if it does not exist.
    pub from: Option<Value>,
    /// The value in the second graph; `None` if it does not exist.
    pub to: Option<Value>,
}

/// An edge between two nodes, by their identifiers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// The node at which the edge begins.
    pub from: String,
    /// The node at which it ends.
    pub to: String,
}

impl GraphDiff {
    /// Returns whether the graphs are equal.
    pub fn is_empty(&self) -> bool {
        *self == GraphDiff::default()
    }
}

/// Compares two graphs.
pub fn diff(from: &Graph, to: &Graph) -> GraphDiff {
    let (from, to) = (Parts::new(from), Parts::new(to));
    let mut diff = GraphDiff {
        added: missing(&to.nodes, &from.nodes),
        removed: missing(&from.nodes, &to.nodes),
        edges_added: to.edges.difference(&from.edges).cloned().collect(),
        edges_removed: from.edges.difference(&to.edges).cloned().collect(),
        settings: fields(&from.settings, &to.settings),
        changed: Vec::new(),
    };
    for (identifier, node) in &from.nodes {
        let Some(other) = to.nodes.get(identifier) else { continue };
        let mut fields = fields(&node.fields, &other.fields);
        // The order of edges is part of the graph: gathers follow it.
        if node.next != other.next && as_set(&node.next) == as_set(&other.next) {
            fields.push(FieldDiff {
                field: "next_nodes".to_owned(),
                from: Some(node.next.clone().into()),
                to: Some(other.next.clone().into()),
            });
        }
        if !fields.is_empty() {
            diff.changed.push(NodeDiff { identifier: identifier.clone(), fields });
        }
    }
    diff
}

/// A graph, split into the parts that are compared.
struct Parts {
    nodes: BTreeMap<String, NodeParts>,
    edges: BTreeSet<Edge>,
    settings: Map<String, Value>,
}

struct NodeParts {
    next: Vec<String>,
    fields: Map<String, Value>,
}

impl Parts {
    fn new(graph: &Graph) -> Self {
        let (mut nodes, mut edges) = (BTreeMap::new(), BTreeSet::new());
        for (_, node) in graph.nodes() {
            let identifier = node.identifier.to_string();
            let next: Vec<_> =
                node.next.iter().map(|ix| graph.node(*ix).identifier.to_string()).collect();
            edges.extend(next.iter().map(|to| Edge { from: identifier.clone(), to: to.clone() }));
            let mut fields = object(graph.node_to_json(node));
            fields.remove("identifier");
            fields.remove("next_nodes");
            nodes.insert(identifier, NodeParts { next, fields });
        }
        let mut settings = object(graph.to_json());
        settings.remove("nodes");
        Parts { nodes, edges, settings }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn as_set(names: &[String]) -> BTreeSet<&String> {
    names.iter().collect()
}

/// Returns the identifiers of nodes that `others` lacks.
fn missing(
    nodes: &BTreeMap<String, NodeParts>,
    others: &BTreeMap<String, NodeParts>,
) -> Vec<String> {
    nodes.keys().filter(|identifier| !others.contains_key(*identifier)).cloned().collect()
}

/// Compares the fields of two objects. The fields of an object in a field are compared one by one.
fn fields(from: &Map<String, Value>, to: &Map<String, Value>) -> Vec<FieldDiff> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let mut diffs = Vec::new();
    for name in names {
        let (one, other) = (from.get(name), to.get(name));
        match (one, other) {
            _ if one == other => {}
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                diffs.extend(inner_fields(name, one, other));
            }
            _ => diffs.push(field(name.clone(), one, other)),
        }
    }
    diffs
}

fn inner_fields(outer: &str, from: &Map<String, Value>, to: &Map<String, Value>) -> Vec<FieldDiff> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let different = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    different.map(|name| field(format!("{outer}.{name}"), from.get(name), to.get(name))).collect()
}

fn field(field: String, from: Option<&Value>, to: Option<&Value>) -> FieldDiff {
    FieldDiff { field, from: from.cloned(), to: to.cloned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::graph::testing::GraphBuilder;

    fn edges(edges: &[Edge]) -> String {
        let edges: Vec<_> = edges.iter().map(|edge| format!("{}>{}", edge.from, edge.to)).collect();
        edges.join(" ")
    }

    #[test]
    fn equal_graphs_have_no_differences() {
        let graph = GraphBuilder::from_text("A > B C; B > D; C > D; D(A)").build().unwrap();
        assert!(diff(&graph, &graph).is_empty());
    }

    #[test]
    fn nodes_and_edges_are_compared() {
        let from = GraphBuilder::from_text("A > B C; B > D").build().unwrap();
        let to = GraphBuilder::from_text("A > B E; B > E").build().unwrap();
        let found = diff(&from, &to);
        assert_eq!((found.added, found.removed), (vec!["E".into()], vec!["C".into(), "D".into()]));
        assert_eq!(edges(&found.edges_added), "A>E B>E");
        assert_eq!(edges(&found.edges_removed), "A>C B>D");
        assert_eq!(found.changed, []);
    }

    #[test]
    fn changed_fields_have_both_values() {
        let from = GraphBuilder::from_text("A > B").input("A", "x", 1);
        let to = from.clone().input("A", "x", 2).input("A", "y", "new");
        let to = to.with("B", |node| node["retry_policy"] = json!({"max_retries": 9}));
        let to = to.store(json!({"keep": true}));
        let found = diff(&from.build().unwrap(), &to.build().unwrap());
        let field = |field: &str, from, to| FieldDiff { field: field.to_owned(), from, to };
        assert_eq!(
            found.changed,
            [
                NodeDiff {
                    identifier: "A".into(),
                    fields: vec![
                        field("inputs.x", Some(json!(1)), Some(json!(2))),
                        field("inputs.y", None, Some(json!("new"))),
                    ],
                },
                NodeDiff {
                    identifier: "B".into(),
                    fields: vec![field("retry_policy.max_retries", Some(json!(3)), Some(json!(9)))],
                },
            ]
        );
        let keep = field("store_config.keep", Some(json!(false)), Some(json!(true)));
        assert_eq!(found.settings, [keep]);
    }

    #[test]
    fn the_order_of_edges_is_compared() {
        let from = GraphBuilder::from_text("A > B C").build().unwrap();
        let to = GraphBuilder::from_text("A > C B").build().unwrap();
        let found = diff(&from, &to);
        assert_eq!((found.edges_added.len(), found.changed.len()), (0, 1));
        assert_eq!(found.changed[0].fields[0].field, "next_nodes");
    }
}
