//! Visibility: the outputs that a node may refer to. An ordinary node sees the
//! outputs that all edges into it bring: the parent's, and those that the
//! parent sees. A unite sees the outputs that its united node sees. It gathers
//! the outputs of that node and its region.
//!
//! Not here: which fields an output has; see [`super::input_check`].

use super::node_set::NodeSet;
use super::problems::Problems;
use super::raw::RawGraph;
use super::references::References;
use super::resolve::{ResolvedGraph, describe_path, name_of};
use super::topology::{Topology, shortest_path, unites};

/// The references of all nodes, by kind.
pub struct ReferenceKinds {
    /// For each node, the nodes whose single output on its branch it refers to.
    pub singles: Vec<NodeSet>,
    /// For each node, the nodes whose outputs in the scope it gathers.
    pub gathers: Vec<NodeSet>,
    /// For each node, the nodes whose single output a state there must know: those that it
    /// refers to, and those that the nodes continuing its branch refer to.
    pub carries: Vec<NodeSet>,
}

/// Classifies all references; records a problem for each that is not visible.
pub fn check(
    raw: &RawGraph,
    resolved: &ResolvedGraph,
    topology: &Topology,
    references: &[References],
    problems: &mut Problems,
) -> ReferenceKinds {
    let size = resolved.next.len();
    let visible = visible_outputs(resolved);
    let mut singles = vec![NodeSet::empty(size); size];
    let mut gathers = vec![NodeSet::empty(size); size];
    let diagnoser = Diagnoser { raw, resolved, topology, visible: &visible };
    for (node, references) in references.iter().enumerate() {
        for (target, path) in &references.outputs {
            if visible[node].contains(*target) {
                singles[node].insert(*target);
            } else if diagnoser.is_gathered_by(*target, node) {
                gathers[node].insert(*target);
            } else {
                problems.add_found(path.clone(), || diagnoser.explain(*target, node));
            }
        }
    }
    let carries = carries(resolved, &singles);
    ReferenceKinds { singles, gathers, carries }
}

fn visible_outputs(resolved: &ResolvedGraph) -> Vec<NodeSet> {
    let size = resolved.next.len();
    let mut sees = vec![NodeSet::empty(size); size];
    for &node in &resolved.order {
        if let Some(source) = resolved.source[node] {
            sees[node] = sees[source].clone();
            continue;
        }
        // The outputs that an edge brings: the parent's own, and those that the
        // parent sees.
        let visible_along = |&parent: &usize| {
            let mut brings = sees[parent].clone();
            brings.insert(parent);
            brings
        };
        let mut all = resolved.parents[node].iter().map(visible_along);
        let Some(mut common) = all.next() else { continue };
        all.for_each(|other| common.intersect_with(&other));
        sees[node] = common;
    }
    sees
}

fn carries(resolved: &ResolvedGraph, singles: &[NodeSet]) -> Vec<NodeSet> {
    let mut united_by = vec![Vec::new(); resolved.next.len()];
    unites(resolved).for_each(|(unite, source)| united_by[source].push(unite));
    let mut carries = singles.to_vec();
    for &node in resolved.order.iter().rev() {
        let mut needed = carries[node].clone();
        let ordinary = resolved.next[node].iter().filter(|&&next| resolved.source[next].is_none());
        for &next in ordinary.chain(&united_by[node]) {
            needed.union_with(&carries[next]);
        }
        needed.remove(node);
        carries[node] = needed;
    }
    carries
}

/// Explains why a reference is not visible.
struct Diagnoser<'a> {
    raw: &'a RawGraph,
    resolved: &'a ResolvedGraph,
    topology: &'a Topology,
    visible: &'a [NodeSet],
}

impl Diagnoser<'_> {
    /// Returns whether a unite gathers a node.
    fn is_gathered_by(&self, target: usize, unite: usize) -> bool {
        self.resolved.source[unite] == Some(target)
            || self.topology.region[unite].as_ref().is_some_and(|region| region.contains(target))
    }

    fn explain(&self, target: usize, node: usize) -> String {
        let (target_name, node_name) = (name_of(self.raw, target), name_of(self.raw, node));
        if target == node {
            return format!(
                "\"{node_name}\" cannot refer to its own outputs; name an earlier node"
            );
        }
        if self.topology.reach[node].contains(target) {
            return format!(
                "\"{target_name}\" comes after \"{node_name}\", so there is no output of it yet"
            );
        }
        if !self.topology.reach[target].contains(node) {
            return format!(
                "\"{target_name}\" does not lead to \"{node_name}\"; refer to a node on the way to it"
            );
        }
        if let Some(path) = shortest_path(self.resolved, self.resolved.root, node, target) {
            return format!(
                "\"{target_name}\" has no output on the path {}; refer to a node that lies on every path",
                describe_path(self.raw, &path)
            );
        }
        let (unite, from_there) = self.closing(target, node);
        // Any path to the unite will do, because the branches end there in each case.
        let mut path = shortest_path(self.resolved, target, unite, usize::MAX).unwrap_or_default();
        path.extend(from_there);
        let unite = name_of(self.raw, unite);
        format!(
            "\"{target_name}\" is missing on the path {}: its branches end in the unite \"{unite}\"; return \
             it from \"{unite}\" and refer to that",
            describe_path(self.raw, &path)
        )
    }

    /// Finds the unite that closes the scope of `target`, a node on every path
    /// to `node` whose output `node` cannot see. Also returns the nodes after
    /// that unite on a path to `node`, none of which sees the output.
    fn closing(&self, target: usize, node: usize) -> (usize, Vec<usize>) {
        let mut at = node;
        // Collected from the end, because the path is walked backwards.
        let mut reversed = Vec::new();
        // Every step leads to an earlier node that does not see the target.
        for _ in 0..self.resolved.next.len() {
            if self.is_gathered_by(target, at) {
                break;
            }
            let lacks_output =
                |parent: &&usize| **parent != target && !self.visible[**parent].contains(target);
            let before = match self.resolved.source[at] {
                // A unite sees what its source sees. The source is on every
                // path to the region between, so no node of the region sees
                // more.
                Some(source) => source,
                None => self.resolved.parents[at].iter().find(lacks_output).copied().unwrap_or(at),
            };
            let step = shortest_path(self.resolved, before, at, usize::MAX).unwrap_or_default();
            reversed.extend(step.iter().skip(1).rev());
            at = before;
        }
        reversed.reverse();
        (at, reversed)
    }
}
