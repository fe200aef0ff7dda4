//! Pauses of graphs and of namespaces, with their reasons, and the callers who paused single runs.
//! A namespace is paused by the quotas of its claims, which are zero on every host. A graph is
//! paused run by run: its runs follow it, one commit each, and a new run is born paused.
//!
//! Not here: how a run follows its graph (`commit::control`).

use exosphere_domain::ids::{Millis, Name, NamespaceKey, RunKey};

use crate::audit::{self, AuditEntry};
use crate::codec::read_int;
use crate::dialect::{Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, in_transaction, sql};

/// A pause of a run, a graph or a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The time at which it began.
    pub since: Millis,
    /// The caller who asked for it, if that is known.
    pub by: Option<String>,
    /// The reason, in the caller's words; empty for a run.
    pub reason: String,
}

/// A pause that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPause {
    /// The caller who asks for it, if that is known.
    pub by: Option<String>,
    /// The reason.
    pub reason: String,
}

/// The result of a pause of a graph, or of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphPause {
    /// The runs of the graph must follow it.
    Changed(PendingPause),
    /// The graph was paused already, or was not.
    Unchanged,
    /// The graph does not exist.
    Missing,
}

/// A graph whose runs are still to follow its pause, or the end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PendingPause {
    /// The id of the graph's row.
    pub graph: i64,
    /// The number of the change.
    pub event: i64,
    /// Set if the graph is paused now.
    pub is_paused: bool,
}

/// A place in the runs of a graph: newer ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunsFrom {
    created_at: Millis,
    run: i64,
}

impl RunsFrom {
    /// The place of the newest run.
    pub const NEWEST: RunsFrom = RunsFrom { created_at: Millis::MAX, run: i64::MAX };
}

impl Store {
    /// Pauses a graph, or ends its pause.
    pub async fn pause_graph(
        &self,
        namespace: &Name,
        name: &Name,
        pause: Option<&NewPause>,
        now: Millis,
    ) -> Result<GraphPause, StoreError> {
        let (namespace, name, pause) = (namespace.clone(), name.clone(), pause.cloned());
        let action = if pause.is_some() { "graph pause" } else { "graph resume" };
        let audit = self.audit_entry(action, Some(&namespace), &name);
        in_transaction!(self, now, |tx| pause_graph(
            tx,
            &namespace,
            &name,
            pause.as_ref(),
            audit.as_ref()
        ))
    }

    /// Pauses a namespace, or ends its pause. The namespace is created if it is missing.
    pub async fn pause_namespace(
        &self,
        namespace: &Name,
        pause: Option<&NewPause>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (namespace, pause) = (namespace.clone(), pause.cloned());
        let action = if pause.is_some() { "namespace pause" } else { "namespace resume" };
        let audit = self.audit_entry(action, Some(&namespace), &namespace);
        in_transaction!(self, now, |tx| pause_namespace(
            tx,
            &namespace,
            pause.as_ref(),
            audit.as_ref()
        ))
    }

    /// Reads the pause of a graph, if it is paused.
    pub async fn pause_of_graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<Pause>, StoreError> {
        let graph = params![namespace.as_str(), name.as_str()];
        self.reader.row(sql::PAUSE_OF_GRAPH, &graph, pause).await
    }

    /// Reads the pause of a namespace, if it is paused.
    pub async fn pause_of_namespace(&self, namespace: &Name) -> Result<Option<Pause>, StoreError> {
        self.reader.row(sql::PAUSE_OF_NAMESPACE, &params![namespace.as_str()], pause).await
    }

    /// Reads the pause of a run by itself. One from before the database recorded them is unknown.
    pub async fn own_pause_of_run(&self, run: RunKey) -> Result<Option<Pause>, StoreError> {
        self.reader.row(sql::OWN_PAUSE, &params![run.0], pause).await
    }

    /// Reads the paused namespaces.
    pub async fn paused_namespaces(&self) -> Result<Vec<NamespaceKey>, StoreError> {
        let keys = self.reader.rows(sql::PAUSED_NAMESPACES, &[], read_int).await?;
        Ok(keys.into_iter().map(NamespaceKey).collect())
    }

    /// Finds out whether a run is paused with its graph, and not by itself.
    pub async fn find_pause_with_graph(&self, run: RunKey) -> Result<bool, StoreError> {
        let pauses = self.reader.row(sql::PAUSES_OF_RUN, &params![run.0], read_pauses).await?;
        Ok(pauses.is_some_and(|pauses| pauses.with_graph))
    }

    /// Reads graphs whose runs are still to follow a pause or its end, `limit` at most.
    pub async fn pending_pauses(&self, limit: u32) -> Result<Vec<PendingPause>, StoreError> {
        let read = |row: &dyn Row| {
            let (graph, event, is_paused) = (row.int(0)?, row.int(1)?, row.int(2)? == 1);
            Ok(PendingPause { graph, event, is_paused })
        };
        self.reader.rows(sql::PENDING_PAUSES, &params![limit], read).await
    }

    /// Records that all runs of a graph have followed it, unless it has changed again.
    pub async fn end_pending_pause(
        &self,
        pending: PendingPause,
        now: Millis,
    ) -> Result<(), StoreError> {
        let PendingPause { graph, event, .. } = pending;
        in_transaction!(self, now, |tx| end_pending(tx, graph, event))
    }

    /// Reads the unpaused runs among the next `limit` unfinished runs of a graph, and the place after
    /// them; `None` after the last.
    pub async fn runs_to_pause(
        &self,
        graph: i64,
        from: RunsFrom,
        limit: u32,
    ) -> Result<(Vec<RunKey>, Option<RunsFrom>), StoreError> {
        let page = params![graph, from.created_at, from.run, limit];
        let read = |row: &dyn Row| Ok((row.int(0)?, row.int(1)?, row.int(2)? == 1));
        let page = self.reader.rows(sql::RUNS_TO_PAUSE, &page, read).await?;
        let is_full = page.len() as u32 == limit;
        let next = page.last().filter(|_| is_full);
        let next = next.map(|(created_at, run, _)| RunsFrom { created_at: *created_at, run: *run });
        let free = page.into_iter().filter(|(.., paused)| !paused);
        Ok((free.map(|(_, run, _)| RunKey(run)).collect(), next))
    }

    /// Reads a page of the runs that are paused with a graph, after a run.
    pub async fn runs_to_resume(
        &self,
        graph: i64,
        after: RunKey,
        limit: u32,
    ) -> Result<Vec<RunKey>, StoreError> {
        let page = params![graph, after.0, limit];
        let runs = self.reader.rows(sql::RUNS_PAUSED_WITH_GRAPH, &page, read_int).await?;
        Ok(runs.into_iter().map(RunKey).collect())
    }
}

/// The pauses that a run depends on.
pub(crate) struct PausesOfRun {
    /// Set if the graph of the run is paused.
    pub of_graph: bool,
    /// Set if the run is paused with its graph.
    pub with_graph: bool,
}

pub(crate) fn read_pauses(row: &dyn Row) -> Result<PausesOfRun, StoreError> {
    Ok(PausesOfRun { of_graph: row.int(0)? == 1, with_graph: row.int(1)? > 0 })
}

async fn pause_graph(
    tx: &mut impl Tx,
    namespace: &Name,
    name: &Name,
    pause: Option<&NewPause>,
    audit: Option<&AuditEntry>,
) -> Result<GraphPause, StoreError> {
    let read = |row: &dyn Row| Ok((row.int(0)?, row.maybe_int(1)?, row.int(2)?));
    let graph = params![namespace.as_str(), name.as_str()];
    let found = tx.query(sql::PAUSED_GRAPH, &graph, read).await?;
    let Some((graph, paused_at, event)) = found.into_iter().next() else {
        return Ok(GraphPause::Missing);
    };
    // A second pause may have another reason; it keeps the time of the first.
    let since = pause.map(|_| paused_at.unwrap_or(tx.now()));
    let (by, reason) = (pause.and_then(|it| it.by.as_deref()), pause.map(|it| it.reason.as_str()));
    if pause.is_none() && paused_at.is_none() {
        return Ok(GraphPause::Unchanged);
    }
    tx.execute(sql::PAUSE_GRAPH, &params![graph, since, by, reason]).await?;
    audit::record(tx, audit, None, None).await?;
    let is_paused = pause.is_some();
    Ok(GraphPause::Changed(PendingPause { graph, event: event + 1, is_paused }))
}

async fn pause_namespace(
    tx: &mut impl Tx,
    namespace: &Name,
    pause: Option<&NewPause>,
    audit: Option<&AuditEntry>,
) -> Result<(), StoreError> {
    let name = params![namespace.as_str()];
    tx.execute(sql::NEW_NAMESPACE, &name).await?;
    let before = tx.query(sql::PAUSE_OF_NAMESPACE, &name, self::pause).await?.pop();
    let since = pause.map(|_| before.map_or(tx.now(), |before| before.since));
    let (by, reason) = (pause.and_then(|it| it.by.as_deref()), pause.map(|it| it.reason.as_str()));
    tx.execute(sql::PAUSE_NAMESPACE, &params![namespace.as_str(), since, by, reason]).await?;
    audit::record(tx, audit, None, None).await
}

async fn end_pending(tx: &mut impl Tx, graph: i64, event: i64) -> Result<(), StoreError> {
    tx.execute(sql::END_PENDING_PAUSE, &params![graph, event]).await.map(drop)
}

fn pause(row: &dyn Row) -> Result<Pause, StoreError> {
    let since = row.maybe_int(0)?.ok_or_else(|| corrupt_row("graph", "paused_at", "?"))?;
    Ok(Pause { since, by: row.maybe_text(1)?, reason: row.maybe_text(2)?.unwrap_or_default() })
}
