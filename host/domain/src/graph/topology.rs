//! The shape of a graph: reachability, dominators, the region of each unite,
//! and the scopes in which each node is counted.
//!
//! Not here: inputs. Which outputs a node may refer to is in
//! [`super::visibility`].

use std::collections::VecDeque;

use super::node_set::NodeSet;
use super::problems::Problems;
use super::raw::RawGraph;
use super::resolve::{ResolvedGraph, describe_path, name_of};

/// The shape of a graph in which every unite is valid.
pub struct Topology {
    /// The descendants of each node, itself excluded.
    pub reach: Vec<NodeSet>,
    /// The region of each unite.
    pub region: Vec<Option<NodeSet>>,
    /// The unites in whose region each node lies.
    pub scopes: Vec<NodeSet>,
    /// The scopes in which each node is counted.
    pub counts_in: Vec<Vec<usize>>,
}

/// Computes the shape of a graph. Returns `None` if a unite is not valid, and
/// records the problem.
pub fn compute(
    raw: &RawGraph,
    resolved: &ResolvedGraph,
    problems: &mut Problems,
) -> Option<Topology> {
    let before = problems.len();
    let reach = reachability(resolved);
    let dominators = dominators(resolved);
    let mut region = vec![None; resolved.next.len()];
    for (unite, source) in unites(resolved) {
        if dominators[unite].contains(source) {
            region[unite] = Some(nodes_between(&reach, source, unite));
        } else {
            let path = format!("{}.unites.identifier", raw.nodes[unite].path);
            problems.add(path, explain_unreachable(raw, resolved, source, unite));
        }
    }
    for (unite, source) in unites(resolved) {
        let closed = |(other, _): &(usize, usize)| {
            region[*other].as_ref().is_some_and(|region| region.contains(source))
                && reach[*other].contains(unite)
        };
        if let Some((closed, _)) = unites(resolved).find(closed) {
            let (source, closed) = (name_of(raw, source), name_of(raw, closed));
            let message = format!(
                "\"{source}\" lies in the region of the unite \"{closed}\", which has closed before this; \
                 unite \"{source}\" before \"{closed}\", or unite \"{closed}\" or an earlier node"
            );
            problems.add(format!("{}.unites.identifier", raw.nodes[unite].path), message);
        }
    }
    if problems.len() > before {
        return None;
    }
    let scopes = scopes(&region);
    let counts_in = scopes.iter().map(|scopes| innermost(scopes, &region)).collect();
    Some(Topology { reach, region, scopes, counts_in })
}

/// Iterates over the unites, each with its source.
pub fn unites(resolved: &ResolvedGraph) -> impl Iterator<Item = (usize, usize)> {
    resolved.source.iter().enumerate().filter_map(|(unite, source)| Some((unite, (*source)?)))
}

/// Finds a shortest path between two nodes that avoids a third node.
pub fn shortest_path(
    resolved: &ResolvedGraph,
    from: usize,
    to: usize,
    avoided: usize,
) -> Option<Vec<usize>> {
    let mut predecessor = vec![None; resolved.next.len()];
    let mut open = VecDeque::from([from]);
    if from == avoided {
        return None;
    }
    while let Some(ix) = open.pop_front() {
        if ix == to {
            let mut path: Vec<_> =
                std::iter::successors(Some(to), |&at| predecessor[at].filter(|_| at != from))
                    .collect();
            path.reverse();
            return Some(path);
        }
        for &next in &resolved.next[ix] {
            if next != avoided && next != from && predecessor[next].is_none() {
                predecessor[next] = Some(ix);
                open.push_back(next);
            }
        }
    }
    None
}

fn reachability(resolved: &ResolvedGraph) -> Vec<NodeSet> {
    let mut reach = vec![NodeSet::empty(resolved.next.len()); resolved.next.len()];
    for &ix in resolved.order.iter().rev() {
        let mut below = NodeSet::empty(resolved.next.len());
        for &next in &resolved.next[ix] {
            below.insert(next);
            below.union_with(&reach[next]);
        }
        reach[ix] = below;
    }
    reach
}

/// Computes the dominators of each node: the nodes on every path to it from the
/// root, itself included.
fn dominators(resolved: &ResolvedGraph) -> Vec<NodeSet> {
    let mut dominators = vec![NodeSet::empty(resolved.next.len()); resolved.next.len()];
    for &ix in &resolved.order {
        let mut parents = resolved.parents[ix].iter();
        let mut common =
            parents.next().map_or(NodeSet::empty(resolved.next.len()), |&p| dominators[p].clone());
        parents.for_each(|&parent| common.intersect_with(&dominators[parent]));
        common.insert(ix);
        dominators[ix] = common;
    }
    dominators
}

/// Returns the nodes between two nodes, both excluded.
fn nodes_between(reach: &[NodeSet], source: usize, unite: usize) -> NodeSet {
    let mut region = NodeSet::empty(reach.len());
    reach[source].iter().filter(|&ix| reach[ix].contains(unite)).for_each(|ix| region.insert(ix));
    region
}

fn scopes(region: &[Option<NodeSet>]) -> Vec<NodeSet> {
    let mut scopes = vec![NodeSet::empty(region.len()); region.len()];
    for (unite, region) in region.iter().enumerate() {
        region.iter().flat_map(NodeSet::iter).for_each(|ix| scopes[ix].insert(unite));
    }
    scopes
}

/// Returns the scopes whose region contains none of the other scopes.
fn innermost(scopes: &NodeSet, region: &[Option<NodeSet>]) -> Vec<usize> {
    let holds_none =
        |unite: &usize| region[*unite].as_ref().is_some_and(|region| !region.intersects(scopes));
    scopes.iter().filter(holds_none).collect()
}

fn explain_unreachable(
    raw: &RawGraph,
    resolved: &ResolvedGraph,
    source: usize,
    unite: usize,
) -> String {
    let (source_name, unite_name) = (name_of(raw, source), name_of(raw, unite));
    let bypass = shortest_path(resolved, resolved.root, unite, source);
    match (shortest_path(resolved, source, unite, usize::MAX), bypass) {
        (Some(_), Some(past)) => format!(
            "\"{source_name}\" must lie on every path to \"{unite_name}\", but {} goes past it; unite a node \
             that all branches come from",
            describe_path(raw, &past)
        ),
        _ => format!("\"{source_name}\" does not lead to \"{unite_name}\""),
    }
}
