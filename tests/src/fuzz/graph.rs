//! Target `graph`: the template of a graph, as JSON text.
//!
//! Promises: equal templates have equal answers; a rejection has problems, each with a path and a
//! message; a graph is equal after a round trip through JSON.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use exosphere_domain::budget::StepBudget;
use exosphere_domain::grant::Grants;
use exosphere_domain::graph::{Catalog, Context, Exporter, Graph, Problem, validate};
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::limits::Limits;
use exosphere_domain::node::{DescribedNode, parse_description};
use serde_json::Value;

use super::{Acceptance, Mutator, Target};
use crate::checkout;

/// The nodes that graphs may use, as some plugins of this project describe them.
const CATALOG: &str = include_str!("../../fuzz/catalog.json");

/// Seeds, and a namespace with a few plugins.
pub struct Graphs {
    seeds: Vec<Value>,
    namespace: Name,
    catalog: FakeCatalog,
    limits: Limits,
}

struct FakeCatalog {
    nodes: Vec<(Name, Arc<DescribedNode>)>,
    imports: Arc<[String]>,
    grants: Arc<Grants>,
}

impl Catalog for FakeCatalog {
    fn exporters(&self, node: &Name) -> Vec<Exporter> {
        let exported = self.nodes.iter().filter(|(_, found)| found.description.name == *node);
        let exporter = |(plugin, node): &(Name, Arc<DescribedNode>)| Exporter {
            plugin: plugin.clone(),
            digest: Digest::from_content(plugin.as_str().as_bytes()),
            node: node.clone(),
            imports: self.imports.clone(),
            grants: self.grants.clone(),
        };
        exported.map(exporter).collect()
    }

    fn node_names(&self) -> Vec<Name> {
        self.nodes.iter().map(|(_, node)| node.description.name.clone()).collect()
    }
}

impl Graphs {
    pub(super) fn new() -> Result<Graphs> {
        let mut seeds = Vec::new();
        for text in super::seeds("graph")? {
            seeds.push(serde_json::from_slice(&text)?);
        }
        // The graphs that the cases run, too.
        let mut folders: Vec<_> = std::fs::read_dir(checkout().join("tests/cases"))?
            .map(|entry| Ok(entry?.path().join("graph.json")))
            .collect::<Result<_>>()?;
        folders.sort();
        for file in folders {
            seeds.push(serde_json::from_slice(&std::fs::read(file)?)?);
        }
        let catalog: serde_json::Map<String, Value> = serde_json::from_str(CATALOG)?;
        let mut nodes = Vec::new();
        for (plugin, description) in catalog {
            let (text, budget) = (description.to_string(), StepBudget::new(u64::MAX));
            let described = parse_description(&text, &budget).ok().context(plugin.clone())?;
            for node in described {
                nodes.push((plugin.parse()?, Arc::new(node.into())));
            }
        }
        let grants = serde_json::from_str(r#"{"secrets": ["token"]}"#)?;
        let catalog = FakeCatalog { nodes, imports: Arc::default(), grants: Arc::new(grants) };
        Ok(Graphs { seeds, namespace: "default".parse()?, catalog, limits: Limits::default() })
    }
}

impl Target for Graphs {
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8> {
        let mut template = mutator.pick(&self.seeds).clone();
        let donor = mutator.pick(&self.seeds);
        mutator.mutate_json(&mut template, donor);
        let mut text = template.to_string().into_bytes();
        if mutator.once_in(20) {
            mutator.mutate_bytes(&mut text, donor.to_string().as_bytes());
        }
        text
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance> {
        let Ok(template) = serde_json::from_slice::<Value>(input) else {
            return Ok(Acceptance::Rejected);
        };
        let secrets = BTreeSet::new();
        let context = Context {
            namespace: &self.namespace,
            catalog: &self.catalog,
            secrets: &secrets,
            limits: &self.limits,
            budget: &StepBudget::new(u64::MAX),
        };
        let applied = match (validate(&template, &context), validate(&template, &context)) {
            (Err(problems), second) => {
                ensure!(second.err().as_ref() == Some(&problems), "the problems differ");
                ensure_paths(&problems)?;
                return Ok(Acceptance::Rejected);
            }
            (Ok(applied), Ok(second)) => {
                ensure!(applied == second, "the graphs differ");
                applied
            }
            (Ok(_), Err(_)) => {
                anyhow::bail!("the graph is valid, and invalid when validated again")
            }
        };
        let round_trip = applied.graph.to_json();
        // The database stores a graph as text, too.
        let read = serde_json::from_str(&round_trip.to_string())?;
        match Graph::from_json(&read) {
            Ok(graph) => {
                ensure!(graph == applied.graph, "the graph changed in a round trip: {round_trip}")
            }
            Err(problems) => anyhow::bail!("the stored graph cannot be read: {problems:?}"),
        }
        Ok(Acceptance::Accepted)
    }
}

fn ensure_paths(problems: &[Problem]) -> Result<()> {
    ensure!(!problems.is_empty(), "the graph was rejected without a problem");
    for problem in problems {
        ensure!(problem.path.starts_with('$'), "a problem has no path: {problem:?}");
        ensure!(!problem.message.is_empty(), "a problem has no message: {problem:?}");
    }
    Ok(())
}
