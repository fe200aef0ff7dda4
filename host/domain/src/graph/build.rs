//! Builds a [`Graph`] from raw data: the one place where a graph is created.

use std::collections::BTreeMap;

use super::node_set::NodeSet;
use super::problems::Problems;
use super::raw::{RawGraph, RawNode};
use super::references::{self, References};
use super::resolve::{self, NodeIndex, ResolvedGraph};
use super::topology::{self, Topology};
use super::visibility::{self, ReferenceKinds};
use super::{Graph, Node, Unites};
use crate::ids::NodeIx;
use crate::json::FieldSet;
use crate::template::{Placeholder, Template};

/// Builds the graph of a raw template in which every node has a plugin and a
/// digest. Returns `None` if anything is wrong with it, and records the
/// problems.
pub fn build(raw: RawGraph, problems: &mut Problems) -> Option<Graph> {
    let index = NodeIndex::new(&raw, problems);
    let references = references::collect(&raw, &index, problems);
    let resolved = resolve::resolve(&raw, &index, problems)?;
    let topology = topology::compute(&raw, &resolved, problems)?;
    let seen = visibility::check(&raw, &resolved, &topology, &references, problems);
    drop(index);
    if !problems.is_empty() {
        return None;
    }
    assemble(raw, references, resolved, topology, seen)
}

/// Assembles a valid graph. Returns `None` only if a part is missing, for which
/// a problem is recorded.
fn assemble(
    raw: RawGraph,
    references: Vec<References>,
    resolved: ResolvedGraph,
    topology: Topology,
    seen: ReferenceKinds,
) -> Option<Graph> {
    let mut united_by = vec![Vec::new(); raw.nodes.len()];
    for (unite, source) in topology::unites(&resolved) {
        united_by[source].push(NodeIx(unite as u32));
    }
    let mut nodes = Vec::with_capacity(raw.nodes.len());
    for (ix, (raw, references)) in raw.nodes.into_iter().zip(references).enumerate() {
        nodes.push(Node {
            unites: unites(&raw, ix, &resolved, &topology),
            identifier: raw.identifier?,
            node_name: raw.node_name?,
            plugin: raw.plugin?,
            digest: raw.digest?,
            inputs: raw
                .inputs
                .into_iter()
                .map(|(name, it)| Some((name, it?)))
                .collect::<Option<_>>()?,
            next: node_indices(resolved.next[ix].iter().copied()),
            retry: raw.retry,
            limits: raw.limits,
            united_by: std::mem::take(&mut united_by[ix]),
            scopes: node_indices(topology.scopes[ix].iter()),
            counts_in: node_indices(topology.counts_in[ix].iter().copied()),
            carries: node_indices_of(&seen.carries[ix]),
            singles: node_indices_of(&seen.singles[ix]),
            gathers: node_indices_of(&seen.gathers[ix]),
            fields: BTreeMap::new(),
            store_keys: references.store_keys,
            wants_branches: references.branches,
        });
    }
    let by_identifier: BTreeMap<_, _> =
        (0..).map(NodeIx).zip(&nodes).map(|(ix, node)| (node.identifier.to_string(), ix)).collect();
    for node in &mut nodes {
        node.fields = fields(node, &by_identifier);
    }
    let root = NodeIx(resolved.root as u32);
    Some(Graph {
        nodes,
        root,
        store: raw.store,
        limits: raw.limits,
        by_identifier,
        reach: topology.reach,
    })
}

/// Returns the output fields that the inputs of a node name, grouped by the
/// node that returns them.
fn fields(node: &Node, by_identifier: &BTreeMap<String, NodeIx>) -> BTreeMap<NodeIx, FieldSet> {
    let mut paths: BTreeMap<NodeIx, Vec<&[String]>> = BTreeMap::new();
    for placeholder in node.inputs.values().flat_map(Template::placeholders) {
        if let Placeholder::Output { identifier, path } = placeholder
            && let Some(ix) = by_identifier.get(identifier.as_str())
        {
            paths.entry(*ix).or_default().push(path);
        }
    }
    paths.into_iter().map(|(ix, paths)| (ix, FieldSet::new(paths))).collect()
}

fn unites(
    raw: &RawNode,
    ix: usize,
    resolved: &ResolvedGraph,
    topology: &Topology,
) -> Option<Unites> {
    let unites = raw.unites.as_ref()?;
    Some(Unites {
        source: NodeIx(resolved.source[ix]? as u32),
        strategy: unites.strategy,
        on_empty: unites.on_empty,
        region: node_indices_of(topology.region[ix].as_ref()?),
    })
}

fn node_indices_of(set: &NodeSet) -> Vec<NodeIx> {
    node_indices(set.iter())
}

fn node_indices(indices: impl Iterator<Item = usize>) -> Vec<NodeIx> {
    indices.map(|ix| NodeIx(ix as u32)).collect()
}
