//! What people put in: plugins and graphs. Everything is checked at the door,
//! and a refusal names all that is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::grant::Grants;
use exosphere_domain::graph::{Applied, Catalog, Context, Exporter, Graph, validate};
use exosphere_domain::ids::Name;
use exosphere_store::{
    GraphEntry, GraphRow, NewPlugin, Page, Part, PluginEntry, PluginRow, Pushed,
};
use serde_json::Value;

use crate::Host;
use crate::admission::Remarks;
use crate::error::Error;
use crate::reading::AnswerPlace;

/// A plugin as it comes in.
#[derive(Debug)]
pub struct PluginUpload {
    /// Whose it is to be.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// A label, for people.
    pub version: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What became of an upload.
#[derive(Debug)]
pub struct Uploaded {
    /// The plugin as it is stored.
    pub plugin: PluginRow,
    /// Whether it was new.
    pub new: bool,
    /// What to know of it.
    pub remarks: Remarks,
}

/// What became of a graph.
#[derive(Debug)]
pub struct GraphApplied {
    /// Its name.
    pub name: Name,
    /// The number of its current revision.
    pub revision: i64,
    /// The digest of that revision.
    pub digest: String,
    /// Whether it is a new one.
    pub changed: bool,
    /// The graph, every node resolved.
    pub graph: Graph,
}

/// The longest label of a plugin's version, in characters.
const MAX_VERSION: usize = 64;

impl Host {
    /// Admits a plugin and stores it.
    pub async fn push_plugin(&self, upload: PluginUpload) -> Result<Uploaded, Error> {
        let parts = &self.parts;
        let PluginUpload { namespace, name, version, bytes } = upload;
        if version.chars().count() > MAX_VERSION || version.chars().any(char::is_control) {
            let words =
                format!("use at most {MAX_VERSION} characters, none of them a control character");
            return Err(Error::invalid("the version", "version", words));
        }
        let candidate = parts.sandbox.check(namespace.as_str(), &bytes).await?;
        let grants = self.grants_of(&namespace, &name).await?.grants;
        let checked =
            self.checked((&namespace, &name), &grants, candidate.admitted.clone(), bytes.len())?;
        let new = NewPlugin {
            namespace: namespace.clone(),
            name: name.clone(),
            version,
            digest: checked.digest,
            bytes,
            nodes: checked.nodes,
            imports: checked.imports,
            compile_ms: i64::try_from(checked.compile.as_millis()).unwrap_or(i64::MAX),
        };
        let pushed = parts.store.push_plugin(new, parts.clock.now()).await?;
        // Only now: what is refused or could not be stored leaves no code.
        parts.sandbox.adopt(candidate).await;
        let plugin = self.plugin(&namespace, name.as_str()).await?;
        Ok(Uploaded { plugin, new: pushed == Pushed::New, remarks: checked.remarks })
    }

    /// Lists the plugins of a namespace, each with its newest upload.
    pub async fn plugins(&self, namespace: &Name, part: &Part) -> Result<Page<PluginEntry>, Error> {
        Ok(self.parts.store.list_plugins(namespace, part).await?)
    }

    /// A plugin by its name or digest.
    pub async fn plugin(&self, namespace: &Name, name: &str) -> Result<PluginRow, Error> {
        let found = self.parts.store.plugin(namespace, name).await?;
        found.ok_or_else(|| Error::not_found("plugin", name))
    }

    /// Whether a template is a valid graph here, as it would be applied.
    pub async fn validate_graph(
        &self,
        namespace: &Name,
        name: &Name,
        template: &Value,
    ) -> Result<Graph, Error> {
        Ok(self.valid(namespace, name, template).await?.graph)
    }

    /// Makes a template the current revision of a graph.
    pub async fn apply_graph(
        &self,
        namespace: &Name,
        name: &Name,
        template: &Value,
    ) -> Result<GraphApplied, Error> {
        let Applied { graph, secrets } = self.valid(namespace, name, template).await?;
        let now = self.parts.clock.now();
        let applied = self.parts.store.apply_graph(namespace, name, &graph, &secrets, now).await;
        self.parts.graphs.forget(namespace, name);
        let applied = applied?;
        Ok(GraphApplied {
            name: name.clone(),
            revision: applied.revision.number,
            digest: applied.revision.digest,
            changed: applied.changed,
            graph,
        })
    }

    async fn valid(
        &self,
        namespace: &Name,
        name: &Name,
        template: &Value,
    ) -> Result<Applied, Error> {
        let store = &self.parts.store;
        let grants = store.grants(namespace).await?;
        let catalog = Uploads::of(store.plugins(namespace).await?, grants);
        let secrets = store.secret_names(namespace, name).await?.into_iter().collect();
        let limits = self.namespace(namespace).await?.effective;
        let context = Context { namespace, catalog: &catalog, secrets: &secrets, limits: &limits };
        validate(template, &context)
            .map_err(|problems| Error::Invalid { what: format!("the graph {name}"), problems })
    }

    /// Lists the graphs of a namespace.
    pub async fn graphs(&self, namespace: &Name, part: &Part) -> Result<Page<GraphEntry>, Error> {
        Ok(self.parts.store.list_graphs(namespace, part).await?)
    }

    /// Reads a graph, with the place of the answer if that is large.
    pub async fn graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<(GraphRow, Option<AnswerPlace>), Error> {
        let store = &self.parts.store;
        let bytes = store.graph_size(namespace, name).await?;
        let read = store.graph(namespace, name);
        let (found, place) = self.parts.large.read(namespace, bytes, read).await?;
        Ok((found.ok_or_else(|| Error::not_found("graph", name))?, place))
    }
}

/// The newest uploads of a namespace, by the nodes that they export.
struct Uploads(BTreeMap<Name, Vec<Exporter>>);

impl Uploads {
    fn of(plugins: Vec<PluginRow>, mut grants: BTreeMap<Name, Grants>) -> Self {
        let mut uploads: BTreeMap<Name, Vec<Exporter>> = BTreeMap::new();
        for plugin in plugins {
            let grants = Arc::new(grants.remove(&plugin.name).unwrap_or_default());
            let imports: Arc<[String]> = plugin.imports.into();
            for node in &plugin.nodes {
                uploads.entry(node.name.clone()).or_default().push(Exporter {
                    plugin: plugin.name.clone(),
                    digest: plugin.digest,
                    node: Arc::clone(node),
                    imports: imports.clone(),
                    grants: grants.clone(),
                });
            }
        }
        Uploads(uploads)
    }
}

impl Catalog for Uploads {
    fn exporters(&self, node: &Name) -> Vec<Exporter> {
        self.0.get(node).cloned().unwrap_or_default()
    }

    fn node_names(&self) -> Vec<Name> {
        self.0.keys().cloned().collect()
    }
}
