//! Validation of a template against the catalog of its namespace. Every node
//! name is resolved to the newest upload of one plugin, and all problems are
//! reported together.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::build::build;
use super::problems::{Problems, member};
use super::raw::{self, Form, RawGraph, RawNode};
use super::{Graph, Problem, input_check, limits};
use crate::budget::Budget;
use crate::grant::Grants;
use crate::ids::{Digest, Name};
use crate::limits::Limits;
use crate::node::{DescribedNode, NodeDescription};

/// The catalog: the nodes that the plugins of a namespace export.
pub trait Catalog {
    /// Returns the newest upload of every plugin that exports a node of this
    /// name.
    fn exporters(&self, node: &Name) -> Vec<Exporter>;
    /// Returns the names of all nodes, for suggestions.
    fn node_names(&self) -> Vec<Name>;
}

/// The newest upload of a plugin that exports a node.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// The plugin's name.
    pub plugin: Name,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// The node as the plugin describes it.
    pub node: Arc<DescribedNode>,
    /// The interfaces that the plugin imports.
    pub imports: Arc<[String]>,
    /// The plugin's grants.
    pub grants: Arc<Grants>,
}

/// The context in which a template is validated.
pub struct Context<'a> {
    /// The namespace of the graph.
    pub namespace: &'a Name,
    /// The nodes available in the namespace.
    pub catalog: &'a dyn Catalog,
    /// The secrets that this graph already has.
    pub secrets: &'a BTreeSet<Name>,
    /// The limits of the host and the namespace for an attempt.
    pub limits: &'a Limits,
    /// The budget for checks of literal values.
    pub budget: &'a dyn Budget,
}

/// A template that was found valid.
#[derive(Clone, PartialEq)]
pub struct Applied {
    /// The graph. It holds no secret.
    pub graph: Graph,
    /// The secrets that the template sets; `None` for a secret that it removes.
    pub secrets: BTreeMap<Name, Option<String>>,
}

/// Returns the node names that a template refers to. The catalog must know them
/// before validation.
pub fn named_nodes(template: &Value) -> BTreeSet<Name> {
    let nodes = template.get("nodes").and_then(Value::as_array).into_iter().flatten();
    let named = nodes.take(raw::MAX_NODES).filter_map(|node| node.get("node_name")?.as_str());
    named.filter_map(|name| name.parse().ok()).collect()
}

/// Validates a template and turns it into a graph.
///
/// # Errors
/// All problems found, at least one.
pub fn validate(template: &Value, context: &Context<'_>) -> Result<Applied, Vec<Problem>> {
    let mut problems = Problems::default();
    let Some(mut raw) = raw::read(template, &Form::Template(context.namespace), &mut problems)
    else {
        return Err(problems.into_list());
    };
    let exporters = resolve(&mut raw, context.catalog, &mut problems);
    let described: Vec<_> =
        exporters.iter().map(|found| found.as_ref().map(|found| &*found.node)).collect();
    input_check::check(&raw, &described, context.budget, &mut problems);
    let descriptions: Vec<_> =
        described.iter().map(|node| node.map(|node| &node.description)).collect();
    check_secrets(&raw, &descriptions, context.secrets, &mut problems);
    check_grants(&raw, &exporters, context.namespace, &mut problems);
    limits::check(&raw, context.limits, &mut problems);
    let secrets = std::mem::take(&mut raw.secrets);
    let graph = build(raw, &mut problems);
    problems.or(graph.map(|graph| Applied { graph, secrets }))
}

/// Finds the exporter of every node, and writes it into the node.
fn resolve(
    raw: &mut RawGraph,
    catalog: &dyn Catalog,
    problems: &mut Problems,
) -> Vec<Option<Exporter>> {
    let mut known: BTreeMap<Name, Vec<Exporter>> = BTreeMap::new();
    let names = LazyCell::new(|| catalog.node_names());
    let mut all = Vec::with_capacity(raw.nodes.len());
    for node in &mut raw.nodes {
        let exporter = node.node_name.clone().and_then(|name| {
            let exporters = known.entry(name.clone()).or_insert_with(|| catalog.exporters(&name));
            choose(node, &name, exporters, || &*names, problems)
        });
        if let Some(exporter) = &exporter {
            node.plugin = Some(exporter.plugin.clone());
            node.digest = Some(exporter.digest);
        }
        all.push(exporter);
    }
    all
}

fn choose<'a>(
    node: &RawNode,
    name: &Name,
    exporters: &[Exporter],
    names: impl FnOnce() -> &'a Vec<Name>,
    problems: &mut Problems,
) -> Option<Exporter> {
    let plugins = || exporters.iter().map(|exporter| exporter.plugin.as_str());
    match (exporters, &node.plugin) {
        ([], _) => {
            problems.add_unknown(
                format!("{}.node_name", node.path),
                format_args!("no plugin exports a node \"{name}\""),
                name.as_str(),
                names().iter().map(Name::as_str),
                "upload the plugin that does",
            );
            None
        }
        ([only], None) => Some(only.clone()),
        (_, None) => {
            let plugins: Vec<_> = plugins().collect();
            let message = format!(
                "several plugins export a node \"{name}\": {}; say which, as \"plugin\"",
                plugins.join(", ")
            );
            problems.add(node.path.clone(), message);
            None
        }
        (_, Some(plugin)) => {
            let found = exporters.iter().find(|exporter| exporter.plugin == *plugin);
            if found.is_none() {
                problems.add_unknown(
                    format!("{}.plugin", node.path),
                    format_args!("the plugin \"{plugin}\" does not export a node \"{name}\""),
                    plugin.as_str(),
                    plugins(),
                    format_args!("these do: {}", plugins().collect::<Vec<_>>().join(", ")),
                );
            }
            found.cloned()
        }
    }
}

/// Checks that every capability that a node asks for is granted to its plugin.
fn check_grants(
    raw: &RawGraph,
    exporters: &[Option<Exporter>],
    namespace: &Name,
    problems: &mut Problems,
) {
    for (node, exporter) in raw.nodes.iter().zip(exporters) {
        let Some(Exporter { plugin, node: described, imports, grants, .. }) = exporter else {
            continue;
        };
        let described = &described.description;
        for missing in grants.missing(imports, &described.secrets) {
            let (name, remedy) = (&described.name, missing.remedy(namespace, plugin));
            problems.add(
                node.path.clone(),
                format!(
                    "\"{name}\" of the plugin \"{plugin}\" cannot be used: {missing}; an \
                    operator grants it by `{remedy}`"
                ),
            );
        }
    }
}

/// Checks that every secret that a node declares is set. A secret set here must
/// be declared by a node, because a secret that no node can read is not kept.
fn check_secrets(
    raw: &RawGraph,
    descriptions: &[Option<&NodeDescription>],
    set: &BTreeSet<Name>,
    problems: &mut Problems,
) {
    let mut declared = BTreeSet::new();
    for (node, description) in raw.nodes.iter().zip(descriptions) {
        for secret in description.iter().flat_map(|description| &description.secrets) {
            declared.insert(secret);
            let secret_value = raw.secrets.get(secret);
            if secret_value.map_or_else(|| set.contains(secret), Option::is_some) {
                continue;
            }
            let name = node.node_name.as_ref().map_or("?", Name::as_str);
            let path = node.path.clone();
            if secret_value.is_some() {
                let message = format!(
                    "\"{name}\" reads the secret \"{secret}\", which this removes; leave it, or remove the node"
                );
                problems.add(path, message);
                continue;
            }
            problems.add_unknown(
                path,
                format_args!("\"{name}\" reads the secret \"{secret}\", which is not set"),
                secret.as_str(),
                raw.secrets.keys().map(Name::as_str),
                format_args!("add \"{secret}\" to \"secrets\""),
            );
        }
    }
    if descriptions.iter().any(Option::is_none) {
        // An unknown node may declare any secret.
        return;
    }
    let secret_value = raw.secrets.iter().filter(|(_, value)| value.is_some());
    for (name, _) in secret_value.filter(|(name, _)| !declared.contains(name)) {
        problems.add_unknown(
            member("$.secrets", name.as_str()),
            format_args!("no node of this graph declares the secret \"{name}\""),
            name.as_str(),
            declared.iter().map(|secret| secret.as_str()),
            "leave it out",
        );
    }
}
