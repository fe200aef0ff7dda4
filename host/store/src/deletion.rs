//! Deletion of graphs and plugins, and the removal of what deleted runs leave behind: their states
//! and all that belongs to these, in pieces of bounded size beside the commits.
//!
//! Not here: the deletion of one run, an operation of a commit (`commit::control`), and the task
//! that removes one piece after the other (`exosphere_orchestrator`, `removals`).

use exosphere_domain::ids::{Digest, Millis, Name, RunKey};

use crate::audit::{self, AuditEntry};
use crate::codec::{after_path, read_int, read_text, to_json, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, in_transaction, sql};

/// The maximum number of states of one piece of a removal: a few milliseconds of a transaction.
const MAX_STATES_PER_PIECE: u32 = 200;

/// The maximum number of outputs, and of attempts, of one piece.
const MAX_ROWS_PER_PIECE: u32 = 1_000;

/// The maximum number of ended runs that are deleted together with their graph, in one
/// transaction.
pub const MAX_RUNS_WITH_GRAPH: u32 = 10_000;

/// The maximum number of graphs that the refusal to remove a plugin names.
const MAX_NAMED_GRAPHS: u32 = 10;

/// The result of the removal of one piece of a deleted run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The removal continues from this path.
    More(String),
    /// Nothing is left.
    Done,
    /// Another host removes a piece of the run at this moment, or has removed the last one.
    Busy,
}

/// The result of the deletion of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphDeletion {
    /// The graph was deleted with this many revisions and ended runs.
    Deleted {
        /// The number of deleted revisions.
        revisions: u64,
        /// The number of deleted runs.
        runs: u64,
    },
    /// Some of its runs have not ended.
    Unfinished(u64),
    /// It has ended runs, and the request does not include them.
    HasRuns(u64),
    /// It has more than [`MAX_RUNS_WITH_GRAPH`] runs.
    TooManyRuns,
    /// The graph does not exist.
    Missing,
}

/// The uploads of a plugin to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// All of them.
    All,
    /// Those that no graph uses.
    Unused,
    /// The one with this digest.
    Digest(Digest),
}

/// The result of the removal of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginRemoval {
    /// The uploads with these digests were removed.
    Removed(Vec<Digest>),
    /// Graphs use an upload: its digest, and up to ten of them with the newest revision that does.
    Used(Digest, Vec<(Name, i64)>),
    /// There is no such upload.
    Missing,
}

impl Store {
    /// Lists deleted runs whose states are still being removed, `limit` at most.
    pub async fn deleted_runs(&self, limit: u32) -> Result<Vec<RunKey>, StoreError> {
        let runs = self.reader.rows(sql::DELETED_RUNS, &params![limit], read_int).await?;
        Ok(runs.into_iter().map(RunKey).collect())
    }

    /// Removes one piece of a deleted run, from a path on.
    pub async fn remove_piece(
        &self,
        run: RunKey,
        from: &str,
        now: Millis,
    ) -> Result<Removal, StoreError> {
        let from = from.to_owned();
        in_transaction!(self, now, |tx| remove_piece(tx, run, &from))
    }

    /// Deletes a graph with all its revisions and secrets, unless it has runs that have not ended;
    /// with its ended runs only if `with_runs` says so.
    pub async fn delete_graph(
        &self,
        namespace: &Name,
        name: &Name,
        with_runs: bool,
        now: Millis,
    ) -> Result<GraphDeletion, StoreError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        let audit = self.audit_entry("graph delete", Some(&namespace), &name);
        in_transaction!(self, now, |tx| delete_graph(
            tx,
            &namespace,
            &name,
            with_runs,
            audit.as_ref()
        ))
    }

    /// Removes uploads of a plugin, unless a current revision or the revision of a run names one.
    pub async fn remove_plugin(
        &self,
        namespace: &Name,
        name: &Name,
        uploads: Uploads,
        now: Millis,
    ) -> Result<PluginRemoval, StoreError> {
        let (namespace, name) = (namespace.clone(), name.clone());
        let audit = self.audit_entry("plugin remove", Some(&namespace), &name);
        in_transaction!(self, now, |tx| remove_plugin(
            tx,
            &namespace,
            &name,
            uploads,
            audit.as_ref()
        ))
    }
}

async fn remove_piece(tx: &mut impl Tx, run: RunKey, from: &str) -> Result<Removal, StoreError> {
    if tx.query(sql::LOCK_DELETED_RUN, &params![run.0], read_int).await?.is_empty() {
        return Ok(Removal::Busy);
    }
    let page = params![run.0, from, MAX_STATES_PER_PIECE];
    let read = |row: &dyn Row| Ok((row.int(0)?, row.text(1)?));
    let states = tx.query(sql::STATES_TO_REMOVE, &page, read).await?;
    let Some((_, last)) = states.last() else {
        tx.execute(sql::CLEAR_ENTRIES, &params![run.0]).await?;
        tx.execute(sql::REMOVE_INPUTS, &params![run.0]).await?;
        tx.execute(sql::REMOVE_START_STORE, &params![run.0]).await?;
        tx.execute(sql::REMOVE_LABELS, &params![run.0]).await?;
        tx.execute(sql::END_PAUSED_RUN, &params![run.0]).await?;
        tx.execute(sql::END_OWN_PAUSE, &params![run.0]).await?;
        tx.execute(sql::END_REMOVAL, &params![run.0]).await?;
        return Ok(Removal::Done);
    };
    let ids: Vec<i64> = states.iter().map(|(id, _)| *id).collect();
    let ids = to_json(&ids)?;
    // A state goes after all that belongs to it, so that nothing is left without a state.
    for statement in [sql::REMOVE_OUTPUTS, sql::REMOVE_ATTEMPTS] {
        let removed = tx.execute(statement, &params![&ids, MAX_ROWS_PER_PIECE]).await?;
        if removed >= u64::from(MAX_ROWS_PER_PIECE) {
            return Ok(Removal::More(from.to_owned()));
        }
    }
    let of_states =
        [sql::REMOVE_UNITES, sql::REMOVE_STAGINGS, sql::REMOVE_SNAPSHOTS, sql::REMOVE_STATES];
    for statement in of_states {
        tx.execute(statement, &params![&ids]).await?;
    }
    Ok(Removal::More(after_path(last)))
}

async fn delete_graph(
    tx: &mut impl Tx,
    namespace: &Name,
    name: &Name,
    with_runs: bool,
    audit: Option<&AuditEntry>,
) -> Result<GraphDeletion, StoreError> {
    let (graph_name, max_runs) = (params![namespace.as_str(), name.as_str()], MAX_RUNS_WITH_GRAPH);
    // Runs are locked before the graph, as the commits of their retries and starts do.
    let runs = params![namespace.as_str(), name.as_str(), max_runs + 1];
    let statuses = tx.query(sql::LOCK_RUNS_OF_GRAPH, &runs, read_text).await?;
    let graph = tx.query(sql::LOCK_GRAPH, &graph_name, read_int).await?;
    let Some(graph) = graph.into_iter().next() else { return Ok(GraphDeletion::Missing) };
    // A start that committed before the graph was locked is counted here, and not above.
    let count = tx.query(sql::COUNT_RUNS_OF_GRAPH, &params![graph], read_int).await?;
    let count = count.first().map_or(0, |count| count.unsigned_abs());
    let unfinished = statuses.iter().filter(|status| *status == "RUNNING").count() as u64
        + count.saturating_sub(statuses.len() as u64);
    if count > u64::from(max_runs) {
        return Ok(GraphDeletion::TooManyRuns);
    }
    if unfinished > 0 {
        return Ok(GraphDeletion::Unfinished(unfinished));
    }
    if count > 0 && !with_runs {
        return Ok(GraphDeletion::HasRuns(count));
    }
    let now = tx.now();
    let digest = tx.query(sql::CURRENT_DIGEST, &params![graph], read_text).await?.pop();
    let digest: Option<Digest> = digest.and_then(|digest| digest.parse().ok());
    tx.execute(sql::RECORD_DELETED_RUNS, &params![graph, now]).await?;
    tx.execute(sql::DELETE_DEADLINES_OF_GRAPH, &params![graph]).await?;
    tx.execute(sql::DELETE_RUNS_OF_GRAPH, &params![graph]).await?;
    tx.execute(sql::DELETE_USES_OF_GRAPH, &params![graph]).await?;
    let revisions = tx.execute(sql::DELETE_REVISIONS, &params![graph]).await?;
    tx.execute(sql::DELETE_SECRETS, &graph_name).await?;
    tx.execute(sql::DELETE_GRAPH, &params![graph]).await?;
    audit::record(tx, audit, digest.as_ref(), None).await?;
    Ok(GraphDeletion::Deleted { revisions, runs: count })
}

async fn remove_plugin(
    tx: &mut impl Tx,
    namespace: &Name,
    name: &Name,
    uploads: Uploads,
    audit: Option<&AuditEntry>,
) -> Result<PluginRemoval, StoreError> {
    let digest =
        if let Uploads::Digest(digest) = uploads { Some(digest.to_string()) } else { None };
    let (namespace, name) = (namespace.as_str(), name.as_str());
    let wanted = params![namespace, name, digest.as_deref()];
    let found = tx.query(sql::LOCK_UPLOADS, &wanted, read_text).await?;
    if found.is_empty() {
        return Ok(PluginRemoval::Missing);
    }
    let mut unused = Vec::with_capacity(found.len());
    for digest in found {
        let uses = params![namespace, name, &digest, MAX_NAMED_GRAPHS];
        let graphs = tx.query(sql::USES_OF_UPLOAD, &uses, read_use).await?;
        let parsed = digest.parse().map_err(|_| corrupt_row("plugin", "digest", &digest))?;
        match (graphs.is_empty(), uploads) {
            (true, _) => unused.push((digest, parsed)),
            (false, Uploads::Unused) => {}
            (false, _) => return Ok(PluginRemoval::Used(parsed, graphs)),
        }
    }
    for (digest, parsed) in &unused {
        audit::record(tx, audit, Some(parsed), None).await?;
        tx.execute(sql::DELETE_UPLOAD, &params![namespace, name, digest]).await?;
        // The same bytes may be another plugin, here or in another namespace.
        tx.query(sql::LOCK_COMPONENT, &params![digest], read_int).await?;
        tx.execute(sql::DELETE_EXPORTED, &params![digest]).await?;
        tx.execute(sql::DELETE_COMPONENT, &params![digest]).await?;
    }
    Ok(PluginRemoval::Removed(unused.into_iter().map(|(_, digest)| digest).collect()))
}

fn read_use(row: &dyn Row) -> Result<(Name, i64), StoreError> {
    Ok((to_name(row.text(0)?, "graph", "name")?, row.int(1)?))
}
