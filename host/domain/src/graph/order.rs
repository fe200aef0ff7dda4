//! The order of a graph's nodes: one root at which it begins, no cycle, and an order in which every
//! node comes after its parents.
//!
//! Not here: the regions of unites (`topology`).

use super::problems::Problems;
use super::raw::RawGraph;
use super::resolve::{describe_path, name_of};

/// Returns the nodes in an order in which each comes after its parents, or nothing if the edges
/// form a cycle.
pub fn sorted(next: &[Vec<usize>], parents: &[Vec<usize>]) -> Option<Vec<usize>> {
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
pub fn a_cycle(raw: &RawGraph, parents: &[Vec<usize>]) -> String {
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

/// Returns the one node at which the graph begins; records a problem if there is none, or another.
pub fn root(raw: &RawGraph, parents: &[Vec<usize>], problems: &mut Problems) -> Option<usize> {
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
