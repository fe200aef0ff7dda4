//! Resolution of names to node indices: identifiers, edges and the sources of unites.
//! Finds the root, and an order in which every node comes after its parents.
//!
//! Not here: the meaning of the shape; see [`super::topology`].

use std::collections::BTreeMap;

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
    let order = sorted(&next, &parents);
    if order.is_none() {
        let message =
            format!("the edges form a cycle: {}; a graph has none", a_cycle(raw, &parents));
        problems.add("$.nodes", message);
    }
    // Unresolved names would only cause false alarms in the checks below.
    let order = order.filter(|_| problems.len() == before && named)?;
    let root = root(raw, &parents, problems)?;
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

fn sorted(next: &[Vec<usize>], parents: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut waiting: Vec<_> = parents.iter().map(Vec::len).collect();
    let mut order: Vec<_> = (0..next.len()).filter(|&ix| waiting[ix] == 0).collect();
    let mut at = 0;
    while let Some(&ix) = order.get(at) {
        at += 1;
        for &to in &next[ix] {
            waiting[to] -= 1;
            if waiting[to] == 0 {
                order.push(to);
            }
        }
    }
    (order.len() == next.len()).then_some(order)
}

/// Describes one cycle in words. Called only if there is one.
fn a_cycle(raw: &RawGraph, parents: &[Vec<usize>]) -> String {
    // Remove the nodes that no cycle leads to; each node that stays has a
    // parent that stays.
    let mut next = vec![Vec::new(); parents.len()];
    for (to, from) in parents.iter().enumerate() {
        from.iter().for_each(|&from| next[from].push(to));
    }
    let mut waiting: Vec<_> = parents.iter().map(Vec::len).collect();
    let mut free: Vec<_> = (0..parents.len()).filter(|&ix| waiting[ix] == 0).collect();
    while let Some(ix) = free.pop() {
        for &to in &next[ix] {
            waiting[to] -= 1;
            if waiting[to] == 0 {
                free.push(to);
            }
        }
    }
    let is_blocked = |ix: &usize| waiting[*ix] > 0;
    let mut walk: Vec<usize> = (0..parents.len()).filter(is_blocked).take(1).collect();
    let mut positions = vec![None; parents.len()];
    while let Some(&ix) = walk.last() {
        if let Some(first) = positions[ix].replace(walk.len() - 1) {
            walk.drain(..first);
            break;
        }
        walk.extend(parents[ix].iter().copied().find(|parent| is_blocked(parent)));
    }
    walk.reverse();
    describe_path(raw, &walk)
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

fn root(raw: &RawGraph, parents: &[Vec<usize>], problems: &mut Problems) -> Option<usize> {
    let mut roots = Vec::new();
    for (ix, node) in raw.nodes.iter().enumerate() {
        match (parents[ix].is_empty(), &node.unites) {
            (true, None) => roots.push(ix),
            (true, Some(_)) => {
                let message =
                    "nothing leads to this unite; name it in the next_nodes of the nodes it joins";
                problems.add(format!("{}.unites", node.path), message);
            }
            _ => {}
        }
    }
    match roots.as_slice() {
        [root] => Some(*root),
        [] => {
            problems.add(
                "$.nodes",
                "there is no node to begin at: one without \"unites\" to which nothing leads",
            );
            None
        }
        several => {
            for &ix in several {
                let others: Vec<_> = several.iter().filter(|other| **other != ix).take(3).collect();
                let others: Vec<_> =
                    others.iter().map(|&&other| format!("\"{}\"", name_of(raw, other))).collect();
                let message = format!(
                    "nothing leads to \"{}\", nor to {}; a graph begins at exactly one node, so \
                     connect or remove the others",
                    name_of(raw, ix),
                    others.join(", ")
                );
                problems.add(raw.nodes[ix].path.clone(), message);
            }
            None
        }
    }
}
