//! Carries out bulk operations, page by page, through the operations of single requests. A page is
//! changed in pieces, with a pause after each that is as long as the piece took, so that commits of
//! others come in between.
//!
//! One host carries out an operation: that whose session has claimed it. When that session is over,
//! another host claims the operation, or the next start of the same one does, and begins its page
//! again. Runs that the page is done with are in the database, and are not changed again.
//!
//! Not here: the requests (`service/bulk.rs`), and the change of one run (`exosphere_store`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::bulk::BulkAction;
use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{BulkId, Millis, Name, RunKey};
use exosphere_store::{
    BulkPage, BulkStep, Control, Operation, RedrivePart, Reply, RunInfo, StoreError,
};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::database_backoff::{database_backoff, pause};
use crate::execution::sweeps::{FailedStates, begin_sweep, continue_redrive};
use crate::inner::HostInner;

/// Maximum number of runs of a page: the work that is looked at again after a crash.
const RUNS_PER_PAGE: u32 = 100;

/// Number of runs that are changed at once: a few milliseconds of a commit.
const RUNS_PER_PIECE: usize = 16;

/// Maximum number of operations that this host carries out at once, one of each namespace.
const MAX_ACTIVE: usize = 4;

/// Number of operations that one read returns.
const BULKS_PER_READ: u32 = 200;

/// Maximum number of namespaces whose last operation is remembered.
const MAX_REMEMBERED: usize = 1_000;

/// The longest pause after a piece.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The time for which an operation that is over is kept, in milliseconds: 30 days.
pub(crate) const RETENTION_MS: Millis = 30 * 24 * 60 * 60 * 1000;

/// Number of operations that are removed at once.
const REMOVALS_PER_TRANSACTION: u32 = 100;

/// Interval between two removals of operations that are too old.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Wakes the task that carries out bulk operations.
#[derive(Default)]
pub(crate) struct Bulks {
    changed: Notify,
}

impl Bulks {
    /// Reports that there may be an operation to carry out, a new one or that of a lost host.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Starts the tasks of bulk operations. They begin with those of earlier hosts.
pub(crate) fn start(inner: &Arc<HostInner>) {
    tokio::spawn(run(inner.clone()));
    tokio::spawn(remove_old(inner.clone()));
}

async fn run(inner: Arc<HostInner>) {
    let mut backoff = database_backoff();
    let mut rotation = Rotation::default();
    while !inner.pipeline.committer.is_stopping() {
        match carry_out_all(&inner, &mut rotation).await {
            Ok(()) => {
                backoff.reset();
                inner.pipeline.bulks.changed.notified().await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot carry out bulk operations yet");
                pause(&mut backoff).await;
            }
        }
    }
}

/// Carries out pages of operations, until none is left that this host may carry out.
async fn carry_out_all(inner: &Arc<HostInner>, rotation: &mut Rotation) -> Result<(), StoreError> {
    // Tasks of their own: they hold connections, which the search for the next pages needs, too.
    let mut active = JoinSet::new();
    let mut namespaces = HashSet::new();
    while !inner.pipeline.committer.is_stopping() {
        for page in next_pages(inner, rotation, &namespaces).await? {
            namespaces.insert(page.namespace.clone());
            let inner = inner.clone();
            active.spawn(async move {
                let namespace = page.namespace.clone();
                (namespace, carry_out(&inner, page).await)
            });
        }
        tokio::select! {
            Some(ended) = active.join_next() => {
                let stopped = |error: JoinError| StoreError::Data(error.to_string());
                let (namespace, done) = ended.map_err(stopped)?;
                namespaces.remove(&namespace);
                done?;
            }
            () = inner.pipeline.bulks.changed.notified(), if !active.is_empty() => {}
            else => return Ok(()),
        }
    }
    Ok(())
}

/// Claims the operations that come next, of namespaces without an active one.
async fn next_pages(
    inner: &HostInner,
    rotation: &mut Rotation,
    active: &HashSet<Name>,
) -> Result<Vec<BulkPage>, StoreError> {
    let session = inner.cluster.session.current();
    let mut claimed = Vec::new();
    let free = MAX_ACTIVE.saturating_sub(active.len());
    // From the last namespace on, and then from the first.
    for after in [std::mem::take(&mut rotation.after), String::new()] {
        if claimed.len() == free {
            break;
        }
        let running = inner.db.store.running_bulks(session, &after, BULKS_PER_READ).await?;
        for page in rotation.choose(running) {
            let is_taken = |other: &BulkPage| other.namespace == page.namespace;
            if claimed.len() == free
                || active.contains(&page.namespace)
                || claimed.iter().any(is_taken)
            {
                continue;
            }
            let now = inner.db.clock.now();
            if page.is_claimed || inner.db.store.claim_bulk(session, page.id, now).await? {
                rotation.remember(&page);
                claimed.push(page);
            }
        }
    }
    Ok(claimed)
}

/// The order of operations: round-robin over namespaces, and within one over its operations.
#[derive(Default)]
struct Rotation {
    /// The namespace whose operation was taken last.
    after: String,
    /// The operation of each namespace that was taken last.
    last: BTreeMap<Name, BulkId>,
}

impl Rotation {
    /// Chooses one operation of each namespace, of operations in the order of namespaces and ids.
    fn choose(&self, running: Vec<BulkPage>) -> Vec<BulkPage> {
        let mut chosen: Vec<BulkPage> = Vec::new();
        for page in running {
            let is_next =
                |page: &BulkPage| self.last.get(&page.namespace).is_none_or(|last| page.id > *last);
            match chosen.last_mut().filter(|first| first.namespace == page.namespace) {
                None => chosen.push(page),
                Some(first) if !is_next(first) && is_next(&page) => *first = page,
                Some(_) => {}
            }
        }
        chosen
    }

    fn remember(&mut self, page: &BulkPage) {
        if self.last.len() >= MAX_REMEMBERED {
            self.last.clear();
        }
        page.namespace.as_str().clone_into(&mut self.after);
        self.last.insert(page.namespace.clone(), page.id);
    }
}

/// Carries out one page of an operation.
async fn carry_out(inner: &Arc<HostInner>, page: BulkPage) -> Result<(), StoreError> {
    let (store, clock) = (&inner.db.store, &inner.db.clock);
    let (runs, next) = match store.runs_of_bulk(&page, RUNS_PER_PAGE).await {
        Ok(found) => found,
        Err(StoreError::Data(cause)) => {
            tracing::error!(cause, bulk = %page.id, "a bulk operation cannot be read; it ends");
            return store.fail_bulk(page.id, clock.now()).await;
        }
        Err(error) => return Err(error),
    };
    for piece in runs.chunks(RUNS_PER_PIECE) {
        if inner.pipeline.committer.is_stopping() {
            return Ok(());
        }
        let begun = Instant::now();
        let changed = join_all(piece.iter().map(|run| change(inner, &page, *run))).await;
        changed.into_iter().collect::<Result<(), _>>()?;
        tokio::time::sleep(begun.elapsed().min(MAX_PAUSE)).await;
    }
    store.end_page_of_bulk(&page, next, clock.now()).await?;
    if next.is_none() {
        tracing::info!(bulk = %page.id, action = %page.action, "a bulk operation has no runs left");
    }
    Ok(())
}

/// Changes one run, and records it if the change fails.
async fn change(inner: &Arc<HostInner>, page: &BulkPage, run: RunKey) -> Result<(), StoreError> {
    match try_change(inner, page, run).await {
        // The run is corrupt, or was deleted meanwhile: then it does not count.
        Err(StoreError::Data(cause)) => {
            tracing::error!(cause, bulk = %page.id, run = run.0, "a bulk operation failed on a run");
            inner.db.store.fail_run_of_bulk(page, run, inner.db.clock.now()).await
        }
        done => done,
    }
}

async fn try_change(
    inner: &Arc<HostInner>,
    page: &BulkPage,
    run: RunKey,
) -> Result<(), StoreError> {
    let run = inner.caches.runs.get(&inner.db.store, run).await?;
    let change = match page.action {
        BulkAction::Cancel => Control::Cancel,
        BulkAction::Delete => Control::Delete,
        BulkAction::Redrive => {
            let mut failed = FailedStates::new(&run);
            let first = failed.next(inner).await?;
            Control::Redrive(if failed.is_read {
                RedrivePart::Whole(first)
            } else {
                RedrivePart::Begin
            })
        }
    };
    match submit(inner, page, &run, change).await? {
        Reply::ToSweep(event) if page.action == BulkAction::Redrive => {
            continue_redrive(inner, run, event).await.map(drop)
        }
        Reply::ToSweep(event) => {
            begin_sweep(inner, run, event).await;
            Ok(())
        }
        Reply::Done if page.action == BulkAction::Delete => {
            inner.pipeline.removals.wake();
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn submit(
    inner: &HostInner,
    page: &BulkPage,
    run: &Arc<RunInfo>,
    change: Control,
) -> Result<Reply, StoreError> {
    let ended_before = page.action.needs_ended().then_some(page.frozen_at);
    let step = BulkStep { bulk: page.id, page: page.page, ended_before, change };
    let operation = Operation::Control(run.clone(), Control::Bulk(Box::new(step)));
    inner.pipeline.committer.submit(operation).await
}

/// Removes operations that ended long ago, from time to time.
async fn remove_old(inner: Arc<HostInner>) {
    while !inner.pipeline.committer.is_stopping() {
        if let Err(error) = remove_all_old(&inner).await {
            tracing::debug!(%error, "cannot remove old bulk operations yet");
        }
        tokio::time::sleep(REMOVAL_INTERVAL).await;
    }
}

async fn remove_all_old(inner: &HostInner) -> Result<(), StoreError> {
    let now = inner.db.clock.now();
    let before = now.saturating_sub(RETENTION_MS);
    let limit = REMOVALS_PER_TRANSACTION;
    while inner.db.store.remove_bulks(before, limit, now).await? >= u64::from(limit) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn pages(running: &[(&str, u128)]) -> Vec<BulkPage> {
        let page = |(namespace, id): &(&str, u128)| BulkPage {
            id: BulkId(Uuid::from_u128(*id)),
            namespace: namespace.parse().unwrap(),
            action: BulkAction::Cancel,
            frozen_at: 0,
            page: 0,
            is_claimed: false,
            filter: String::new(),
            after: None,
        };
        running.iter().map(page).collect()
    }

    fn chosen(rotation: &Rotation, running: &[(&str, u128)]) -> Vec<u128> {
        rotation.choose(pages(running)).iter().map(|page| page.id.0.as_u128()).collect()
    }

    #[test]
    fn operations_of_a_namespace_take_turns() {
        let running = [("a", 1), ("a", 2), ("a", 5), ("b", 3), ("b", 4)];
        let mut rotation = Rotation::default();
        assert_eq!(chosen(&rotation, &running), [1, 3]);
        let mut turns = Vec::new();
        for _ in 0..4 {
            let next = rotation.choose(pages(&running)).remove(0);
            turns.push(next.id.0.as_u128());
            rotation.remember(&next);
        }
        assert_eq!(turns, [1, 2, 5, 1]);
        assert_eq!(rotation.after, "a");
        assert_eq!(chosen(&rotation, &running), [2, 3]);
        assert_eq!(chosen(&rotation, &[("a", 1), ("b", 4)]), [1, 4], "the others are over");
    }

    #[test]
    fn remembered_namespaces_are_bounded() {
        let mut rotation = Rotation::default();
        for number in 0..2 * MAX_REMEMBERED {
            let name = format!("n{number}");
            rotation.remember(&pages(&[(&name, 1)])[0]);
            assert!(rotation.last.len() <= MAX_REMEMBERED);
        }
    }
}
