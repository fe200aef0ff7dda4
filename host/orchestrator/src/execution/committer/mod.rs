//! The committer: collects waiting operations into one transaction and passes its effects on
//! (`dispatcher`). It collects the next batch while the last one is synced, and knows when the
//! next state is due; nothing here polls.
//!
//! It has its own thread, so that it waits neither for executions and requests nor, on SQLite,
//! for another thread to write.
//!
//! This file is the loop. An operation passes the parts in this order: `mailbox`, `reply`,
//! `cost`, `budget`, `queue` with its `lanes`, then the loop with its `pacing`, `bisect` and
//! `transaction`.

mod mailbox;
mod reply;
mod cost;
mod budget;
mod queue;
mod lanes;
mod pacing;
mod bisect;
mod transaction;

use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_store::{ClaimMode, ClaimShares, ClaimedState, Operation, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use bisect::{BatchView, CommitSummary};
use budget::Charge;
pub(crate) use cost::{ROW_BYTES, end as cost_of_end};
pub(crate) use mailbox::{Committer, WorkHint};
use pacing::{ClaimRoom, Pacing, claims_due, remaining_shares};
pub(crate) use queue::MAX_BATCH_BYTES;
use queue::{NextBatch, QueuedOperation};
pub(crate) use reply::ReplySender;

use crate::MAX_CLAIMS_PER_SLOT;
use crate::cluster::recovery;
use crate::database_backoff::MIN_PAUSE;
use crate::execution::claims::ClaimPermit;
use crate::execution::dispatcher::{self, CommitEffects, DispatchMessage};
use crate::inner::HostInner;

/// Starts the commit loop on its own thread, which ends with the drain.
///
/// # Errors
///
/// If the system cannot start a thread.
pub(crate) fn start(inner: Arc<HostInner>) -> std::io::Result<()> {
    let commit_loop = CommitLoop {
        effects: dispatcher::start(inner.clone()),
        host_runtime: Handle::current(),
        mailbox: inner.pipeline.committer.clone(),
        pacing: Pacing::new(inner.db.clock.now()),
        inner,
        last_commit_confirmed: true,
    };
    let guard = commit_loop.inner.lifeline.guard("the committer");
    // The thread has its own runtime, so that an answer of Postgres need not wait for a worker
    // thread that is busy with an execution.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("committer".into());
    let work = move || {
        if runtime.block_on(commit_loop.run()) {
            guard.end();
        }
    };
    thread.spawn(work).map(drop)
}

/// The commit loop.
struct CommitLoop {
    inner: Arc<HostInner>,
    mailbox: Committer,
    pacing: Pacing,
    /// The channel to the dispatcher.
    effects: mpsc::UnboundedSender<DispatchMessage>,
    /// The runtime for work other than commits. A connection belongs to the runtime that
    /// made it, and the committer's runtime ends before the host.
    host_runtime: Handle,
    /// Set if the last transaction is known to have succeeded.
    last_commit_confirmed: bool,
}

/// Closes the queue, so that waiting callers learn that no commit follows.
impl Drop for CommitLoop {
    fn drop(&mut self) {
        self.mailbox.queue.close();
    }
}

/// The operations of one commit, with their replies, claim permits and charges.
#[derive(Default)]
struct CommitInput {
    operations: Vec<Operation>,
    senders: Vec<Option<ReplySender>>,
    permits: Vec<ClaimPermit>,
    /// The charges of these operations, held until they are committed.
    charges: Vec<Charge>,
}

impl From<Vec<QueuedOperation>> for CommitInput {
    fn from(operations: Vec<QueuedOperation>) -> Self {
        let mut input = CommitInput::default();
        for QueuedOperation { operation, permit, sender, charge } in operations {
            input.operations.push(operation);
            input.senders.push(sender);
            input.permits.extend(permit);
            input.charges.extend(charge);
        }
        input
    }
}

impl CommitLoop {
    /// Commits until the host is drained. Returns `false` if the loop cannot continue
    /// before that.
    async fn run(mut self) -> bool {
        let mut draining: Option<oneshot::Sender<()>> = None;
        loop {
            self.wait().await;
            let NextBatch { mut operations, hints, drain } = self.mailbox.queue.take();
            operations.retain(|operation| !operation.is_withdrawn());
            draining = drain.or(draining);
            hints.into_iter().for_each(|hint| self.pacing.apply_hint(hint));
            if !self.commit(CommitInput::from(operations)).await {
                // A host that delivers no effects cannot work, and must stop claiming.
                tracing::error!(
                    "the effects of commits are not delivered; the host has to be restarted"
                );
                return false;
            }
            if self.mailbox.claims.take_reconcile_request() {
                self.release_orphans().await;
            }
            if self.mailbox.claims.in_use() == 0
                && self.mailbox.queue.is_empty()
                && let Some(done) = draining.take()
            {
                self.inner.db.store.end_commits().await;
                let _ = self.effects.send(DispatchMessage::Drained(done));
                return true;
            }
        }
    }

    /// Waits for work: an operation, a due state, or a claim permit to claim it with.
    async fn wait(&self) {
        let Committer { queue, claims, .. } = &self.mailbox;
        let has_room = self.room().spare(0) > 0;
        let is_stopping = self.mailbox.is_stopping();
        let may_claim = has_room && !is_stopping;
        let is_ready = ((self.pacing.has_more_due() || self.has_room_again()) && may_claim)
            || claims.needs_reconcile()
            || !queue.is_empty();
        if is_ready {
            return;
        }
        let left = if may_claim { self.pacing.time_until_due(self.pacing.now()) } else { None };
        let due = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = queue.arrived() => {}
            // Free claim permits matter to a loop that wants to claim or that drains.
            () = claims.changed(), if !has_room || is_stopping || !self.pacing.has_more_due() => {}
            () = due => {}
        }
    }

    /// Returns the room for claims, by the prefetch target and the claim table.
    fn room(&self) -> ClaimRoom {
        let claims = &self.mailbox.claims;
        ClaimRoom {
            target: self.inner.pipeline.prefetch.total_now(),
            claimed: claims.in_use(),
            free: claims.free(),
        }
    }

    /// Computes the remaining share of each namespace and run, as if these permits were
    /// released.
    fn shares(&self, released: &[ClaimPermit]) -> ClaimShares {
        let inner = &self.inner;
        let share = |slots: u32| slots.saturating_mul(MAX_CLAIMS_PER_SLOT);
        let own = inner.caches.namespaces.all_slots().into_iter();
        let own =
            own.map(|(key, slots)| (key, share(inner.settings.slots_of(Some(slots))))).collect();
        let mut claims = self.mailbox.claims.counts();
        released.iter().for_each(|permit| claims.remove(permit));
        let mut shares = remaining_shares(
            share(inner.settings.slots_of(None)),
            own,
            &inner.targets().namespaces,
            claims,
        );
        // Nothing of a paused namespace is claimed.
        shares.left.extend(inner.pipeline.pauses.namespaces().into_iter().map(|key| (key, 0)));
        shares
    }

    /// Returns `true` if a namespace or run that had used up its share has room again.
    fn has_room_again(&self) -> bool {
        self.pacing.is_saturated() && self.pacing.has_room_again(&self.shares(&[]))
    }

    /// Commits a batch and passes its effects to the dispatcher. Returns `false` if the
    /// dispatcher has ended.
    async fn commit(&mut self, input: CommitInput) -> bool {
        let CommitInput { operations, senders, permits, charges } = input;
        let operations: Arc<[Operation]> = operations.into();
        let shares = self.shares(&permits);
        self.pacing.begin_commit();
        let claim_mode = self.claim_mode(permits.len(), &shares);
        if operations.is_empty() && !claims_due(claim_mode) {
            return true;
        }
        let started = Instant::now();
        let view = BatchView { operations: &operations, senders: &senders };
        let CommitSummary { replies, mut done } =
            self.commit_bisected(view, claim_mode, &shares).await;
        tracing::trace!(operations = operations.len(), elapsed = ?started.elapsed(), "committed");
        // Claim permits are released before new ones are acquired; only this loop
        // acquires them.
        drop((permits, operations, charges));
        self.pacing.update_pacing(&done, claim_mode);
        self.mailbox.on_runs_changed(&done.run_updates);
        let claimed = std::mem::take(&mut done.claimed);
        let claimed = claimed.into_iter().filter_map(|state| self.acquire_permit(state)).collect();
        let replies = senders.into_iter().zip(replies);
        let replies = replies.filter_map(|(sender, reply)| Some((sender?, reply))).collect();
        let effects = Box::new(CommitEffects { done, replies, claimed });
        self.effects.send(DispatchMessage::Committed(effects)).is_ok()
    }

    /// Decides which states a commit may claim if its operations release this many claim
    /// permits.
    fn claim_mode(&self, released: usize, shares: &ClaimShares) -> ClaimMode {
        if self.mailbox.is_stopping() {
            return ClaimMode::NewOnly(0);
        }
        let spare = self.room().spare(released as u32);
        self.pacing.claim_mode(self.pacing.now(), spare, shares)
    }

    /// Acquires a claim permit for a state. If none is free, which would be an internal
    /// error, the state is given back.
    fn acquire_permit(&self, state: ClaimedState) -> Option<(ClaimedState, ClaimPermit)> {
        let permit = self.mailbox.claims.acquire(&state);
        if permit.is_none() {
            self.mailbox.claims.request_reconcile();
        }
        Some((state, permit?))
    }

    /// Gives back states that the database holds for this host and that the host does not know
    /// of. A commit that seemed to fail has succeeded, and its claims were never delivered.
    async fn release_orphans(&mut self) {
        let (inner, claims) = (self.inner.clone(), self.mailbox.claims.clone());
        let orphans = async move { recovery::orphaned_claims(&inner, &claims).await };
        let orphans = self.host_runtime.spawn(orphans).await.unwrap_or_else(|ended| {
            Err(StoreError::Unavailable(format!(
                "the look for orphaned claims ended early: {ended}"
            )))
        });
        match orphans {
            Ok(operations) if operations.is_empty() => {}
            Ok(operations) => {
                tracing::info!(states = operations.len(), "gave back orphaned claims");
                let operations: Arc<[Operation]> = operations.into();
                let shares = self.shares(&[]);
                let view = BatchView { operations: &operations, senders: &[] };
                let CommitSummary { done, .. } =
                    self.commit_bisected(view, ClaimMode::NewOnly(0), &shares).await;
                self.inner.metrics.add_counts(done.commit_counts);
                self.pacing.expect_more();
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for orphaned claims yet");
                tokio::time::sleep(MIN_PAUSE).await;
                self.mailbox.claims.request_reconcile();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::plan::Transition;
    use exosphere_store::{Control, Reply};

    use super::cost::tests::ended;
    use super::*;
    use crate::{Config, Host};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn operations_are_answered_after_their_commit() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { slots: 1, namespace_slots: 1, ..Config::new(folder.path()) };
        let host = Host::start(config).await.unwrap();
        let run = ended(Transition::Pruned { data: None }).run;
        let submit = |_| {
            host.inner.pipeline.committer.submit(Operation::Control(run.clone(), Control::Cancel))
        };
        for reply in futures::future::join_all((0..20).map(submit)).await {
            assert!(matches!(reply, Ok(Reply::Missing)), "{reply:?}");
        }
        assert_eq!((host.health(), host.holding()), (Ok(()), 0));
        host.stop().await.unwrap();
        let stopped =
            host.inner.pipeline.committer.submit(Operation::Control(run, Control::Cancel)).await;
        assert!(matches!(stopped, Err(StoreError::Unavailable(_))), "{stopped:?}");
    }
}
