//! The catalog: plugins, graphs and secrets. Each write is a transaction of its own, beside those
//! of the committer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Digest, Millis, Name, NamespaceKey, RunId, RunKey};
use exosphere_domain::json::read_stored;
use exosphere_domain::node::NodeDescription;
use exosphere_domain::quota::Quota;
use zeroize::Zeroizing;

use crate::audit::{self, AuditEntry};
use crate::codec::{parse_json, read_int, read_text, to_json, to_key_id, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::id_blocks::reserve;
use crate::namespaces::Expected;
use crate::quotas;
use crate::secrets::key_check;
use crate::secrets::keyring::{KeyId, Keyring};
use crate::secrets::secret_cipher::SecretScope;
use crate::types::RunInfo;
use crate::{Store, in_transaction, sql};

/// The maximum number of keys under which secrets are encrypted before their graph is refused.
const MAX_KEYS_TRIED: usize = 3;

/// The bytes of graphs that are searched for the uploads that they use.
const MAX_SEARCHED_BYTES: i64 = 16 * 1024 * 1024;

/// A plugin to store.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// The namespace of the plugin.
    pub namespace: Name,
    /// The name of the plugin.
    pub name: Name,
    /// The version label, for people only.
    pub version: String,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// The bytes of the component.
    pub bytes: Vec<u8>,
    /// The descriptions of the plugin's nodes.
    pub nodes: Vec<NodeDescription>,
    /// The interfaces that the plugin imports.
    pub imports: Vec<String>,
    /// The duration of its compilation, in milliseconds.
    pub compile_ms: i64,
}

/// The result of an upload: new or a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The upload was stored.
    New,
    /// A duplicate: this name has these bytes already.
    Again,
}

/// A stored plugin.
#[derive(Debug, Clone)]
pub struct PluginRow {
    /// The name of the plugin.
    pub name: Name,
    /// The version label.
    pub version: String,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// The time of the latest upload.
    pub uploaded_at: Millis,
    /// The size of the component, in bytes.
    pub size: i64,
    /// The descriptions of the plugin's nodes.
    pub nodes: Vec<Arc<NodeDescription>>,
    /// The interfaces that the plugin imports.
    pub imports: Vec<String>,
    /// The duration of its compilation, in milliseconds.
    pub compile_ms: i64,
}

/// The newest upload of a plugin that exports a node.
#[derive(Debug, Clone)]
pub struct ExporterRow {
    /// The exported node.
    pub node: Name,
    /// The name of the plugin.
    pub plugin: Name,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// The interfaces that the plugin imports.
    pub imports: Vec<String>,
}

/// Encrypted secrets of a graph. Equal rows have equal values, because each encryption uses a new
/// nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRows(Vec<(Name, Vec<u8>, KeyId)>);

impl SecretRows {
    /// Returns whether the graph has no secrets.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes of all ciphertexts.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, encrypted, _)| encrypted.len() as u64).sum()
    }
}

/// A graph with its current revision.
#[derive(Debug, Clone)]
pub struct GraphRow {
    /// The name of the graph.
    pub name: Name,
    /// The key of the namespace's row.
    pub namespace: NamespaceKey,
    /// The current revision.
    pub revision: RevisionRow,
    /// The time at which the revision was created.
    pub created_at: Millis,
    /// The stored body of the revision: JSON.
    pub body: String,
}

impl GraphRow {
    /// Parses the graph from its stored body.
    pub fn graph(&self) -> Result<Graph, StoreError> {
        revision_graph(&self.body, self.revision.id)
    }
}

/// A revision of a graph.
#[derive(Debug, Clone)]
pub struct RevisionRow {
    /// The id of the revision's row.
    pub id: i64,
    /// The number of the revision, from 1.
    pub number: i64,
    /// The digest of the revision's body.
    pub digest: String,
}

/// The result of applying a graph.
#[derive(Debug, Clone)]
pub struct AppliedGraph {
    /// The revision that is current now.
    pub revision: RevisionRow,
    /// The key of the namespace's row.
    pub namespace: NamespaceKey,
    /// Set if a new revision was created.
    pub changed: bool,
}

impl Store {
    /// Stores an upload of a plugin.
    pub async fn push_plugin(&self, new: NewPlugin, now: Millis) -> Result<Pushed, StoreError> {
        let names: Vec<_> = new.nodes.iter().map(|node| &node.name).collect();
        let names = to_json(&names)?;
        let nodes = to_json(&new.nodes)?;
        let imports = to_json(&new.imports)?;
        let audit = self.audit_entry("plugin push", Some(&new.namespace), &new.name);
        let texts = [nodes, names, imports];
        in_transaction!(self, now, |tx| push(tx, &new, &texts, audit.as_ref()))
    }

    /// Reads the newest upload of each plugin of a namespace.
    pub async fn plugins(&self, namespace: &Name) -> Result<Vec<PluginRow>, StoreError> {
        self.reader.rows(sql::PLUGINS, &params![namespace.as_str()], plugin).await
    }

    /// Reads a plugin by its name (the newest upload) or by its digest.
    pub async fn plugin(
        &self,
        namespace: &Name,
        name_or_digest: &str,
    ) -> Result<Option<PluginRow>, StoreError> {
        let params = params![namespace.as_str(), name_or_digest];
        self.reader.row(sql::PLUGIN, &params, plugin).await
    }

    /// Reads which plugins of a namespace export nodes with these names in their newest uploads.
    /// The descriptions are not read.
    pub async fn exporters(
        &self,
        namespace: &Name,
        nodes: &BTreeSet<Name>,
    ) -> Result<Vec<ExporterRow>, StoreError> {
        let nodes = to_json(nodes)?;
        self.reader.rows(sql::EXPORTERS, &params![namespace.as_str(), &nodes], exporter).await
    }

    /// Lists up to `limit` graphs of a namespace whose current revision uses an older upload of a
    /// plugin. Of many or large graphs, it reads the first ones.
    pub async fn graphs_of_older_uploads(
        &self,
        namespace: &Name,
        plugin: &Name,
        newest: Digest,
        limit: u32,
    ) -> Result<Vec<Name>, StoreError> {
        let newest = newest.to_string();
        let params =
            params![namespace.as_str(), plugin.as_str(), &newest, limit, MAX_SEARCHED_BYTES];
        let read = |row: &dyn Row| to_name(row.text(0)?, "graph", "name");
        self.reader.rows(sql::GRAPHS_OF_OLDER_UPLOADS, &params, read).await
    }

    /// Reads up to `limit` names of nodes that a namespace's plugins export, in order.
    pub async fn node_names(&self, namespace: &Name, limit: u32) -> Result<Vec<Name>, StoreError> {
        let read = |row: &dyn Row| to_name(row.text(0)?, "exported", "node");
        self.reader.rows(sql::NODE_NAMES, &params![namespace.as_str(), limit], read).await
    }

    /// Reads the bytes of a plugin.
    pub async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = |row: &dyn Row| row.bytes(0);
        self.reader.row(sql::COMPONENT_BYTES, &params![&digest.to_string()], bytes).await
    }

    /// Reads the interfaces that a plugin imports.
    pub async fn imports(&self, digest: Digest) -> Result<Option<Vec<String>>, StoreError> {
        let digest = digest.to_string();
        let imports = self.reader.row(sql::COMPONENT_IMPORTS, &params![&digest], read_text).await?;
        imports.map(|text| parse_json(&text, "component", "imports", &digest)).transpose()
    }

    /// Reads the description of a plugin: its nodes as JSON text, which [`description`] parses.
    pub async fn description(&self, digest: Digest) -> Result<Option<String>, StoreError> {
        self.reader.row(sql::COMPONENT_NODES, &params![&digest.to_string()], read_text).await
    }

    /// Makes this the graph's current revision unless it already is, and stores the graph's
    /// secrets. Secrets without a value are removed.
    pub async fn apply_graph(
        &self,
        namespace: &Name,
        name: &Name,
        graph: &Graph,
        secrets: &BTreeMap<Name, Option<String>>,
        now: Millis,
    ) -> Result<AppliedGraph, StoreError> {
        let anything = &Expected::Anything;
        self.apply_graph_if(namespace, name, graph, secrets, anything, now).await
    }

    /// Applies a graph like [`Store::apply_graph`], if the digest of its current revision is as
    /// expected.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] if it is not. [`StoreError::Refused`] if a plugin that a node names
    /// was removed.
    pub async fn apply_graph_if(
        &self,
        namespace: &Name,
        name: &Name,
        graph: &Graph,
        secrets: &BTreeMap<Name, Option<String>>,
        expected: &Expected,
        now: Millis,
    ) -> Result<AppliedGraph, StoreError> {
        let body = graph.to_json().to_string();
        let digest = Digest::from_content(body.as_bytes()).to_string();
        let (namespace, name) = (namespace.clone(), name.clone());
        let removed = secrets.iter().filter(|(_, value)| value.is_none());
        let removed = removed.map(|(name, _)| name.clone()).collect();
        let nodes = graph.nodes().count() as i64;
        let audit = self.audit_entry("graph apply", Some(&namespace), &name);
        let uploads = graph.uploads().into_iter();
        let uploads = uploads.map(|(plugin, digest)| (plugin.clone(), digest)).collect();
        let mut new = Revision {
            namespace,
            name,
            digest,
            body,
            nodes,
            uploads,
            expected: expected.clone(),
            encrypted: None,
            removed,
            audit,
        };
        let mut keys = self.cipher.keys();
        for tried in 1.. {
            new.encrypt_secrets(secrets, &keys)?;
            if let Some(applied) = self.revise(&new, now).await? {
                return Ok(applied);
            }
            if tried == MAX_KEYS_TRIED {
                break;
            }
            // A rotation has retired this host's current key, so the key source is read again for
            // its replacement. The next rotation may retire that one, too.
            keys = self.cipher.reload().await;
        }
        let message =
            "this host's key is no longer in use on this database; restart it with the new one";
        Err(StoreError::Data(format!("{message} ({} is out of date)", keys.current())))
    }

    async fn revise(
        &self,
        new: &Revision,
        now: Millis,
    ) -> Result<Option<AppliedGraph>, StoreError> {
        // Cloned because SQLite moves the closure to another thread.
        let new = new.clone();
        in_transaction!(self, now, |tx| revise(tx, &new))
    }

    /// Returns the bytes of a graph's body; 0 if the graph does not exist.
    pub async fn graph_size(&self, namespace: &Name, name: &Name) -> Result<i64, StoreError> {
        let params = params![namespace.as_str(), name.as_str()];
        Ok(self.reader.row(sql::GRAPH_SIZE, &params, read_int).await?.unwrap_or_default())
    }

    /// Reads a graph with its current revision.
    pub async fn graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<GraphRow>, StoreError> {
        self.reader.row(sql::GRAPH, &params![namespace.as_str(), name.as_str()], graph).await
    }

    /// Reads the names of a graph's secrets.
    pub async fn secret_names(
        &self,
        namespace: &Name,
        graph: &Name,
    ) -> Result<Vec<Name>, StoreError> {
        let read = |row: &dyn Row| to_name(row.text(0)?, "secret", "name");
        let params = params![namespace.as_str(), graph.as_str()];
        self.reader.rows(sql::SECRET_NAMES, &params, read).await
    }

    /// Reads the encrypted secrets of a graph.
    pub async fn encrypted_secrets(
        &self,
        namespace: &Name,
        graph: &Name,
    ) -> Result<SecretRows, StoreError> {
        let read = |row: &dyn Row| {
            Ok((to_name(row.text(0)?, "secret", "name")?, row.bytes(1)?, to_key_id(row.text(2)?)?))
        };
        let params = params![namespace.as_str(), graph.as_str()];
        self.reader.rows(sql::SECRETS_OF_GRAPH, &params, read).await.map(SecretRows)
    }

    /// Decrypts the secrets of a graph, or returns why one cannot be decrypted.
    pub async fn open_secrets(
        &self,
        namespace: &Name,
        graph: &Name,
        rows: &SecretRows,
    ) -> Vec<(Name, Result<Zeroizing<String>, StoreError>)> {
        let mut secrets = Vec::with_capacity(rows.0.len());
        for (name, encrypted, key) in &rows.0 {
            let scope = SecretScope { namespace, graph, name };
            let value = self.cipher.open(&scope, key, encrypted).await;
            let value = value.map_err(|error| StoreError::Data(error.to_string()));
            secrets.push((name.clone(), value));
        }
        secrets
    }

    /// Reads the immutable part of a run's row.
    pub async fn run_info(&self, key: RunKey) -> Result<Option<RunInfo>, StoreError> {
        let read = |row: &dyn Row| {
            Ok((
                row.text(0)?,
                row.text(1)?,
                row.text(2)?,
                row.int(3)?,
                row.text(4)?,
                row.text(5)?,
                row.int(6)?,
                row.int(7)?,
            ))
        };
        let found = self.reader.row(sql::RUN_INFO, &params![key.0], read).await?;
        let Some((id, namespace, graph, number, body, inputs, revision, owner)) = found else {
            return Ok(None);
        };
        Ok(Some(RunInfo {
            key,
            id: RunId(id.parse().map_err(|_| corrupt_row("run", "uuid", key.0))?),
            namespace: to_name(namespace, "run", "namespace")?,
            namespace_key: NamespaceKey(owner),
            graph_name: to_name(graph, "graph", "name")?,
            revision: number,
            revision_id: revision,
            graph: Arc::new(revision_graph(&body, revision)?),
            inputs: inputs.into(),
            labels: self.labels_of(key).await?,
        }))
    }
}

/// Parses the text of a stored description.
///
/// # Errors
/// If no version of this host could have written the text.
pub fn description(text: &str, digest: Digest) -> Result<Vec<NodeDescription>, StoreError> {
    parse_json(text, "component", "nodes", digest)
}

async fn push(
    tx: &mut impl Tx,
    new: &NewPlugin,
    [nodes, names, imports]: &[String; 3],
    audit: Option<&AuditEntry>,
) -> Result<Pushed, StoreError> {
    let digest = new.digest.to_string();
    let (namespace, name) = (new.namespace.as_str(), new.name.as_str());
    let size = new.bytes.len() as i64;
    let component = params![&digest, new.bytes.as_slice(), size, nodes, imports, new.compile_ms];
    let known = tx.query(sql::KNOWN_PLUGIN, &params![namespace, name, &digest], read_int).await?;
    if known.is_empty()
        && let Some(quotas) = quotas::lock(tx, &new.namespace).await?
    {
        let names = tx.query(sql::PLUGIN_NAMED, &params![namespace, name], read_int).await?;
        let more = [
            (Quota::Plugins, u64::from(names.is_empty())),
            (Quota::PluginBytes, new.bytes.len() as u64),
        ];
        quotas::charge(tx, &new.namespace, &quotas, &more).await?;
    }
    tx.execute(sql::NEW_COMPONENT, &component).await?;
    tx.execute(sql::NEW_EXPORTED, &params![&digest, names]).await?;
    let now = tx.now();
    let upload = params![namespace, name, &new.version, &digest, now, size, names];
    tx.execute(sql::PUSH_PLUGIN, &upload).await?;
    audit::record(tx, audit, None, Some(&new.digest)).await?;
    Ok(if known.is_empty() { Pushed::New } else { Pushed::Again })
}

/// Parses the graph from a revision's body.
fn revision_graph(body: &str, revision: i64) -> Result<Graph, StoreError> {
    let value = read_stored(body);
    let value = value.map_err(|_| corrupt_row("revision", "body", revision))?;
    Graph::from_json(&value).map_err(|_| corrupt_row("revision", "body", revision))
}

/// A revision to make current, with its new secrets.
#[derive(Clone)]
struct Revision {
    namespace: Name,
    name: Name,
    digest: String,
    body: String,
    nodes: i64,
    /// The uploads that its nodes name.
    uploads: Vec<(Name, Digest)>,
    /// The precondition on the digest of the current revision.
    expected: Expected,
    encrypted: Option<EncryptedSecrets>,
    /// The names of secrets to delete.
    removed: Vec<Name>,
    audit: Option<AuditEntry>,
}

/// Encrypted secrets, and the keyring whose current key encrypted them.
#[derive(Clone)]
struct EncryptedSecrets {
    keys: Arc<Keyring>,
    secrets: Vec<(Name, Vec<u8>)>,
}

impl Revision {
    fn encrypt_secrets(
        &mut self,
        secrets: &BTreeMap<Name, Option<String>>,
        keys: &Arc<Keyring>,
    ) -> Result<(), StoreError> {
        let mut encrypted = Vec::with_capacity(secrets.len());
        let values = secrets.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (name, value) in values {
            let scope = SecretScope { namespace: &self.namespace, graph: &self.name, name };
            let value = scope.encrypt(keys, value);
            encrypted.push((name.clone(), value.map_err(|e| StoreError::Data(e.to_string()))?));
        }
        let encrypted = EncryptedSecrets { keys: keys.clone(), secrets: encrypted };
        self.encrypted = (!encrypted.secrets.is_empty()).then_some(encrypted);
        Ok(())
    }
}

/// Makes the revision current; returns `None` if the key of its secrets is retired.
async fn revise(tx: &mut impl Tx, new: &Revision) -> Result<Option<AppliedGraph>, StoreError> {
    let (namespace, name) = (new.namespace.as_str(), new.name.as_str());
    tx.execute(sql::NEW_NAMESPACE, &params![namespace]).await?;
    let owner = tx.query(sql::NAMESPACE, &params![namespace], read_int).await?;
    let owner = *owner.first().ok_or_else(|| corrupt_row("namespace", "name", namespace))?;
    let owner = NamespaceKey(owner);
    if let Some(EncryptedSecrets { keys, secrets }) = &new.encrypted {
        if !key_check::lock_current_key(tx, keys).await? {
            return Ok(None);
        }
        let key = keys.current().as_str();
        for (secret, value) in secrets {
            let row = params![namespace, name, secret.as_str(), value.as_slice(), key];
            tx.execute(sql::SET_SECRET, &row).await?;
        }
    }
    for secret in &new.removed {
        tx.execute(sql::REMOVE_SECRET, &params![namespace, name, secret.as_str()]).await?;
    }
    let pair = |row: &dyn Row| Ok((row.int(0)?, row.int(1)?));
    let graph = tx.query(sql::GRAPH_ROW, &params![namespace, name], pair).await?;
    let (graph, current) = *graph.first().ok_or_else(|| corrupt_row("graph", "name", name))?;
    let read = |row: &dyn Row| {
        Ok(RevisionRow { id: row.int(0)?, number: row.int(1)?, digest: row.text(2)? })
    };
    let before = tx.query(sql::REVISION, &params![current], read).await?.into_iter().next();
    let current = before.as_ref().map(|revision| revision.digest.as_str());
    if !new.expected.is_met_by_text(current) {
        // An error, so that nothing of this transaction stays.
        return Err(StoreError::Changed);
    }
    let known = before.as_ref().and_then(|revision| revision.digest.parse().ok());
    audit::record(tx, new.audit.as_ref(), known.as_ref(), new.digest.parse().ok().as_ref()).await?;
    let number = match before {
        Some(revision) if revision.digest == new.digest => {
            return Ok(Some(AppliedGraph { revision, namespace: owner, changed: false }));
        }
        Some(revision) => revision.number + 1,
        None => 1,
    };
    if let Some(quotas) = quotas::lock(tx, &new.namespace).await? {
        let more = [(Quota::Graphs, u64::from(number == 1)), (Quota::Revisions, 1)];
        quotas::charge(tx, &new.namespace, &quotas, &more).await?;
    }
    let now = tx.now();
    let id = reserve(tx, "revision", 1).await? - 1;
    let row = params![id, graph, number, &new.digest, &new.body, now];
    tx.execute(sql::NEW_REVISION, &row).await?;
    for (plugin, digest) in &new.uploads {
        let digest_text = digest.to_string();
        let upload = params![id, namespace, plugin.as_str(), &digest_text];
        if tx.query(sql::USE_UPLOAD, &upload, read_int).await?.is_empty() {
            return Err(StoreError::Refused(format!(
                "the plugin {plugin} was removed meanwhile, at least the version {digest}; \
                 upload it, and apply the graph again"
            )));
        }
    }
    tx.execute(sql::SET_CURRENT, &params![graph, id, number, new.nodes, now]).await?;
    let revision = RevisionRow { id, number, digest: new.digest.clone() };
    Ok(Some(AppliedGraph { revision, namespace: owner, changed: true }))
}

fn plugin(row: &dyn Row) -> Result<PluginRow, StoreError> {
    let digest = row.text(2)?;
    Ok(PluginRow {
        name: to_name(row.text(0)?, "plugin", "name")?,
        version: row.text(1)?,
        digest: digest.parse().map_err(|_| corrupt_row("plugin", "digest", &digest))?,
        uploaded_at: row.int(3)?,
        size: row.int(4)?,
        nodes: parse_json(&row.text(5)?, "component", "nodes", &digest)?,
        imports: parse_json(&row.text(6)?, "component", "imports", &digest)?,
        compile_ms: row.int(7)?,
    })
}

fn exporter(row: &dyn Row) -> Result<ExporterRow, StoreError> {
    let digest = row.text(2)?;
    Ok(ExporterRow {
        node: to_name(row.text(0)?, "exported", "node")?,
        plugin: to_name(row.text(1)?, "plugin", "name")?,
        imports: parse_json(&row.text(3)?, "component", "imports", &digest)?,
        digest: digest.parse().map_err(|_| corrupt_row("plugin", "digest", &digest))?,
    })
}

pub(crate) fn graph(row: &dyn Row) -> Result<GraphRow, StoreError> {
    Ok(GraphRow {
        name: to_name(row.text(0)?, "graph", "name")?,
        revision: RevisionRow { id: row.int(1)?, number: row.int(2)?, digest: row.text(3)? },
        body: row.text(4)?,
        created_at: row.int(5)?,
        namespace: NamespaceKey(row.int(6)?),
    })
}
