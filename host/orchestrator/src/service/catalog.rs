//! Uploads of plugins and graphs. All of an upload is checked before it is stored, and a
//! refusal names every problem.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::graph::{Applied, Catalog, Context, Exporter, Graph, named_nodes, validate};
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::limits::Limit;
use exosphere_sandbox::FairPermit;
use exosphere_store::{
    Expected, ExporterRow, GraphEntry, GraphRow, NewPlugin, Page, PageRequest, PluginEntry,
    PluginRow, Pushed, StoreError,
};
use serde_json::Value;

use crate::Host;
use crate::cache::descriptions::DescribedPlugin;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, Meter, REQUEST_STEPS};
use crate::service::admission::AdmissionReport;
use crate::service::large_json::AnswerPermit;
use crate::service::quotas::breached;

/// An upload of a plugin.
#[derive(Debug)]
pub struct PluginUpload {
    /// The namespace of the plugin.
    pub namespace: Name,
    /// The name of the plugin.
    pub name: Name,
    /// The version label, for people.
    pub version: String,
    /// The bytes of the component.
    pub bytes: Vec<u8>,
}

/// The result of an upload.
#[derive(Debug)]
pub struct Uploaded {
    /// The plugin as it is stored.
    pub plugin: PluginRow,
    /// Set if the plugin was new.
    pub new: bool,
    /// Warnings and capabilities of the plugin.
    pub remarks: AdmissionReport,
}

/// The result of an applied graph.
#[derive(Debug)]
pub struct GraphApplied {
    /// The name of the graph.
    pub name: Name,
    /// The number of its current revision.
    pub revision: i64,
    /// The digest of that revision.
    pub digest: String,
    /// Set if that revision is new.
    pub changed: bool,
    /// The graph, with every node resolved.
    pub graph: Graph,
}

/// Maximum number of node names that are searched for a suggestion; each costs a comparison.
const MAX_SUGGESTED_NAMES: u32 = 1_000;

/// Maximum number of graphs, and of nodes, that the warnings of an upload name.
const MAX_NAMED_GRAPHS: u32 = 20;

/// The longest version label of a plugin, in characters.
const MAX_VERSION_CHARS: usize = 64;

impl Host {
    /// Admits a plugin and stores it.
    pub async fn push_plugin(&self, upload: PluginUpload) -> Result<Uploaded, Error> {
        let inner = &self.inner;
        let PluginUpload { namespace, name, version, bytes } = upload;
        if version.chars().count() > MAX_VERSION_CHARS || version.chars().any(char::is_control) {
            let message = format!(
                "use at most {MAX_VERSION_CHARS} characters, none of them a control character"
            );
            return Err(Error::invalid("the version", "version", message));
        }
        let candidate = inner.sandbox.inspect_upload(namespace.as_str(), &bytes).await?;
        let grants = self.grants_of(&namespace, &name).await?.grants;
        let admitted = candidate.admitted.clone();
        let report = self.report((&namespace, &name), &grants, admitted, bytes.len()).await?;
        let new = NewPlugin {
            namespace: namespace.clone(),
            name: name.clone(),
            version,
            digest: report.digest,
            bytes,
            nodes: report.nodes,
            imports: report.imports,
            compile_ms: i64::try_from(report.compile.as_millis()).unwrap_or(i64::MAX),
        };
        let pushed = self.store().push_plugin(new, inner.db.clock.now()).await;
        let remedy = "remove plugins that nothing uses";
        let pushed = pushed.map_err(|error| breached(&namespace, remedy, error))?;
        // The code is kept only after the plugin is stored: a refused upload leaves none.
        inner.sandbox.commit_candidate(candidate).await;
        let plugin = self.plugin(&namespace, name.as_str()).await?;
        let mut remarks = report.remarks;
        // The plugin is stored: what the caller should know of others must not undo that.
        match self.upload_warnings(&namespace, &plugin).await {
            Ok(warnings) => remarks.warnings.extend(warnings),
            Err(error) => tracing::warn!(%error, "cannot read what a new upload means for graphs"),
        }
        Ok(Uploaded { plugin, new: pushed == Pushed::New, remarks })
    }

    /// Returns what a stored upload means for others: the graphs that use an older one, and the
    /// nodes that another plugin exports, too.
    async fn upload_warnings(
        &self,
        namespace: &Name,
        plugin: &PluginRow,
    ) -> Result<Vec<String>, StoreError> {
        let store = &self.inner.db.store;
        let mut warnings = Vec::new();
        let limit = MAX_NAMED_GRAPHS + 1;
        let graphs =
            store.graphs_of_older_uploads(namespace, &plugin.name, plugin.digest, limit).await?;
        if !graphs.is_empty() {
            let mut names: Vec<String> =
                graphs.iter().take(MAX_NAMED_GRAPHS as usize).map(Name::to_string).collect();
            if graphs.len() > names.len() {
                names.push("others".to_owned());
            }
            warnings.push(format!(
                "these graphs still use an older upload of {}, until they are applied again: {}",
                plugin.name,
                names.join(", ")
            ));
        }
        let nodes: BTreeSet<Name> = plugin.nodes.iter().map(|node| node.name.clone()).collect();
        let mut twice: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        for row in store.exporters(namespace, &nodes).await? {
            if row.plugin != plugin.name {
                twice.entry(row.node).or_default().push(row.plugin.to_string());
            }
        }
        warnings.extend(twice.into_iter().take(MAX_NAMED_GRAPHS as usize).map(
            |(node, plugins)| {
                format!(
                    "the node {node} is also one of {}: a graph that names it must say which, with \
                 \"plugin\"",
                    plugins.join(", ")
                )
            },
        ));
        Ok(warnings)
    }

    /// Lists the plugins of a namespace, each with its newest upload.
    pub async fn plugins(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<PluginEntry>, Error> {
        let page = self.inner.db.store.list_plugins(namespace, part).await?;
        if page.items.is_empty() && part.after.is_none() {
            self.check_namespace(namespace).await?;
        }
        Ok(page)
    }

    /// Returns a plugin by its name or digest.
    pub async fn plugin(&self, namespace: &Name, name: &str) -> Result<PluginRow, Error> {
        let found = self.inner.db.store.plugin(namespace, name).await?;
        match found {
            Some(plugin) => Ok(plugin),
            None => Err(self.plugin_not_found(namespace, name).await?),
        }
    }

    /// Validates a template as it would be applied. `turn` is the turn in which a large
    /// template was read.
    pub async fn validate_graph(
        &self,
        namespace: &Name,
        name: &Name,
        template: Value,
        turn: Option<FairPermit<Name>>,
    ) -> Result<Graph, Error> {
        Ok(self.validated(namespace, name, template, turn).await?.graph)
    }

    /// Makes a template the current revision of a graph, if the digest of the present one is as
    /// expected. `turn` is the turn in which a large template was read.
    pub async fn apply_graph(
        &self,
        namespace: &Name,
        name: &Name,
        template: Value,
        turn: Option<FairPermit<Name>>,
        expected: &Expected,
    ) -> Result<GraphApplied, Error> {
        let applied = self.validated(namespace, name, template, turn).await?;
        self.store_graph(namespace, name, applied, expected).await
    }

    /// Makes a valid graph the current revision, if that is as expected.
    pub(super) async fn store_graph(
        &self,
        namespace: &Name,
        name: &Name,
        Applied { graph, secrets }: Applied,
        expected: &Expected,
    ) -> Result<GraphApplied, Error> {
        let (store, now) = (self.store(), self.inner.db.clock.now());
        let applied = store.apply_graph_if(namespace, name, &graph, &secrets, expected, now).await;
        self.inner.caches.graphs.forget(namespace, name);
        let applied = applied.map_err(|error| match error {
            StoreError::Changed => {
                Error::Changed { subject: format!("the graph {name}"), it: "it" }
            }
            other => breached(namespace, "remove graphs that nothing uses", other),
        })?;
        Ok(GraphApplied {
            name: name.clone(),
            revision: applied.revision.number,
            digest: applied.revision.digest,
            changed: applied.changed,
            graph,
        })
    }

    /// Validates a template in a turn of its namespace, which bounds the resources of
    /// many requests together.
    async fn validated(
        &self,
        namespace: &Name,
        name: &Name,
        template: Value,
        turn: Option<FairPermit<Name>>,
    ) -> Result<Applied, Error> {
        let turn = match turn {
            Some(turn) => Some(turn),
            None => self.inner.host_work.turn(namespace).await,
        };
        let catalog = self.uploads(namespace, named_nodes(&template)).await?;
        self.validated_with(namespace, name, template, catalog, turn).await
    }

    /// Validates a template with these uploads.
    pub(super) async fn validated_with(
        &self,
        namespace: &Name,
        name: &Name,
        template: Value,
        catalog: Uploads,
        turn: Option<FairPermit<Name>>,
    ) -> Result<Applied, Error> {
        let (store, work) = (&self.inner.db.store, &self.inner.host_work);
        let secrets = store.secret_names(namespace, name).await?.into_iter().collect();
        let limits = self.namespace(namespace).await?.effective;
        let owner = namespace.clone();
        let validate = move |meter: &Meter| {
            let context = Context {
                namespace: &owner,
                catalog: &catalog,
                secrets: &secrets,
                limits: &limits,
                budget: meter,
            };
            let valid = validate(&template, &context);
            // Dropped here, and not by the thread that serves the request.
            drop((template, catalog));
            valid
        };
        let done = work.run(turn, Bounds::steps(REQUEST_STEPS), validate).await;
        let valid = done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value;
        valid.map_err(|problems| Error::Invalid { subject: format!("the graph {name}"), problems })
    }

    /// Reads the newest uploads that export the named nodes.
    async fn uploads(&self, namespace: &Name, nodes: BTreeSet<Name>) -> Result<Uploads, Error> {
        let rows = self.inner.db.store.exporters(namespace, &nodes).await?;
        let mut uploads = self.described(namespace, rows).await?;
        if uploads.exporters.len() < nodes.len() {
            uploads.names = self.inner.db.store.node_names(namespace, MAX_SUGGESTED_NAMES).await?;
        }
        Ok(uploads)
    }

    /// Reads the uploads that the nodes of a graph name, instead of the newest ones.
    pub(super) async fn named_uploads(
        &self,
        namespace: &Name,
        graph: &Graph,
    ) -> Result<Uploads, Error> {
        let mut rows = BTreeMap::new();
        for (_, node) in graph.nodes() {
            let key = (node.node_name.clone(), node.plugin.clone());
            if rows.contains_key(&key) {
                continue;
            }
            let imports = self.inner.db.store.imports(node.digest).await?.unwrap_or_default();
            let (plugin, digest) = (node.plugin.clone(), node.digest);
            rows.insert(key, ExporterRow { node: node.node_name.clone(), plugin, digest, imports });
        }
        self.described(namespace, rows.into_values().collect()).await
    }

    /// Reads the descriptions of uploads, which together may take as much memory as JSON may.
    async fn described(&self, namespace: &Name, rows: Vec<ExporterRow>) -> Result<Uploads, Error> {
        let inner = &self.inner;
        let grants = inner.db.store.grants(namespace).await?;
        let grants: BTreeMap<_, _> =
            grants.into_iter().map(|(plugin, grants)| (plugin, Arc::new(grants))).collect();
        let mut described: BTreeMap<Digest, Arc<DescribedPlugin>> = BTreeMap::new();
        let mut uploads = Uploads::default();
        let mut memory_bytes = 0;
        for row in rows {
            let ExporterRow { node, plugin, digest, imports } = row;
            let described = match described.entry(digest) {
                Entry::Occupied(read) => read.into_mut(),
                Entry::Vacant(place) => {
                    let from = (&inner.db.store, &inner.host_work);
                    let read = inner.caches.descriptions.get(from, namespace, digest).await?;
                    memory_bytes += read.memory_bytes();
                    if memory_bytes > inner.settings.limits.get(Limit::JsonBytes) {
                        return Err(too_large_in_memory());
                    }
                    place.insert(read)
                }
            };
            let found = described.get(&node);
            let missing = || StoreError::Data(format!("plugin {digest} has no node {node}"));
            let exporter = Exporter {
                grants: grants.get(&plugin).cloned().unwrap_or_default(),
                plugin,
                digest,
                node: found.ok_or_else(missing)?.clone(),
                imports: imports.into(),
            };
            uploads.exporters.entry(node).or_default().push(exporter);
        }
        Ok(uploads)
    }

    /// Lists the graphs of a namespace.
    pub async fn graphs(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<GraphEntry>, Error> {
        let page = self.inner.db.store.list_graphs(namespace, part).await?;
        if page.items.is_empty() && part.after.is_none() {
            self.check_namespace(namespace).await?;
        }
        Ok(page)
    }

    /// Reads a graph, with the permit of the answer if that is large.
    pub async fn graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<(GraphRow, Option<AnswerPermit>), Error> {
        let store = &self.inner.db.store;
        let bytes = store.graph_size(namespace, name).await?;
        let read = store.graph(namespace, name);
        let (found, place) = self.inner.large_json.read(namespace, bytes, read).await?;
        match found {
            Some(graph) => Ok((graph, place)),
            None => Err(self.graph_not_found(namespace, name).await?),
        }
    }
}

/// Builds the refusal of a graph whose nodes have heavy descriptions.
fn too_large_in_memory() -> Error {
    let message = "the descriptions of the plugins whose nodes this graph names would take more memory \
                 than `json_bytes` allows; name nodes of fewer plugins, or give them smaller schemas";
    Error::invalid("the graph", "$.nodes", message)
}

/// The newest uploads of a namespace by exported node, for the nodes that a template
/// names.
#[derive(Default)]
pub(super) struct Uploads {
    exporters: BTreeMap<Name, Vec<Exporter>>,
    /// Node names to suggest.
    names: Vec<Name>,
}

impl Catalog for Uploads {
    fn exporters(&self, node: &Name) -> Vec<Exporter> {
        self.exporters.get(node).cloned().unwrap_or_default()
    }

    fn node_names(&self) -> Vec<Name> {
        self.names.clone()
    }
}
