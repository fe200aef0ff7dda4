//! Plugins, graphs and secrets: what people put in, and what is read of it.
//! Each write is a transaction of its own, beside the street.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Digest, Millis, Name, RunId, RunKey};
use exosphere_domain::node::NodeDescription;
use rusqlite::{OptionalExtension, params};
use sqlx::Row;

use crate::batch::RunInfo;
use crate::error::StoreError;
use crate::rows::corrupt;
use crate::vault::SecretPlace;
use crate::{Store, sql};

/// A plugin to be stored.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// Whose it is.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// A label, for people.
    pub version: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its nodes.
    pub nodes: Vec<NodeDescription>,
    /// What it imports.
    pub imports: Vec<String>,
    /// How long its compilation took.
    pub compile_ms: i64,
}

/// Whether an upload was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was.
    New,
    /// The same bytes were there under this name already.
    Again,
}

/// A plugin as it is stored.
#[derive(Debug, Clone)]
pub struct PluginRow {
    /// Its name.
    pub name: Name,
    /// Its label.
    pub version: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When it was uploaded last.
    pub uploaded_at: Millis,
    /// Bytes.
    pub size: i64,
    /// Its nodes.
    pub nodes: Vec<Arc<NodeDescription>>,
    /// What it imports.
    pub imports: Vec<String>,
    /// How long its compilation took.
    pub compile_ms: i64,
}

/// A graph's current revision.
#[derive(Debug, Clone)]
pub struct GraphRow {
    /// Its name.
    pub name: Name,
    /// The revision.
    pub revision: RevisionRow,
    /// When it was made.
    pub created_at: Millis,
    /// The graph as it was stored: JSON.
    pub body: String,
}

impl GraphRow {
    /// The graph itself.
    pub fn graph(&self) -> Result<Graph, StoreError> {
        revision_graph(&self.body, self.revision.id)
    }
}

/// A revision.
#[derive(Debug, Clone)]
pub struct RevisionRow {
    /// Its row.
    pub id: i64,
    /// Its number, from 1.
    pub number: i64,
    /// The digest of its body.
    pub digest: String,
}

/// What applying a graph came to.
#[derive(Debug, Clone)]
pub struct AppliedGraph {
    /// The revision that is current now.
    pub revision: RevisionRow,
    /// Whether it is a new one.
    pub changed: bool,
}

impl Store {
    /// Stores a plugin.
    pub async fn push_plugin(&self, new: NewPlugin, now: Millis) -> Result<Pushed, StoreError> {
        let nodes = json(&new.nodes)?;
        let imports = json(&new.imports)?;
        self.writer
            .call(move |connection| {
                let tx = connection.transaction()?;
                let digest = new.digest.to_string();
                let (namespace, name) = (new.namespace.as_str(), new.name.as_str());
                let size = new.bytes.len() as i64;
                tx.execute(
                    sql::COMPONENT,
                    params![digest, new.bytes, size, nodes, imports, new.compile_ms],
                )?;
                let known = tx
                    .query_row(sql::KNOWN_PLUGIN, params![namespace, name, digest], |_| Ok(()))
                    .optional()?;
                tx.execute(sql::PUSH, params![namespace, name, new.version, digest, now])?;
                tx.commit()?;
                Ok(if known.is_some() { Pushed::Again } else { Pushed::New })
            })
            .await
    }

    /// The newest upload of each plugin of a namespace.
    pub async fn plugins(&self, namespace: &Name) -> Result<Vec<PluginRow>, StoreError> {
        let rows =
            sqlx::query(sql::PLUGINS).bind(namespace.as_str()).fetch_all(&self.readers).await?;
        rows.iter().map(plugin).collect()
    }

    /// A plugin by its name (the newest upload) or by its digest.
    pub async fn plugin(
        &self,
        namespace: &Name,
        name_or_digest: &str,
    ) -> Result<Option<PluginRow>, StoreError> {
        let query = sqlx::query(sql::PLUGIN).bind(namespace.as_str()).bind(name_or_digest);
        query.fetch_optional(&self.readers).await?.as_ref().map(plugin).transpose()
    }

    /// The bytes of a plugin.
    pub async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query(sql::COMPONENT_BYTES).bind(digest.to_string());
        let row = query.fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The nodes of a plugin.
    pub async fn nodes(&self, digest: Digest) -> Result<Option<Vec<NodeDescription>>, StoreError> {
        let query = sqlx::query(sql::COMPONENT_NODES).bind(digest.to_string());
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        parse(&row.try_get::<String, _>(0)?, "component", "nodes", digest).map(Some)
    }

    /// Makes a graph's current revision this one, unless it is already, and
    /// keeps its secrets.
    pub async fn apply_graph(
        &self,
        namespace: &Name,
        name: &Name,
        graph: &Graph,
        secrets: &BTreeMap<Name, String>,
        now: Millis,
    ) -> Result<AppliedGraph, StoreError> {
        let body = graph.to_json().to_string();
        let digest = Digest::of(body.as_bytes()).to_string();
        let mut sealed = Vec::with_capacity(secrets.len());
        for (secret, value) in secrets {
            let place = SecretPlace { namespace, graph: name, name: secret };
            let value = self.vault.seal(&place, value);
            sealed.push((secret.clone(), value.map_err(|e| StoreError::Data(e.to_string()))?));
        }
        let (namespace, name) = (namespace.clone(), name.clone());
        self.writer
            .call(move |connection| {
                let tx = connection.transaction()?;
                for (secret, value) in &sealed {
                    let row = params![namespace.as_str(), name.as_str(), secret.as_str(), value];
                    tx.execute(sql::SET_SECRET, row)?;
                }
                let applied = revise(&tx, &namespace, &name, &digest, &body, now)?;
                tx.commit()?;
                Ok(applied)
            })
            .await
    }

    /// The graphs of a namespace.
    pub async fn graphs(&self, namespace: &Name) -> Result<Vec<GraphRow>, StoreError> {
        let rows =
            sqlx::query(sql::GRAPHS).bind(namespace.as_str()).fetch_all(&self.readers).await?;
        rows.iter().map(graph).collect()
    }

    /// A graph.
    pub async fn graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<GraphRow>, StoreError> {
        let query = sqlx::query(sql::GRAPH).bind(namespace.as_str()).bind(name.as_str());
        query.fetch_optional(&self.readers).await?.as_ref().map(graph).transpose()
    }

    /// The names of the secrets that a graph has.
    pub async fn secret_names(
        &self,
        namespace: &Name,
        graph: &Name,
    ) -> Result<Vec<Name>, StoreError> {
        let query = sqlx::query(sql::SECRET_NAMES).bind(namespace.as_str()).bind(graph.as_str());
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| name(row.try_get(0)?, "secret", "name")).collect()
    }

    /// The current value of a secret.
    pub async fn secret(
        &self,
        namespace: &Name,
        graph: &Name,
        name: &Name,
    ) -> Result<Option<String>, StoreError> {
        let query = sqlx::query(sql::SECRET);
        let query = query.bind(namespace.as_str()).bind(graph.as_str()).bind(name.as_str());
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get(0)?;
        let value = self.vault.open(&SecretPlace { namespace, graph, name }, &sealed);
        value.map(Some).map_err(|error| StoreError::Data(error.to_string()))
    }

    /// What never changes of a run.
    pub async fn run_info(&self, key: RunKey) -> Result<Option<RunInfo>, StoreError> {
        let query = sqlx::query(sql::RUN_INFO).bind(key.0);
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let id: String = row.try_get(0)?;
        let body: String = row.try_get(4)?;
        let inputs: String = row.try_get(5)?;
        Ok(Some(RunInfo {
            key,
            id: RunId(id.parse().map_err(|_| corrupt("run", "uuid", key.0))?),
            namespace: name(row.try_get(1)?, "run", "namespace")?,
            graph_name: name(row.try_get(2)?, "graph", "name")?,
            revision: row.try_get(3)?,
            graph: Arc::new(revision_graph(&body, row.try_get(6)?)?),
            inputs: inputs.into(),
        }))
    }
}

/// The graph in a revision's body.
fn revision_graph(body: &str, revision: i64) -> Result<Graph, StoreError> {
    let value = serde_json::from_str(body).map_err(|_| corrupt("revision", "body", revision))?;
    Graph::from_json(&value).map_err(|_| corrupt("revision", "body", revision))
}

fn revise(
    tx: &rusqlite::Transaction<'_>,
    namespace: &Name,
    name: &Name,
    digest: &str,
    body: &str,
    now: Millis,
) -> Result<AppliedGraph, StoreError> {
    let current: Option<(i64, RevisionRow)> = tx
        .query_row(sql::CURRENT, params![namespace.as_str(), name.as_str()], |row| {
            let revision =
                RevisionRow { id: row.get(1)?, number: row.get(2)?, digest: row.get(3)? };
            Ok((row.get(0)?, revision))
        })
        .optional()?;
    let (graph, number) = match current {
        Some((_, revision)) if revision.digest == digest => {
            return Ok(AppliedGraph { revision, changed: false });
        }
        Some((graph, revision)) => (graph, revision.number + 1),
        None => {
            let row = params![namespace.as_str(), name.as_str()];
            (tx.query_row(sql::NEW_GRAPH, row, |row| row.get(0))?, 1)
        }
    };
    let row = params![graph, number, digest, body, now];
    let id: i64 = tx.query_row(sql::NEW_REVISION, row, |row| row.get(0))?;
    tx.execute(sql::SET_CURRENT, [graph, id])?;
    let revision = RevisionRow { id, number, digest: digest.to_owned() };
    Ok(AppliedGraph { revision, changed: true })
}

fn plugin(row: &sqlx::sqlite::SqliteRow) -> Result<PluginRow, StoreError> {
    let digest: String = row.try_get(2)?;
    let nodes: String = row.try_get(5)?;
    let imports: String = row.try_get(6)?;
    Ok(PluginRow {
        name: name(row.try_get(0)?, "plugin", "name")?,
        version: row.try_get(1)?,
        digest: digest.parse().map_err(|_| corrupt("plugin", "digest", &digest))?,
        uploaded_at: row.try_get(3)?,
        size: row.try_get(4)?,
        nodes: parse(&nodes, "component", "nodes", &digest)?,
        imports: parse(&imports, "component", "imports", &digest)?,
        compile_ms: row.try_get(7)?,
    })
}

fn graph(row: &sqlx::sqlite::SqliteRow) -> Result<GraphRow, StoreError> {
    Ok(GraphRow {
        name: name(row.try_get(0)?, "graph", "name")?,
        revision: RevisionRow {
            id: row.try_get(1)?,
            number: row.try_get(2)?,
            digest: row.try_get(3)?,
        },
        body: row.try_get(4)?,
        created_at: row.try_get(5)?,
    })
}

pub(crate) fn name(text: String, table: &str, column: &str) -> Result<Name, StoreError> {
    text.parse().map_err(|_| corrupt(table, column, text))
}

fn parse<T: serde::de::DeserializeOwned>(
    text: &str,
    table: &str,
    column: &str,
    row: impl std::fmt::Display,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(table, column, row))
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Data(error.to_string()))
}
