//! Resolution of names to node indices: identifiers, edges and the sources of unites.
//!
//! Not here: the root and the order of the nodes (`order`), and the meaning of the shape
//! ([`super::topology`]).

use std::collections::BTreeMap;

use super::order;
use super::problems::{Problems, element};
use super::raw::{RawGraph, RawNode};
use crate::ids::Name;

/// The index of each identifier's node in the template.
pub struct NodeIndex<'a>(BTreeMap<&'a str, usize>);

impl<'a> NodeIndex<'a> {
    /// Gives every identifier its index; records a problem for a duplicate.
    pub fn new(raw: &'a RawGraph, problems: &mut Problems) -> Self {
        let mut index = BTreeMap::new();
        for (at, node) in raw.nodes.iter().enumerate() {
            let Some(identifier) = &node.identifier else { continue };
            let first = *index.entry(identifier.as_str()).or_insert(at);
            if first != at {
                let first: &RawNode = &raw.nodes[first];
                problems.add(
                    format!("{}.identifier", node.path),
                    format!(
                        "{} is called \"{identifier}\" too; every node needs its own",
                        first.path
                    ),
                );
            }
        }
        NodeIndex(index)
    }

    /// Returns the index of an identifier; records a problem if it has none.
    pub fn find(
        &self,
        name: &Name,
        path: impl Into<String>,
        problems: &mut Problems,
    ) -> Option<usize> {
        let ix = self.0.get(name.as_str()).copied();
        if ix.is_none() {
            problems.add_unknown(
                path,
                format_args!("no node has the identifier \"{name}\""),
                name.as_str(),
                self.0.keys().copied(),
                "use the identifier of a node of this graph",
            );
        }
        ix
    }
}

/// A graph whose nodes are indices: acyclic, with one root from which all are
/// reachable.
pub struct ResolvedGraph {
    /// The targets of each node's edges.
    pub next: Vec<Vec<usize>>,
    /// The parents of each node, ascending.
    pub parents: Vec<Vec<usize>>,
    /// The source of each unite.
    pub source: Vec<Option<usize>>,
    /// The node at which a run begins.
    pub root: usize,
    /// All indices in topological order: each after its parents.
    pub order: Vec<usize>,
}

/// Resolves a graph's edges and sources. Returns `None` if something is wrong
/// with it, and records the problems.
pub fn resolve(
    raw: &RawGraph,
    index: &NodeIndex<'_>,
    problems: &mut Problems,
) -> Option<ResolvedGraph> {
    let before = problems.len();
    let next = edges(raw, index, problems);
    let source = sources(raw, index, problems);
    let named = raw.nodes.iter().all(|node| node.identifier.is_some());
    let mut parents = vec![Vec::new(); next.len()];
    for (from, edges) in next.iter().enumerate() {
        edges.iter().for_each(|&to| parents[to].push(from));
    }
    // A cycle is a mistake regardless of the other problems.
    let order = order::sorted(&next, &parents);
    if order.is_none() {
        let message =
            format!("the edges form a cycle: {}; a graph has none", order::a_cycle(raw, &parents));
        problems.add("$.nodes", message);
    }
    // Unresolved names would only cause false alarms in the checks below.
    let order = order.filter(|_| problems.len() == before && named)?;
    let root = order::root(raw, &parents, problems)?;
    if problems.len() > before {
        return None;
    }
    Some(ResolvedGraph { next, parents, source, root, order })
}

/// Returns the identifier of the node at an index, for messages.
pub fn name_of(raw: &RawGraph, ix: usize) -> &str {
    raw.nodes[ix].identifier.as_ref().map_or("?", Name::as_str)
}

fn edges(raw: &RawGraph, index: &NodeIndex<'_>, problems: &mut Problems) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(raw.nodes.len());
    for node in &raw.nodes {
        let path = format!("{}.next_nodes", node.path);
        let mut edges = Vec::with_capacity(node.next.len());
        for (at, name) in node.next.iter().enumerate() {
            let Some(name) = name else { continue };
            edges.extend(index.find(name, element(&path, at), problems));
        }
        all.push(edges);
    }
    all
}

fn sources(raw: &RawGraph, index: &NodeIndex<'_>, problems: &mut Problems) -> Vec<Option<usize>> {
    let mut all = Vec::with_capacity(raw.nodes.len());
    for (at, node) in raw.nodes.iter().enumerate() {
        let name = node.unites.as_ref().and_then(|unites| unites.source.as_ref());
        let path = format!("{}.unites.identifier", node.path);
        let source = name.and_then(|name| index.find(name, path.clone(), problems));
        if source == Some(at) {
            problems.add(path, "a node cannot unite its own branches; name an earlier one");
        }
        all.push(source);
    }
    all
}

/// Describes a path through the graph in words, without its middle if it is
/// long.
pub fn describe_path(raw: &RawGraph, path: &[usize]) -> String {
    const MAX_LISTED_ENDS: usize = 6;
    let names = |indices: &[usize]| {
        indices.iter().map(|&ix| name_of(raw, ix)).collect::<Vec<_>>().join(" → ")
    };
    if path.len() <= 2 * MAX_LISTED_ENDS {
        names(path)
    } else {
        format!(
            "{} → … → {}",
            names(&path[..MAX_LISTED_ENDS]),
            names(&path[path.len() - MAX_LISTED_ENDS..])
        )
    }
}
