//! One transaction of the commit loop, repeated for as long as the database is unavailable.
//!
//! Not here: a batch that fails because of the data of one operation (`bisect`).

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Instant;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::StateId;
use exosphere_store::{Batch, ClaimMode, ClaimShares, Committed, Operation, Reply, StoreError};
use futures::FutureExt;

use super::CommitLoop;
use super::bisect::BatchView;
use super::reply::ReplySender;
use crate::database_backoff::{database_backoff, pause};

/// Maximum number of successive conflicts after which a transaction is retried immediately.
/// After more, the database counts as unavailable.
const MAX_CONFLICTS: u32 = 20;

/// The reason why a transaction is not repeated.
#[derive(Debug)]
pub(super) enum Halt {
    /// The data of one of the operations makes the transaction fail.
    Data(String),
    /// The operation at this index was withdrawn.
    Withdrawn(usize),
}

impl CommitLoop {
    /// Runs one transaction, and repeats it for as long as the database is unavailable. Stops
    /// at bad data, and at an operation that was withdrawn meanwhile.
    pub(super) async fn try_commit(
        &mut self,
        view: BatchView<'_>,
        range: Range<usize>,
        budget: ClaimMode,
        shares: &ClaimShares,
    ) -> Result<Committed, Halt> {
        let (mut backoff, mut conflicts) = (database_backoff(), 0);
        let mut in_doubt = false;
        let senders = || view.senders.get(range.clone()).unwrap_or_default().iter();
        loop {
            let withdrawn =
                |sender: &Option<ReplySender>| sender.as_ref().is_some_and(|reply| !reply.enter());
            if let Some(at) = senders().position(withdrawn) {
                return Err(Halt::Withdrawn(range.start + at));
            }
            let batch = Batch {
                operations: view.operations.clone(),
                range: range.clone(),
                session: self.inner.cluster.session.current(),
                now: self.inner.db.clock.now(),
                claim_mode: budget,
                shares: shares.clone(),
                rotation: self.pacing.commits(),
                cursors: self.pacing.cursors().clone(),
                staged_queues: self.pacing.staged_queues(),
                traces: self.inner.traces.sampled(),
            };
            let began_at = Instant::now();
            // A panic is an internal error, and counts as an error of the data that
            // caused it.
            let commit = AssertUnwindSafe(self.commit_or_prove(batch)).catch_unwind().await;
            let commit =
                commit.unwrap_or_else(|_| Err(StoreError::Data("made the host panic".into())));
            match &commit {
                Ok(_) => {}
                Err(StoreError::Unknown(_)) => {
                    in_doubt = true;
                    senders().flatten().for_each(ReplySender::mark_in_doubt)
                }
                Err(_) => senders().flatten().for_each(ReplySender::leave),
            }
            let cause = match commit {
                Ok(mut done) => {
                    self.inner.metrics.committed(range.len(), began_at.elapsed());
                    self.confirm_commit();
                    if in_doubt && self.inner.traces.sampled().is_some() {
                        done.report.in_doubt = stale_ends(&view.operations[range], &done.replies);
                    }
                    return Ok(done);
                }
                Err(StoreError::Data(cause) | StoreError::Refused(cause)) => {
                    return Err(Halt::Data(cause));
                }
                Err(error @ StoreError::Changed) => return Err(Halt::Data(error.to_string())),
                // No operation of a commit is bound by a quota.
                Err(breach @ StoreError::Quota(_)) => return Err(Halt::Data(breach.to_string())),
                Err(StoreError::Contention(_)) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    continue;
                }
                Err(
                    StoreError::Contention(cause)
                    | StoreError::Unavailable(cause)
                    | StoreError::Unknown(cause),
                ) => cause,
            };
            tracing::error!(cause, "the database is unavailable; trying again");
            self.inner.metrics.commit_failures.fetch_add(1, Ordering::Relaxed);
            self.last_commit_confirmed = false;
            self.mailbox.set_last_error(Some(cause));
            pause(&mut backoff).await;
        }
    }

    /// Records that a transaction has succeeded. After an outage, claims of a commit that
    /// seemed to fail may be orphaned, and notifications of other hosts were missed.
    fn confirm_commit(&mut self) {
        self.mailbox.set_last_error(None);
        self.inner.db.probe.committed();
        if !std::mem::replace(&mut self.last_commit_confirmed, true) {
            tracing::info!("the database is available again");
            self.mailbox.claims.request_reconcile();
            self.pacing.expect_more();
        }
    }

    /// Commits a batch. An empty batch may write nothing, so its success does not prove that
    /// the disk has room. After a failure, a test write therefore precedes it.
    async fn commit_or_prove(&self, batch: Batch) -> Result<Committed, StoreError> {
        let (store, session) = (&self.inner.db.store, batch.session);
        if batch.range.is_empty() && !self.last_commit_confirmed && !store.is_shared() {
            store.prove_writable(session, batch.now).await?;
        }
        store.commit(batch).await
    }
}

/// Returns the states whose ends changed nothing: an earlier try of the same transaction may have
/// committed them.
fn stale_ends(operations: &[Operation], replies: &[Reply]) -> Vec<StateId> {
    let ends = operations.iter().zip(replies).filter_map(|each| match each {
        (Operation::Finish(finished), Reply::Stale) => Some(finished.state.id),
        _ => None,
    });
    ends.collect()
}
