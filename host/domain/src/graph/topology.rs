//! The shape of a graph: reachability, dominators, the region of each unite,
//! and the scopes in which each node is counted.
//!
//! Not here: inputs. Which outputs a node may refer to is in
//! [`super::visibility`].

use std::collections::VecDeque;

use super::node_set::NodeSet;
use super::problems::Problems;
use super::raw::RawGraph;
use super::resolve::{Wires, in_words, name_of};

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
pub fn of(raw: &RawGraph, wires: &Wires, problems: &mut Problems) -> Option<Topology> {
    let before = problems.len();
    let reach = reach(wires);
    let dominators = dominators(wires);
    let mut region = vec![None; wires.next.len()];
    for (unite, source) in unites(wires) {
        if dominators[unite].has(source) {
            region[unite] = Some(between(&reach, source, unite));
        } else {
            let path = format!("{}.unites.identifier", raw.nodes[unite].path);
            problems.add(path, why_not_before(raw, wires, source, unite));
        }
    }
    for (unite, source) in unites(wires) {
        let closed = |(other, _): &(usize, usize)| {
            region[*other].as_ref().is_some_and(|region| region.has(source))
                && reach[*other].has(unite)
        };
        if let Some((closed, _)) = unites(wires).find(closed) {
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
pub fn unites(wires: &Wires) -> impl Iterator<Item = (usize, usize)> {
    wires.source.iter().enumerate().filter_map(|(unite, source)| Some((unite, (*source)?)))
}

/// Finds a shortest path between two nodes that avoids a third.
pub fn way(wires: &Wires, from: usize, to: usize, avoiding: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; wires.next.len()];
    let mut open = VecDeque::from([from]);
    if from == avoiding {
        return None;
    }
    while let Some(place) = open.pop_front() {
        if place == to {
            let mut way: Vec<_> =
                std::iter::successors(Some(to), |&at| came_from[at].filter(|_| at != from))
                    .collect();
            way.reverse();
            return Some(way);
        }
        for &next in &wires.next[place] {
            if next != avoiding && next != from && came_from[next].is_none() {
                came_from[next] = Some(place);
                open.push_back(next);
            }
        }
    }
    None
}

fn reach(wires: &Wires) -> Vec<NodeSet> {
    let mut reach = vec![NodeSet::none(wires.next.len()); wires.next.len()];
    for &place in wires.order.iter().rev() {
        let mut mine = NodeSet::none(wires.next.len());
        for &next in &wires.next[place] {
            mine.insert(next);
            mine.unite(&reach[next]);
        }
        reach[place] = mine;
    }
    reach
}

/// Computes the dominators of each node: the nodes on every path to it from the
/// root, itself included.
fn dominators(wires: &Wires) -> Vec<NodeSet> {
    let mut dominators = vec![NodeSet::none(wires.next.len()); wires.next.len()];
    for &place in &wires.order {
        let mut parents = wires.parents[place].iter();
        let mut mine =
            parents.next().map_or(NodeSet::none(wires.next.len()), |&p| dominators[p].clone());
        parents.for_each(|&parent| mine.intersect(&dominators[parent]));
        mine.insert(place);
        dominators[place] = mine;
    }
    dominators
}

/// Returns the nodes between two nodes, both excluded.
fn between(reach: &[NodeSet], source: usize, unite: usize) -> NodeSet {
    let mut region = NodeSet::none(reach.len());
    reach[source]
        .iter()
        .filter(|&place| reach[place].has(unite))
        .for_each(|place| region.insert(place));
    region
}

fn scopes(region: &[Option<NodeSet>]) -> Vec<NodeSet> {
    let mut scopes = vec![NodeSet::none(region.len()); region.len()];
    for (unite, region) in region.iter().enumerate() {
        region.iter().flat_map(NodeSet::iter).for_each(|place| scopes[place].insert(unite));
    }
    scopes
}

/// Returns the scopes whose region contains none of the other scopes.
fn innermost(scopes: &NodeSet, region: &[Option<NodeSet>]) -> Vec<usize> {
    let holds_none =
        |unite: &usize| region[*unite].as_ref().is_some_and(|region| !region.meets(scopes));
    scopes.iter().filter(holds_none).collect()
}

fn why_not_before(raw: &RawGraph, wires: &Wires, source: usize, unite: usize) -> String {
    let (source_name, unite_name) = (name_of(raw, source), name_of(raw, unite));
    let past = way(wires, wires.root, unite, source);
    match (way(wires, source, unite, usize::MAX), past) {
        (Some(_), Some(past)) => format!(
            "\"{source_name}\" must lie on every path to \"{unite_name}\", but {} goes past it; unite a node \
             that all branches come from",
            in_words(raw, &past)
        ),
        _ => format!("\"{source_name}\" does not lead to \"{unite_name}\""),
    }
}
