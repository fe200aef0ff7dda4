//! Pauses of namespaces and of graphs on this host. Of a paused namespace, no host claims a state:
//! each reads the paused namespaces once a second. The runs of a graph follow its pause one after
//! the other. A host that dies meanwhile leaves that to another, or to its own next start.
//!
//! Not here: the requests (`service/pauses.rs`), and how one run follows its graph
//! (`exosphere_store`).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{NamespaceKey, RunKey};
use exosphere_store::{Control, Operation, PendingPause, Reply, RunsFrom, StoreError};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::database_backoff::{database_backoff, pause};
use crate::execution::committer::WorkHint;
use crate::execution::sweeps;
use crate::inner::HostInner;

/// Interval between reads of the paused namespaces, on a database with other hosts.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// Number of graphs that one read returns.
const GRAPHS_PER_READ: u32 = 100;

/// Number of runs that one read looks at, and that follow their graph concurrently.
const RUNS_PER_READ: u32 = 200;

/// The paused namespaces, and the task that makes runs follow their graphs.
#[derive(Default)]
pub(crate) struct Pauses {
    namespaces: Mutex<Vec<NamespaceKey>>,
    changed: Notify,
}

impl Pauses {
    /// Reports that the pause of a graph has changed, here or by a host that may be gone.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Returns the paused namespaces.
    pub(crate) fn namespaces(&self) -> Vec<NamespaceKey> {
        self.namespaces.lock().clone()
    }

    /// Returns whether a namespace is paused.
    pub(crate) fn is_paused(&self, namespace: NamespaceKey) -> bool {
        self.namespaces.lock().contains(&namespace)
    }
}

/// Starts the tasks of pauses.
pub(crate) fn start(inner: &Arc<HostInner>) {
    tokio::spawn(follow_graphs(inner.clone()));
    if inner.db.store.is_shared() {
        tokio::spawn(watch_namespaces(inner.clone()));
    }
}

/// Reads the paused namespaces. If one is resumed, claims look at its states again.
pub(crate) async fn read_namespaces(inner: &HostInner) -> Result<(), StoreError> {
    let paused = inner.db.store.paused_namespaces().await?;
    let before = std::mem::replace(&mut *inner.pipeline.pauses.namespaces.lock(), paused.clone());
    if before.iter().any(|namespace| !paused.contains(namespace)) {
        inner.pipeline.committer.hint(WorkHint { work: true, ..WorkHint::default() });
    }
    Ok(())
}

async fn watch_namespaces(inner: Arc<HostInner>) {
    while !inner.pipeline.committer.is_stopping() {
        tokio::time::sleep(READ_INTERVAL).await;
        if let Err(error) = read_namespaces(&inner).await {
            tracing::debug!(%error, "cannot read the paused namespaces yet");
        }
    }
}

async fn follow_graphs(inner: Arc<HostInner>) {
    let mut backoff = database_backoff();
    while !inner.pipeline.committer.is_stopping() {
        match follow_all(&inner).await {
            Ok(()) => {
                backoff.reset();
                inner.pipeline.pauses.changed.notified().await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot pause or resume the runs of a graph yet");
                pause(&mut backoff).await;
            }
        }
    }
}

async fn follow_all(inner: &Arc<HostInner>) -> Result<(), StoreError> {
    for pending in inner.db.store.pending_pauses(GRAPHS_PER_READ).await? {
        follow(inner, pending).await?;
    }
    Ok(())
}

/// Makes all runs of a graph follow it.
async fn follow(inner: &Arc<HostInner>, pending: PendingPause) -> Result<(), StoreError> {
    let PendingPause { graph, is_paused, .. } = pending;
    if is_paused {
        let mut from = Some(RunsFrom::NEWEST);
        while let Some(place) = from {
            let (runs, next) = inner.db.store.runs_to_pause(graph, place, RUNS_PER_READ).await?;
            follow_each(inner, runs).await?;
            from = next;
        }
    } else {
        let mut after = RunKey(0);
        loop {
            let runs = inner.db.store.runs_to_resume(graph, after, RUNS_PER_READ).await?;
            let Some(last) = runs.last() else { break };
            after = *last;
            follow_each(inner, runs).await?;
        }
    }
    inner.db.store.end_pending_pause(pending, inner.db.clock.now()).await
}

/// Makes some runs follow their graph, concurrently.
async fn follow_each(inner: &Arc<HostInner>, runs: Vec<RunKey>) -> Result<(), StoreError> {
    let followed = join_all(runs.into_iter().map(|run| follow_one(inner, run))).await;
    followed.into_iter().collect()
}

async fn follow_one(inner: &Arc<HostInner>, run: RunKey) -> Result<(), StoreError> {
    let info = match inner.caches.runs.get(&inner.db.store, run).await {
        Ok(info) => info,
        // The run was deleted meanwhile.
        Err(StoreError::Data(cause)) => {
            tracing::debug!(cause, run = run.0, "a run cannot follow its graph");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let operation = Operation::Control(info.clone(), Control::FollowGraph);
    if let Reply::ToSweep(event) = inner.pipeline.committer.submit(operation).await? {
        sweeps::begin_sweep(inner, info, event).await;
    }
    Ok(())
}
