//! Removes what deleted runs leave behind, in pieces beside the commits. Unfinished removals are in
//! the database, and another host (or the next start of this one) continues them.
//!
//! Not here: the deletion itself (`service/deletion.rs`), and the effect of a piece
//! (`exosphere_store`).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::RunKey;
use exosphere_store::{Removal, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::database_backoff::{database_backoff, pause};
use crate::inner::HostInner;

/// Number of deleted runs that one read returns.
const RUNS_PER_READ: u32 = 100;

/// The longest pause after a piece. A pause is as long as its piece took, so that a removal takes
/// at most half of the database's time for writes.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Wakes the task that removes deleted runs.
#[derive(Default)]
pub(crate) struct Removals {
    deleted: Notify,
}

impl Removals {
    /// Reports that runs were deleted, here or by a host that may be gone.
    pub(crate) fn wake(&self) {
        self.deleted.notify_one();
    }
}

/// Starts the task that removes deleted runs. It begins with those of earlier hosts.
pub(crate) fn start(inner: &Arc<HostInner>) {
    tokio::spawn(run(inner.clone()));
}

async fn run(inner: Arc<HostInner>) {
    let mut backoff = database_backoff();
    while !inner.pipeline.committer.is_stopping() {
        match remove_all(&inner).await {
            Ok(()) => {
                backoff.reset();
                inner.pipeline.removals.deleted.notified().await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot remove deleted runs yet");
                pause(&mut backoff).await;
            }
        }
    }
}

/// Removes all deleted runs, except those that other hosts are removing.
async fn remove_all(inner: &HostInner) -> Result<(), StoreError> {
    loop {
        let mut has_removed = false;
        for run in inner.db.store.deleted_runs(RUNS_PER_READ).await? {
            has_removed |= remove(inner, run).await?;
        }
        if !has_removed {
            return Ok(());
        }
    }
}

/// Removes a deleted run, one piece after the other. Returns `false` if another host does.
async fn remove(inner: &HostInner, run: RunKey) -> Result<bool, StoreError> {
    let mut from = String::new();
    loop {
        if inner.pipeline.committer.is_stopping() {
            return Ok(false);
        }
        let begun = Instant::now();
        match inner.db.store.remove_piece(run, &from, inner.db.clock.now()).await? {
            Removal::More(next) => from = next,
            Removal::Done => return Ok(true),
            Removal::Busy => return Ok(false),
        }
        tokio::time::sleep(begun.elapsed().min(MAX_PAUSE)).await;
    }
}
