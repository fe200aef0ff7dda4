//! Random graphs, valid by the reference's rules: small, with many crossing edges and unites. They
//! shrink by losing nodes.

use exosphere_domain::testing::SeededRng;
use proptest::prelude::*;

use crate::shape::{Graph, MaxFailed, Node, Strategy as Ends, Unites};

/// The random ingredients of one node, before its possible neighbours are known.
#[derive(Debug, Clone)]
struct Seed {
    parents: Vec<u8>,
    joins_all: bool,
    unites: Option<(u8, Ends, bool)>,
    max_retries: u32,
}

/// Returns valid graphs of up to `max` nodes.
pub fn graphs(max: usize) -> impl Strategy<Value = Graph> {
    (proptest::collection::vec(seeds(), 2..max), any::<u64>())
        .prop_map(|(seeds, order)| shuffled(grown(&seeds), order))
}

/// Returns graphs of which most are invalid: their edges and unites are arbitrary.
pub fn arbitrary_graphs(max: usize) -> impl Strategy<Value = Graph> {
    let seeds = (proptest::collection::vec(any::<u8>(), 1..3), proptest::option::of(any::<u8>()));
    proptest::collection::vec(seeds, 1..max).prop_map(|nodes| {
        let mut graph = Graph { nodes: vec![named(0)] };
        for (at, (parents, unites)) in (1..).zip(nodes) {
            graph.nodes.push(named(at));
            parents
                .into_iter()
                .for_each(|parent| add_edge(&mut graph, usize::from(parent) % at, at));
            graph.nodes[at].unites = unites.map(|source| Unites {
                source: usize::from(source) % at,
                strategy: Ends::AllSuccess,
                run_when_empty: false,
            });
        }
        graph
    })
}

fn seeds() -> impl Strategy<Value = Seed> {
    let ends = prop_oneof![
        2 => Just(Ends::AllSuccess),
        2 => Just(Ends::AllDone(MaxFailed::Any)),
        1 => (0u32..3).prop_map(|max| Ends::AllDone(MaxFailed::Count(max))),
        1 => prop::sample::select(vec![0, 30, 50, 100])
            .prop_map(|max| Ends::AllDone(MaxFailed::Percent(max))),
    ];
    let unites = proptest::option::weighted(0.5, (any::<u8>(), ends, any::<bool>()));
    let parents = proptest::collection::vec(any::<u8>(), 1..4);
    let joins_all = proptest::bool::weighted(0.25);
    (parents, joins_all, unites, 0u32..3).prop_map(|(parents, joins_all, unites, max_retries)| {
        Seed { parents, joins_all, unites, max_retries }
    })
}

fn named(at: usize) -> Node {
    Node { name: format!("n{at}"), ..Node::default() }
}

fn add_edge(graph: &mut Graph, from: usize, to: usize) {
    if !graph.nodes[from].next.contains(&to) {
        graph.nodes[from].next.push(to);
    }
}

/// Grows a graph node by node, each after some existing ones. A node that should unite does so if
/// any source is possible.
fn grown(seeds: &[Seed]) -> Graph {
    let mut graph = Graph { nodes: vec![named(0)] };
    for (at, seed) in (1..).zip(seeds) {
        graph.nodes.push(Node { max_retries: seed.max_retries, ..named(at) });
        let ends: Vec<_> = (0..at).filter(|&from| graph.nodes[from].next.is_empty()).collect();
        for &choice in &seed.parents {
            let choice = usize::from(choice);
            let from = match choice % 2 {
                0 => choice / 2 % at,
                _ => ends[choice / 2 % ends.len()],
            };
            add_edge(&mut graph, from, at);
        }
        if seed.joins_all {
            ends.iter().for_each(|&from| add_edge(&mut graph, from, at));
        }
        let Some((choice, strategy, run_when_empty)) = seed.unites else { continue };
        let sources: Vec<_> = (0..at).filter(|&source| graph.may_unite(at, source)).collect();
        if let Some(&source) = sources.get(usize::from(choice) % sources.len().max(1)) {
            graph.nodes[at].unites = Some(Unites { source, strategy, run_when_empty });
        }
    }
    graph
}

/// Returns the same graph with its nodes, edges and references in another order.
fn shuffled(graph: Graph, order: u64) -> Graph {
    let mut rng = SeededRng::new(order);
    let mut indices: Vec<_> = (0..graph.nodes.len()).collect();
    if order % 2 == 1 {
        rng.shuffle(&mut indices);
    }
    let mut nodes = vec![Node::default(); indices.len()];
    for (at, mut node) in graph.nodes.into_iter().enumerate() {
        node.next.iter_mut().for_each(|next| *next = indices[*next]);
        rng.shuffle(&mut node.next);
        if let Some(unites) = &mut node.unites {
            unites.source = indices[unites.source];
        }
        nodes[indices[at]] = node;
    }
    let mut graph = Graph { nodes };
    for at in 0..graph.nodes.len() {
        let seen = graph.visible(at).into_iter().filter(|_| rng.percent(40)).collect();
        graph.nodes[at].singles = seen;
    }
    graph
}
