//! The reference's own graphs: their nodes, and the regions between them by recursion over the
//! edges.
//!
//! Not here: the crate's graphs, which share nothing with these.

use std::collections::BTreeSet;

/// A graph: nodes, by their indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The nodes, in the order of the template.
    pub nodes: Vec<Node>,
}

/// A node of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// The targets of its outputs, in the order of the edges.
    pub next: Vec<usize>,
    /// The unite's source and strategy, if it is a unite.
    pub unites: Option<Unites>,
    pub max_retries: u32,
    /// The nodes whose single output its inputs reference.
    pub singles: Vec<usize>,
}

/// The settings that make a node a unite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unites {
    /// The source: the node whose branches it joins.
    pub source: usize,
    /// The failures that it accepts.
    pub strategy: Strategy,
    /// True if it runs when nothing arrived and nothing failed.
    pub run_when_empty: bool,
}

/// A strategy: the failures that a unite accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// No failure.
    AllSuccess,
    /// Failures up to a maximum.
    AllDone(MaxFailed),
}

/// Maximum number of accepted failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxFailed {
    /// Any number.
    Any,
    /// Up to this number.
    Count(u32),
    /// Up to this percentage of the branches.
    Percent(u32),
}

impl Graph {
    /// Draws a graph from a line such as `A > B C; B > D; C > D; D(A)`: nodes, their targets, and
    /// the source of each unite.
    pub fn draw(text: &str) -> Self {
        let mut graph = Graph { nodes: Vec::new() };
        for line in text.split(';') {
            let (head, tail) = line.split_once('>').unwrap_or((line, ""));
            let (name, source) = match head.split_once('(') {
                Some((name, source)) => (name, Some(source.trim().trim_end_matches(')'))),
                None => (head, None),
            };
            let node = graph.node_index(name.trim());
            let next = tail.split_whitespace().map(|name| graph.node_index(name)).collect();
            graph.nodes[node].next = next;
            graph.nodes[node].unites = source.map(|source| Unites {
                source: graph.node_index(source),
                strategy: Strategy::AllSuccess,
                run_when_empty: false,
            });
        }
        graph
    }

    /// Returns the index of a name, which is added if it is new.
    pub fn node_index(&mut self, name: &str) -> usize {
        if let Some(found) = self.nodes.iter().position(|node| node.name == name) {
            return found;
        }
        self.nodes.push(Node { name: name.to_owned(), ..Node::default() });
        self.nodes.len() - 1
    }

    /// Returns the root: the node without an incoming edge.
    pub fn root(&self) -> usize {
        let is_root = |&at: &usize| self.nodes.iter().all(|node| !node.next.contains(&at));
        (0..self.nodes.len()).find(is_root).unwrap()
    }

    /// Returns the unites of a source.
    pub fn unites_of(&self, source: usize) -> Vec<usize> {
        let is_unite = |&at: &usize| {
            self.nodes[at].unites.as_ref().is_some_and(|unites| unites.source == source)
        };
        (0..self.nodes.len()).filter(is_unite).collect()
    }

    fn parents(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&at| self.nodes[at].next.contains(&node)).collect()
    }

    /// Returns the nodes reachable from a node by at least one edge, never through `barred`.
    fn reachable(&self, from: usize, avoided: Option<usize>) -> BTreeSet<usize> {
        let mut visited = BTreeSet::new();
        self.walk(from, avoided, &mut visited);
        visited
    }

    fn walk(&self, from: usize, avoided: Option<usize>, visited: &mut BTreeSet<usize>) {
        for &next in &self.nodes[from].next {
            if Some(next) != avoided && visited.insert(next) {
                self.walk(next, avoided, visited);
            }
        }
    }

    /// Returns whether every path from the root to `node` leads through `before`.
    fn dominates(&self, before: usize, node: usize) -> bool {
        let root = self.root();
        before != node && (before == root || !self.reachable(root, Some(before)).contains(&node))
    }

    /// Returns the nodes between a source and its unite.
    fn nodes_between(&self, source: usize, unite: usize) -> BTreeSet<usize> {
        let reaches_unite = |&at: &usize| self.reachable(at, None).contains(&unite);
        self.reachable(source, None).into_iter().filter(reaches_unite).collect()
    }

    /// Returns whether a unite's source is valid: an edge leads to the unite, the source lies on
    /// every path to it, and in no scope that has closed before.
    pub fn may_unite(&self, unite: usize, source: usize) -> bool {
        let closed = |other: usize| match &self.nodes[other].unites {
            Some(unites) => {
                self.nodes_between(unites.source, other).contains(&source)
                    && self.reachable(other, None).contains(&unite)
            }
            None => false,
        };
        !self.parents(unite).is_empty()
            && self.dominates(source, unite)
            && !(0..self.nodes.len()).any(closed)
    }

    /// Returns the nodes whose single output a node may reference: those on each path to it.
    pub fn visible(&self, node: usize) -> BTreeSet<usize> {
        if let Some(unites) = &self.nodes[node].unites {
            return self.visible(unites.source);
        }
        let known = |parent: usize| {
            let mut known = self.visible(parent);
            known.insert(parent);
            known
        };
        let mut all = self.parents(node).into_iter().map(known);
        let first = all.next().unwrap_or_default();
        all.fold(first, |common, other| common.intersection(&other).copied().collect())
    }
}

/// The shape of a graph, computed beforehand.
pub struct Shape {
    /// The nodes between each unite and its source; empty for other nodes.
    pub region: Vec<BTreeSet<usize>>,
    /// The unites in which each node counts.
    pub counts_in: Vec<Vec<usize>>,
}

impl Shape {
    /// Computes the shape of a graph.
    pub fn from_graph(graph: &Graph) -> Self {
        let all = 0..graph.nodes.len();
        let region: Vec<_> = all
            .clone()
            .map(|at| match &graph.nodes[at].unites {
                Some(unites) => graph.nodes_between(unites.source, at),
                None => BTreeSet::new(),
            })
            .collect();
        let innermost = |node: usize, unite: usize| {
            let inner =
                |&other: &usize| region[unite].contains(&other) && region[other].contains(&node);
            region[unite].contains(&node) && !all.clone().any(|other| inner(&other))
        };
        let counts_in = all
            .clone()
            .map(|node| all.clone().filter(|&unite| innermost(node, unite)).collect())
            .collect();
        Shape { region, counts_in }
    }

    /// Returns whether a failure at one node leaves a gap at another one below: whether a path
    /// between them passes no unite that absorbs the failure.
    pub fn leaves_gap(&self, graph: &Graph, failed: usize, node: usize) -> bool {
        self.stops_from(graph, failed, failed, node)
    }

    fn stops_from(&self, graph: &Graph, failed: usize, at: usize, node: usize) -> bool {
        graph.nodes[at].next.iter().any(|&next| {
            !self.region[next].contains(&failed)
                && (next == node || self.stops_from(graph, failed, next, node))
        })
    }
}
