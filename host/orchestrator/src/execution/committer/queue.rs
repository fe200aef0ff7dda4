//! The commit queue: operations that wait for the committer, and executions that wait for
//! the budget of their namespace.
//!
//! Not here: the order (`lanes`), and any commit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use exosphere_domain::ids::RunKey;
use exosphere_store::Operation;
use tokio::sync::{Notify, oneshot};

use super::budget::{Budgets, Charge};
use super::cost::lane_and_cost;
use super::lanes::{BatchBounds, Lane, Lanes};
use super::mailbox::WorkHint;
use super::reply::ReplySender;
use crate::execution::claims::ClaimPermit;
use parking_lot::{Mutex, MutexGuard};

/// The bounds of one batch, chosen for commits of at most 50 ms on a machine with two
/// cores.
const MAX_BATCH: BatchBounds =
    BatchBounds { operations: 512, cost: MAX_BATCH_BYTES, heavy: HEAVY_BYTES };

/// The largest cost of a batch in bytes, its rows included.
pub(crate) const MAX_BATCH_BYTES: u64 = 4 << 20;

/// The cost in bytes from which an operation takes milliseconds to write.
const HEAVY_BYTES: u64 = 256 << 10;

/// The budget of each namespace for results in the queue, in bytes: as much as the
/// largest attempt may return (`output_bytes`).
const MAX_NAMESPACE_BYTES: u64 = 32 << 20;

/// The largest number of cancelled runs that the queue remembers.
const MAX_CANCELLED_RUNS: usize = 1024;

/// The commit queue. It is closed when the committer ends.
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
    budgets: Arc<Budgets>,
}

#[derive(Default)]
struct QueueState {
    lanes: Lanes<QueuedOperation>,
    hints: Vec<WorkHint>,
    drain: Option<oneshot::Sender<()>>,
    cancelled: Cancelled,
    closed: bool,
    #[cfg(test)]
    breaks_down: bool,
}

/// Recently cancelled runs, newest last. Ends of their executions write no results.
#[derive(Default)]
struct Cancelled {
    order: VecDeque<RunKey>,
    runs: HashSet<RunKey>,
}

/// An operation that waits, with its claim permit, reply and charge.
pub(crate) struct QueuedOperation {
    pub operation: Operation,
    /// The claim permit of the state, if the operation ends an execution.
    pub permit: Option<ClaimPermit>,
    pub sender: Option<ReplySender>,
    /// The charge to the budget of the namespace, if the operation has one.
    pub charge: Option<Charge>,
}

impl QueuedOperation {
    /// Returns `true` if the caller has gone, so that the operation must not be
    /// committed.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.sender.as_ref().is_some_and(ReplySender::is_withdrawn)
    }
}

/// A batch, with the work hints and the drain request that have arrived.
#[derive(Default)]
pub(crate) struct NextBatch {
    pub operations: Vec<QueuedOperation>,
    pub hints: Vec<WorkHint>,
    pub drain: Option<oneshot::Sender<()>>,
}

/// The error of an operation that arrives after the committer has ended.
pub(crate) struct QueueClosed;

impl Queue {
    pub(crate) fn new() -> Self {
        Queue {
            state: Mutex::default(),
            arrived: Notify::new(),
            budgets: Budgets::new(MAX_NAMESPACE_BYTES),
        }
    }

    /// Adds an operation, without regard to any budget.
    pub(crate) fn push(
        &self,
        operation: Operation,
        sender: Option<ReplySender>,
    ) -> Result<(), QueueClosed> {
        self.add(QueuedOperation { operation, permit: None, sender, charge: None })
    }

    /// Adds the end of an execution once its bytes fit into the budget of its namespace.
    /// Ends in cancelled runs need hardly any bytes.
    pub(crate) async fn push_end(
        &self,
        mut operation: Operation,
        permit: ClaimPermit,
        sender: Option<ReplySender>,
    ) -> Result<(), QueueClosed> {
        self.strip_if_cancelled(&mut operation);
        let lane_cost = lane_and_cost(&operation);
        let mut charge = self.budgets.charge(lane_cost.namespace, lane_cost.cost).await;
        if self.strip_if_cancelled(&mut operation) {
            charge.lower(lane_and_cost(&operation).cost);
        }
        self.add(QueuedOperation { operation, permit: Some(permit), sender, charge: Some(charge) })
    }

    fn add(&self, operation: QueuedOperation) -> Result<(), QueueClosed> {
        let lane_cost = lane_and_cost(&operation.operation);
        let mut state = self.lock();
        if state.closed {
            return Err(QueueClosed);
        }
        state.lanes.push(lane_cost, operation);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    pub(crate) fn hint(&self, hint: WorkHint) {
        self.lock().hints.push(hint);
        self.arrived.notify_one();
    }

    /// Asks the committer to end when nothing is left, and to send on `done` then.
    pub(crate) fn drain(&self, done: oneshot::Sender<()>) {
        self.lock().drain = Some(done);
        self.arrived.notify_one();
    }

    /// Drops the results of a cancelled run that wait in the queue, since they no longer
    /// count.
    pub(crate) fn cancel(&self, run: RunKey) {
        let mut state = self.lock();
        state.cancelled.add(run);
        state.lanes.lower_costs(Lane::End, run, |waiting| {
            strip(&mut waiting.operation);
            let cost = lane_and_cost(&waiting.operation).cost;
            if let Some(charge) = &mut waiting.charge {
                charge.lower(cost);
            }
            cost
        });
    }

    fn strip_if_cancelled(&self, operation: &mut Operation) -> bool {
        let Operation::Finish(finished) = &*operation else { return false };
        let cancelled = self.lock().cancelled.runs.contains(&finished.run.key);
        if cancelled {
            strip(operation);
        }
        cancelled
    }

    /// Waits until an operation, a work hint or a drain request is added.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.lanes.is_empty() && state.hints.is_empty() && state.drain.is_none()
    }

    /// Takes the next batch.
    pub(crate) fn take(&self) -> NextBatch {
        let mut state = self.lock();
        #[cfg(test)]
        if state.breaks_down {
            drop(state);
            std::panic::resume_unwind(Box::new("a bug"));
        }
        NextBatch {
            operations: state.lanes.take(MAX_BATCH),
            hints: std::mem::take(&mut state.hints),
            drain: state.drain.take(),
        }
    }

    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.lock().breaks_down = true;
        self.arrived.notify_one();
    }

    /// Closes the queue and drops the waiting operations, which tells their callers that
    /// no reply comes.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            state.drain = None;
            std::mem::take(&mut state.lanes)
        };
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }
}

impl Cancelled {
    fn add(&mut self, run: RunKey) {
        if !self.runs.insert(run) {
            return;
        }
        self.order.push_back(run);
        if self.order.len() > MAX_CANCELLED_RUNS
            && let Some(oldest) = self.order.pop_front()
        {
            self.runs.remove(&oldest);
        }
    }
}

/// Drops the results of an operation in a cancelled run. The usage of the attempt is
/// kept.
fn strip(operation: &mut Operation) {
    match operation {
        Operation::Finish(finished) => finished.strip(),
        Operation::Stage(stage) => stage.strip(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::{NamespaceKey, StateId};
    use exosphere_domain::plan::Transition;
    use exosphere_store::Control;
    use futures::poll;

    use super::super::cost::tests::ended;
    use super::*;

    fn sizes(queue: &Queue) -> Vec<usize> {
        std::iter::from_fn(|| Some(queue.take().operations.len()).filter(|size| *size > 0))
            .collect()
    }

    #[test]
    fn batches_are_bounded_by_number_and_bytes() {
        let queue = Queue::new();
        let run = ended(Transition::Pruned { data: None }).run;
        for state in 0..600 {
            let operation = Operation::Control(run.clone(), Control::Retry(StateId(state)));
            assert!(queue.push(operation, None).is_ok());
        }
        assert_eq!(sizes(&queue), [512, 88]);
        for _ in 0..5 {
            let outputs = vec!["x".repeat(3 << 19)];
            let end = Transition::Success { outputs, children: Vec::new(), unites: Vec::new() };
            assert!(queue.push(Operation::Finish(Box::new(ended(end))), None).is_ok());
        }
        assert_eq!(sizes(&queue), [2, 2, 1]);
    }

    #[tokio::test]
    async fn namespace_results_are_bounded_in_bytes() {
        let queue = Queue::new();
        let first = queue.budgets.charge(NamespaceKey(7), MAX_NAMESPACE_BYTES).await;
        let mut next = std::pin::pin!(queue.budgets.charge(NamespaceKey(7), 1));
        assert!(poll!(&mut next).is_pending());
        drop(first);
        assert!(poll!(&mut next).is_ready());
    }
}
