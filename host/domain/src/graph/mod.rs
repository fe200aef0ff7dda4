//! Graphs: a template, as users write it, becomes a [`Graph`] that is valid by
//! construction, or a list of every [`Problem`] in it.
//!
//! Not here: runs. A graph is a plan and never changes.

pub mod problems;
mod limit_fields;
mod raw;

mod node_set;
mod resolve;
mod order;

mod topology;
mod visibility;

mod references;

mod build;

pub(crate) mod schema_fields;
mod input_check;
mod limits;
mod validate;

mod json;
pub mod diff;
mod start;
mod state_path;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use raw::{
    MAX_EDGES, MAX_NEXT_NODES, MAX_NODES, MAX_SECRET_BYTES, MAX_SECRETS, MAX_STORE_KEYS,
};
pub use start::{Start, check_start};
pub use state_path::BadStatePath;
pub use validate::{Applied, Catalog, Context, Exporter, named_nodes, validate};

use self::node_set::NodeSet;
use crate::ids::{Digest, Name, NodeIx};
use crate::json::FieldSet;
use crate::limits::{Level, LimitValues, Limits};
use crate::retry::RetryPolicy;
use crate::template::Template;

/// A valid graph, every node resolved to a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    root: NodeIx,
    store: StoreConfig,
    limits: LimitValues,
    by_identifier: BTreeMap<String, NodeIx>,
    reach: Vec<NodeSet>,
}

/// One node of a graph, with everything that is known about it before a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The node's identifier in the graph.
    pub identifier: Name,
    /// The name of the plugin's node that it runs.
    pub node_name: Name,
    /// The plugin that exports the node.
    pub plugin: Name,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// A template for each input.
    pub inputs: BTreeMap<String, Template>,
    /// The targets of the node's edges, in the order of the edges.
    pub next: Vec<NodeIx>,
    /// The join, if the node is a unite.
    pub unites: Option<Unites>,
    /// The retry policy for failures.
    pub retry: RetryPolicy,
    /// The limits that the node lowers for itself; its timeout is one of them.
    pub limits: LimitValues,
    /// The unites of this node, in ascending order.
    pub united_by: Vec<NodeIx>,
    /// The unites in whose region the node lies, in ascending order.
    pub scopes: Vec<NodeIx>,
    /// The scopes in which the node's states are counted; if empty, the run
    /// counts them.
    pub counts_in: Vec<NodeIx>,
    /// The earlier nodes whose execution a state at this node must carry: inputs of this node,
    /// or of nodes that continue its branch, refer to their output. In ascending order.
    pub carries: Vec<NodeIx>,
    singles: Vec<NodeIx>,
    gathers: Vec<NodeIx>,
    fields: BTreeMap<NodeIx, FieldSet>,
    store_keys: Vec<String>,
    wants_branches: bool,
}

impl Node {
    /// Returns the earlier nodes, in ascending order, whose output the inputs refer to: the one
    /// output on the state's own branch.
    pub fn singles(&self) -> &[NodeIx] {
        &self.singles
    }

    /// Returns the nodes whose outputs in the scope the inputs gather; empty
    /// for an ordinary node. In ascending order.
    pub fn gathers(&self) -> &[NodeIx] {
        &self.gathers
    }

    /// Returns the output fields of the node `of` that the inputs name, if they refer to that
    /// node.
    pub fn fields(&self, of: NodeIx) -> Option<&FieldSet> {
        self.fields.get(&of)
    }

    /// Returns the store keys that the inputs refer to, in ascending order.
    pub fn store_keys(&self) -> &[String] {
        &self.store_keys
    }

    /// Returns whether the inputs refer to `unite.branches`.
    pub fn wants_branches(&self) -> bool {
        self.wants_branches
    }
}

/// The join of a unite node.
#[derive(Debug, Clone, PartialEq)]
pub struct Unites {
    /// The node whose branches the unite joins.
    pub source: NodeIx,
    /// The strategy that decides on failed members.
    pub strategy: Strategy,
    /// The behaviour if nothing arrived and nothing failed.
    pub on_empty: OnEmpty,
    /// The nodes between source and unite, both excluded, in ascending order.
    pub region: Vec<NodeIx>,
}

/// The strategy of a unite: which ends of the branches it accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// No member may have failed.
    AllSuccess,
    /// Any end is accepted, up to a number of failed members.
    AllDone(MaxFailed),
}

/// The number of failed members that a unite absorbs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailed {
    /// Any number.
    Any,
    /// An absolute number.
    Count(u32),
    /// A percentage of the outputs of the united execution.
    Percent(f64),
}

/// The behaviour of a unite if nothing arrived and nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEmpty {
    /// The unite is pruned.
    #[default]
    Prune,
    /// The unite runs, with empty arrays.
    Run,
}

/// The store configuration of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreConfig {
    /// Keys that must be set when a run starts, ascending.
    pub required_keys: Vec<String>,
    /// Default values of keys; a start request may override them.
    pub default_values: BTreeMap<String, String>,
    /// True if the final values are kept with the run.
    pub keep: bool,
}

/// One mistake in a graph or a start request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The JSON path of the mistake: `$.nodes[2].inputs.text`.
    pub path: String,
    /// The mistake and its remedy.
    pub message: String,
}

impl Graph {
    /// Returns the node at an index. The index must come from this graph.
    pub fn node(&self, ix: NodeIx) -> &Node {
        &self.nodes[ix.at()]
    }

    /// Returns the node at an index, if the graph has that index.
    pub fn get(&self, ix: NodeIx) -> Option<&Node> {
        self.nodes.get(ix.at())
    }

    /// Iterates over all nodes, in the order of the template.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeIx, &Node)> {
        self.nodes.iter().enumerate().map(|(ix, node)| (NodeIx(ix as u32), node))
    }

    /// Returns the node at which a run begins.
    pub fn root(&self) -> NodeIx {
        self.root
    }

    /// Returns the store configuration.
    pub fn store(&self) -> &StoreConfig {
        &self.store
    }

    /// Returns the limits that the graph lowers for all its nodes.
    pub fn limits(&self) -> &LimitValues {
        &self.limits
    }

    /// Returns the uploads that the nodes name, each as plugin and digest, in ascending order.
    pub fn uploads(&self) -> BTreeSet<(&Name, Digest)> {
        self.nodes.iter().map(|node| (&node.plugin, node.digest)).collect()
    }

    /// Lowers limits to those of the graph and of one of its nodes.
    pub fn lower(&self, node: &Node, limits: &mut Limits) {
        limits.lower_all(Level::Graph, &self.limits);
        limits.lower_all(Level::Node, &node.limits);
    }

    /// Returns the index of an identifier.
    pub fn find(&self, identifier: &str) -> Option<NodeIx> {
        self.by_identifier.get(identifier).copied()
    }

    /// Returns whether a path of at least one edge leads from a node to
    /// another.
    pub fn reaches(&self, from: NodeIx, to: NodeIx) -> bool {
        self.reach[from.at()].contains(to.at())
    }

    /// Returns whether a failure at `above` leaves a gap at `below`. It does if
    /// a path between them has no unite, `below` included, whose region
    /// contains `above`: such a unite would absorb the failure.
    pub fn leaves_gap(&self, ancestor: NodeIx, descendant: NodeIx) -> bool {
        let absorbs = |ix: &NodeIx| self.node(ancestor).scopes.contains(ix);
        let mut visited = NodeSet::empty(self.nodes.len());
        let mut open = vec![ancestor];
        while let Some(ix) = open.pop() {
            for next in self.node(ix).next.iter().filter(|next| !absorbs(next)) {
                if *next == descendant {
                    return true;
                }
                if !visited.contains(next.at()) {
                    visited.insert(next.at());
                    open.push(*next);
                }
            }
        }
        false
    }
}
