//! Graphs: a template as people write it becomes a [`Graph`], valid by
//! construction, or a list of every [`Problem`] in it.
//!
//! Not here: runs. A graph is a plan and never changes.

pub mod problems;
mod raw;

mod node_set;
mod resolve;

mod topology;
mod visibility;

mod references;

mod build;

pub(crate) mod fields;
mod inputs;
mod limits;
mod validate;

mod json;
mod start;

#[cfg(any(test, feature = "testing"))]
pub mod sketch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use raw::{
    MAX_EDGES, MAX_NEXT_NODES, MAX_NODES, MAX_SECRET_BYTES, MAX_SECRETS, MAX_STORE_KEYS,
};
pub use start::{Start, check_start};
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
    places: BTreeMap<String, NodeIx>,
    reach: Vec<NodeSet>,
}

/// One node of a graph: a place, with all that can be known of it beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in the graph.
    pub identifier: Name,
    /// What it runs.
    pub node_name: Name,
    /// The plugin that exports it.
    pub plugin: Name,
    /// The very bytes of that plugin.
    pub digest: Digest,
    /// How its inputs are made.
    pub inputs: BTreeMap<String, Template>,
    /// Where its outputs go, in the order of the edges.
    pub next: Vec<NodeIx>,
    /// What it joins, if it is a unite.
    pub unites: Option<Unites>,
    /// What happens when it fails.
    pub retry: RetryPolicy,
    /// The limits that it lowers for itself; its deadline is one of them.
    pub limits: LimitValues,
    /// The unites of this node, in ascending order.
    pub united_by: Vec<NodeIx>,
    /// The unites in whose region it lies, in ascending order.
    pub scopes: Vec<NodeIx>,
    /// Those of `scopes` in which its states are counted; none: in the run.
    pub counts_in: Vec<NodeIx>,
    /// The earlier nodes of which a state here must know the one execution and
    /// output that it comes from: what it, or anything that continues its
    /// branch, refers to. In ascending order.
    pub carries: Vec<NodeIx>,
    singles: Vec<NodeIx>,
    gathers: Vec<NodeIx>,
    fields: BTreeMap<NodeIx, FieldSet>,
    store_keys: Vec<String>,
    wants_branches: bool,
}

impl Node {
    /// The nodes whose one output, the one that a state here comes from, its
    /// inputs refer to. In ascending order.
    pub fn singles(&self) -> &[NodeIx] {
        &self.singles
    }

    /// The nodes of which its inputs gather all outputs in the scope; none for
    /// an ordinary node. In ascending order.
    pub fn gathers(&self) -> &[NodeIx] {
        &self.gathers
    }

    /// The fields that its inputs name of the outputs of a node, if it refers to
    /// that node.
    pub fn fields(&self, of: NodeIx) -> Option<&FieldSet> {
        self.fields.get(&of)
    }

    /// The keys of the store that its inputs refer to. In ascending order.
    pub fn store_keys(&self) -> &[String] {
        &self.store_keys
    }

    /// Whether its inputs refer to `unite.branches`.
    pub fn wants_branches(&self) -> bool {
        self.wants_branches
    }
}

/// What makes a node a unite.
#[derive(Debug, Clone, PartialEq)]
pub struct Unites {
    /// The node whose branches it joins.
    pub source: NodeIx,
    /// Which ends of the branches it accepts.
    pub strategy: Strategy,
    /// What becomes of it when nothing arrived and nothing failed.
    pub on_empty: OnEmpty,
    /// The nodes between, both ends excluded, in ascending order.
    pub region: Vec<NodeIx>,
}

/// Which ends of the branches a unite accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// No member may have failed.
    AllSuccess,
    /// Any ends, up to so many failed members.
    AllDone(MaxFailed),
}

/// How many failed members a unite absorbs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailed {
    /// Any number.
    Any,
    /// So many.
    Count(u32),
    /// So many in a hundred of the outputs of the execution it unites.
    Percent(f64),
}

/// What becomes of a unite when nothing arrived and nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEmpty {
    /// It is pruned.
    #[default]
    Prune,
    /// It runs, with empty arrays.
    Run,
}

/// What a graph says of the store of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreConfig {
    /// Keys that must be there when a run starts, ascending.
    pub required_keys: Vec<String>,
    /// What a run starts with, unless the start says otherwise.
    pub default_values: BTreeMap<String, String>,
    /// Whether the final values stay with the run.
    pub keep: bool,
}

/// One mistake in a graph or a start request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where, as a JSON path: `$.nodes[2].inputs.text`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Graph {
    /// The node at a place. Places come from this graph, so they are there.
    pub fn node(&self, ix: NodeIx) -> &Node {
        &self.nodes[ix.at()]
    }

    /// The node at a place that may come from elsewhere.
    pub fn get(&self, ix: NodeIx) -> Option<&Node> {
        self.nodes.get(ix.at())
    }

    /// All nodes, in the order of the template.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeIx, &Node)> {
        self.nodes.iter().enumerate().map(|(ix, node)| (NodeIx(ix as u32), node))
    }

    /// Where a run begins.
    pub fn root(&self) -> NodeIx {
        self.root
    }

    /// What it says of the store.
    pub fn store(&self) -> &StoreConfig {
        &self.store
    }

    /// The limits that it lowers for all its nodes.
    pub fn limits(&self) -> &LimitValues {
        &self.limits
    }

    /// Lowers limits to what the graph and one of its nodes say.
    pub fn lower(&self, node: &Node, limits: &mut Limits) {
        limits.lower_all(Level::Graph, &self.limits);
        limits.lower_all(Level::Node, &node.limits);
    }

    /// The place of an identifier.
    pub fn find(&self, identifier: &str) -> Option<NodeIx> {
        self.places.get(identifier).copied()
    }

    /// Whether a path of at least one edge leads from a node to another.
    pub fn reaches(&self, from: NodeIx, to: NodeIx) -> bool {
        self.reach[from.at()].has(to.at())
    }

    /// Whether a failure at `above` leaves a gap at `below`: whether a path
    /// leads there on which no unite, `below` included, has `above` in its
    /// region and so stands for it.
    pub fn above(&self, above: NodeIx, below: NodeIx) -> bool {
        let absorbs = |place: &NodeIx| self.node(above).scopes.contains(place);
        let mut met = NodeSet::none(self.nodes.len());
        let mut open = vec![above];
        while let Some(place) = open.pop() {
            for next in self.node(place).next.iter().filter(|next| !absorbs(next)) {
                if *next == below {
                    return true;
                }
                if !met.has(next.at()) {
                    met.insert(next.at());
                    open.push(*next);
                }
            }
        }
        false
    }
}
