//! Building of a [`Graph`] from raw data: the one place where a graph is made.

use std::collections::BTreeMap;

use super::node_set::NodeSet;
use super::problems::Problems;
use super::raw::{RawGraph, RawNode};
use super::references::{self, References};
use super::resolve::{self, Places, Wires};
use super::topology::{self, Topology};
use super::visibility::{self, Seen};
use super::{Graph, Node, Unites};
use crate::ids::NodeIx;
use crate::json::FieldSet;
use crate::template::{Placeholder, Template};

/// Builds the graph of a raw template in which every node has a plugin and a
/// digest. Returns `None` if anything is wrong with it, and records the
/// problems.
pub fn build(raw: RawGraph, problems: &mut Problems) -> Option<Graph> {
    let places = Places::of(&raw, problems);
    let references = references::collect(&raw, &places, problems);
    let wires = resolve::wire(&raw, &places, problems)?;
    let topology = topology::of(&raw, &wires, problems)?;
    let seen = visibility::check(&raw, &wires, &topology, &references, problems);
    drop(places);
    if !problems.is_empty() {
        return None;
    }
    assemble(raw, references, wires, topology, seen)
}

/// Assembles a valid graph. Returns `None` only if a part is missing, for which
/// a problem is recorded.
fn assemble(
    raw: RawGraph,
    references: Vec<References>,
    wires: Wires,
    topology: Topology,
    seen: Seen,
) -> Option<Graph> {
    let mut united_by = vec![Vec::new(); raw.nodes.len()];
    for (unite, source) in topology::unites(&wires) {
        united_by[source].push(NodeIx(unite as u32));
    }
    let mut nodes = Vec::with_capacity(raw.nodes.len());
    for (place, (raw, references)) in raw.nodes.into_iter().zip(references).enumerate() {
        nodes.push(Node {
            unites: unites(&raw, place, &wires, &topology),
            identifier: raw.identifier?,
            node_name: raw.node_name?,
            plugin: raw.plugin?,
            digest: raw.digest?,
            inputs: raw
                .inputs
                .into_iter()
                .map(|(name, it)| Some((name, it?)))
                .collect::<Option<_>>()?,
            next: numbers(wires.next[place].iter().copied()),
            retry: raw.retry,
            limits: raw.limits,
            united_by: std::mem::take(&mut united_by[place]),
            scopes: numbers(topology.scopes[place].iter()),
            counts_in: numbers(topology.counts_in[place].iter().copied()),
            carries: of_bits(&seen.carries[place]),
            singles: of_bits(&seen.singles[place]),
            gathers: of_bits(&seen.gathers[place]),
            fields: BTreeMap::new(),
            store_keys: references.store_keys,
            wants_branches: references.branches,
        });
    }
    let places: BTreeMap<_, _> =
        (0..).map(NodeIx).zip(&nodes).map(|(ix, node)| (node.identifier.to_string(), ix)).collect();
    for node in &mut nodes {
        node.fields = fields(node, &places);
    }
    let root = NodeIx(wires.root as u32);
    Some(Graph { nodes, root, store: raw.store, limits: raw.limits, places, reach: topology.reach })
}

/// Returns the output fields that the inputs of a node name, grouped by the
/// node that returns them.
fn fields(node: &Node, places: &BTreeMap<String, NodeIx>) -> BTreeMap<NodeIx, FieldSet> {
    let mut paths: BTreeMap<NodeIx, Vec<&[String]>> = BTreeMap::new();
    for placeholder in node.inputs.values().flat_map(Template::placeholders) {
        if let Placeholder::Output { identifier, path } = placeholder
            && let Some(place) = places.get(identifier.as_str())
        {
            paths.entry(*place).or_default().push(path);
        }
    }
    paths.into_iter().map(|(place, paths)| (place, FieldSet::new(paths))).collect()
}

fn unites(raw: &RawNode, place: usize, wires: &Wires, topology: &Topology) -> Option<Unites> {
    let unites = raw.unites.as_ref()?;
    Some(Unites {
        source: NodeIx(wires.source[place]? as u32),
        strategy: unites.strategy,
        on_empty: unites.on_empty,
        region: of_bits(topology.region[place].as_ref()?),
    })
}

fn of_bits(bits: &NodeSet) -> Vec<NodeIx> {
    numbers(bits.iter())
}

fn numbers(places: impl Iterator<Item = usize>) -> Vec<NodeIx> {
    places.map(|place| NodeIx(place as u32)).collect()
}
