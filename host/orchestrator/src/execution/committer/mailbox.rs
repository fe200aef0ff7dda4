//! The mailbox of the commit loop: the handle by which the rest of the host submits
//! operations, passes hints, and asks about claims and health.
//!
//! Not here: the commit queue behind it (`queue`), and any commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exosphere_domain::ids::Millis;
use exosphere_store::{Finished, Operation, Reply, RunUpdate, StoreError};
use tokio::sync::oneshot;

use super::queue::Queue;
use super::reply::ReplySender;
use crate::execution::claims::{ClaimCounts, ClaimPermit, ClaimTable};
use parking_lot::Mutex;

/// A handle to the commit loop. Its clones are the same mailbox.
#[derive(Clone)]
pub(crate) struct Committer {
    pub(super) queue: Arc<Queue>,
    pub(super) claims: Arc<ClaimTable>,
    stopping: Arc<AtomicBool>,
    /// The error of the last transaction, if the database was unavailable.
    last_error: Arc<Mutex<Option<String>>>,
}

/// A hint from outside the commit loop that states may be due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkHint {
    /// The current time, by the clock of the database if that is shared.
    pub now: Option<Millis>,
    /// The time at which a state is due, by that clock.
    pub due: Option<Millis>,
    /// Set if a state may be due already.
    pub work: bool,
}

impl Committer {
    /// Creates a committer for a host that claims up to `capacity` states.
    pub(crate) fn new(capacity: u32) -> Self {
        Committer {
            queue: Arc::new(Queue::new()),
            claims: Arc::new(ClaimTable::new(capacity)),
            stopping: Arc::default(),
            last_error: Arc::default(),
        }
    }

    /// Commits an operation and returns its reply.
    pub(crate) async fn submit(&self, operation: Operation) -> Result<Reply, StoreError> {
        self.enqueue(operation).await
    }

    /// Queues an operation immediately; the returned future waits for its reply. Operations of
    /// one run in one lane are committed in the order of these calls.
    pub(crate) fn enqueue(
        &self,
        operation: Operation,
    ) -> impl Future<Output = Result<Reply, StoreError>> + use<> {
        let (sender, reply) = oneshot::channel();
        // A closed queue drops the reply.
        let _ = self.queue.push(operation, Some(ReplySender::internal(sender)));
        async move { reply.await.map_err(|_| stopped())? }
    }

    /// Queues an operation with a reply. Returns `false` if the host is stopping.
    pub(crate) fn enqueue_with(&self, operation: Operation, sender: ReplySender) -> bool {
        self.queue.push(operation, Some(sender)).is_ok()
    }

    /// Commits the end of an execution, once its bytes fit into the budget of its
    /// namespace. Until then the execution keeps its slot. The claim permit ends with the
    /// commit.
    pub(crate) async fn finish(&self, finished: Finished, permit: ClaimPermit) {
        let operation = Operation::Finish(Box::new(finished));
        // If the committer has ended, so has the host, and the next host reclaims the
        // state.
        let _ = self.queue.push_end(operation, permit, None).await;
    }

    /// Commits the end of an execution like [`Committer::finish`], and returns its
    /// reply.
    pub(crate) async fn finish_and_wait(
        &self,
        finished: Finished,
        permit: ClaimPermit,
    ) -> Result<Reply, StoreError> {
        let operation = Operation::Finish(Box::new(finished));
        let (sender, reply) = oneshot::channel();
        let sender = Some(ReplySender::internal(sender));
        self.queue.push_end(operation, permit, sender).await.map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())?
    }

    /// Drops waiting results of runs that were cancelled, here or on another host.
    pub(crate) fn on_runs_changed(&self, runs: &[RunUpdate]) {
        let stopped = |run: &&RunUpdate| run.status_changed && run.is_stopped;
        runs.iter().filter(stopped).for_each(|update| self.queue.cancel(update.run));
    }

    /// Passes a work hint to the commit loop.
    pub(crate) fn hint(&self, hint: WorkHint) {
        self.queue.hint(hint);
    }

    /// Reports that the database may hold a claim that this host has lost track of.
    pub(crate) fn report_orphan(&self) {
        self.claims.request_reconcile();
    }

    /// Stops claiming, and waits until no claimed state is left.
    pub(crate) async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (done, drained) = oneshot::channel();
        self.queue.drain(done);
        let _ = drained.await;
    }

    /// Makes the committer panic.
    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.queue.break_down();
    }

    /// Returns the error of the last transaction, if the database was unavailable.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.last_error.lock().clone().map_or(Ok(()), Err)
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock() = error;
    }

    /// Returns the number of claimed states.
    pub(crate) fn claimed(&self) -> u32 {
        self.claims.in_use()
    }

    /// Returns the number of claimed states by namespace and run.
    pub(crate) fn claim_counts(&self) -> ClaimCounts {
        self.claims.counts()
    }

    /// Returns `true` once the host has begun to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the host is stopping".into())
}
