//! Executes claimed states: one task for each, in the slots of the host. No task holds a
//! transaction.
//!
//! Not here: what a task does in its slot (`attempt`), and the shares of claims
//! (`prefetch`).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use exosphere_domain::ids::{NamespaceKey, NodeIx, RunKey, StateId};
use exosphere_sandbox::{Cancel, FairPermit, FairSemaphore};
use exosphere_store::{ClaimedState, RunUpdate};
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::attempt::{Attempt, AttemptResult};
use super::claims::ClaimPermit;
use super::inputs::prefetch_outputs;
use super::planner::into_finish_op;
use super::prefetch::LARGE_RUN_SLOTS;
use super::staging;
use crate::error::internal;
use crate::inner::HostInner;
use parking_lot::{Mutex, MutexGuard};

/// The executor: its slots, and the tasks of the states under execution.
pub(crate) struct Executor {
    slots: FairSemaphore<NamespaceKey, RunKey>,
    tasks: Mutex<Tasks>,
    /// The runtime of the tasks. Heartbeats, answers and the effects of commits have
    /// another one.
    work: Handle,
}

#[derive(Default)]
struct Tasks {
    running: HashMap<StateId, RunningTask>,
    /// Recently cancelled runs, newest last. Their states must not start, even if they
    /// were claimed before the cancellation.
    cancelled: VecDeque<RunKey>,
    /// Paused runs. A state that was claimed before the pause and has not begun is given
    /// back. A later claim of the run means that it was resumed.
    paused: BTreeSet<RunKey>,
}

/// A task that executes a state.
struct RunningTask {
    run: RunKey,
    node: NodeIx,
    /// Ends the execution, which then reports its usage.
    cancel: Cancel,
    task: AbortHandle,
}

/// Maximum number of cancelled runs that are remembered. The sweep covers claimed states of
/// older ones.
const MAX_CANCELLED_RUNS: usize = 1024;

impl Executor {
    pub(crate) fn new(slots: u32, work: Handle) -> Self {
        Executor {
            slots: FairSemaphore::with_last_kept(slots, LARGE_RUN_SLOTS),
            tasks: Mutex::default(),
            work,
        }
    }

    /// Returns the runtime of the tasks.
    pub(crate) fn work(&self) -> &Handle {
        &self.work
    }

    /// Returns the number of free slots.
    pub(crate) fn free_slots(&self) -> u32 {
        self.slots.free()
    }

    /// Closes the slots, so that nothing more begins. Running executions continue.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    /// Stops executions of runs that were cancelled or have missed a deadline, and keeps states of paused runs from
    /// starting.
    pub(crate) fn on_runs_changed(&self, runs: &[RunUpdate]) {
        for update in runs.iter().filter(|update| update.status_changed) {
            if update.is_stopped {
                self.abort(update.run);
            } else if update.paused {
                self.lock().paused.insert(update.run);
            } else {
                self.lock().paused.remove(&update.run);
            }
        }
    }

    /// Stops the executions of a run, since their results no longer count.
    fn abort(&self, run: RunKey) {
        let mut tasks = self.lock();
        let of_run = tasks.running.values().filter(|running| running.run == run);
        of_run.for_each(|running| running.cancel.cancel());
        if tasks.cancelled.len() == MAX_CANCELLED_RUNS {
            tasks.cancelled.pop_front();
        }
        tasks.cancelled.push_back(run);
    }

    /// Stops all executions, since none of their results counts.
    pub(crate) fn abort_all(&self) {
        self.lock().running.drain().for_each(|(_, running)| running.task.abort());
    }

    /// Returns the run and the node of each state under execution.
    pub(crate) fn running(&self) -> Vec<(RunKey, NodeIx)> {
        self.lock().running.values().map(|running| (running.run, running.node)).collect()
    }

    /// Returns the runs that have states under execution.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        let runs: BTreeSet<_> = self.lock().running.values().map(|running| running.run).collect();
        runs.into_iter().collect()
    }

    /// Records that the runs of claimed states were resumed: no state of a paused run is
    /// claimed.
    fn record_resumed(&self, claimed: &[(ClaimedState, ClaimPermit)]) {
        let mut tasks = self.lock();
        if !tasks.paused.is_empty() {
            for (claimed, _) in claimed {
                tasks.paused.remove(&claimed.state.run);
            }
        }
    }

    /// Executes a state in its own task, unless its run was cancelled.
    fn spawn(&self, inner: &Arc<HostInner>, claimed: ClaimedState, permit: ClaimPermit) {
        let (id, run, node) = (claimed.state.id, claimed.state.run, claimed.state.place.node);
        let mut tasks = self.lock();
        if tasks.cancelled.contains(&run) {
            return;
        }
        // The lock is held until the task is registered: a task that ends takes the lock to be
        // removed.
        let cancel = Cancel::default();
        let work = execute(inner.clone(), claimed, permit, cancel.clone(), Instant::now());
        let task = self.work.spawn(work);
        let task = RunningTask { run, node, cancel, task: task.abort_handle() };
        tasks.running.insert(id, task);
    }

    pub(super) fn is_paused(&self, run: RunKey) -> bool {
        self.lock().paused.contains(&run)
    }

    fn forget(&self, state: StateId) {
        self.lock().running.remove(&state);
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock()
    }

    /// Waits for a slot, of which a namespace has at most `max_slots`. Slots go round-robin to
    /// namespaces, and within a namespace to the run with the fewest.
    pub(super) async fn slot(
        &self,
        namespace: NamespaceKey,
        run: RunKey,
        max_slots: u32,
    ) -> Option<FairPermit<NamespaceKey, RunKey>> {
        self.slots.acquire_for(namespace, run, max_slots).await
    }

    /// Gives back up to `max_states` states of a namespace, or of one of its runs, that
    /// have waited for a slot since before `since`. Returns their number.
    pub(crate) fn withdraw(
        &self,
        namespace: NamespaceKey,
        run: Option<RunKey>,
        max_states: u32,
        since: std::time::Instant,
    ) -> u32 {
        let withdrawn = self.slots.withdraw(&namespace, run.as_ref(), max_states as usize, since);
        u32::try_from(withdrawn).unwrap_or(u32::MAX)
    }
}

/// Executes claimed states, each in its own task. Outputs that the claims did not include are
/// read for all of them together.
pub(crate) fn dispatch(inner: &Arc<HostInner>, claimed: Vec<(ClaimedState, ClaimPermit)>) {
    // Called in the order of the commits, so that a later pause counts.
    inner.pipeline.executor.record_resumed(&claimed);
    let cached = |(claimed, _): &(ClaimedState, ClaimPermit)| {
        claimed.state.place.refs.len() == claimed.known_outputs.len()
    };
    let (ready, mut rest): (Vec<_>, Vec<_>) = claimed.into_iter().partition(cached);
    inner.pipeline.prefetch.notify();
    if ready.is_empty() && rest.is_empty() {
        return;
    }
    let inner = inner.clone();
    let work = inner.pipeline.executor.work().clone();
    // In one task, since a spawn from a thread of this runtime costs a fraction of a
    // spawn from elsewhere.
    work.spawn(async move {
        for (claimed, permit) in ready {
            inner.pipeline.executor.spawn(&inner, claimed, permit);
        }
        if rest.is_empty() {
            return;
        }
        prefetch_outputs(&inner, &mut rest).await;
        for (claimed, permit) in rest {
            inner.pipeline.executor.spawn(&inner, claimed, permit);
        }
    });
}

async fn execute(
    inner: Arc<HostInner>,
    claimed: ClaimedState,
    permit: ClaimPermit,
    cancel: Cancel,
    spawned: Instant,
) {
    let waited = spawned.elapsed();
    let id = claimed.state.id;
    let run = match inner.caches.runs.get(&inner.db.retrying_store, claimed.state.run).await {
        Ok(run) => run,
        Err(error) => {
            // Without its run, a state cannot even be marked as failed, so it is given back.
            tracing::error!(%error, state = %id, "a claimed state has no readable run");
            inner.pipeline.executor.forget(id);
            drop(permit);
            return inner.pipeline.committer.report_orphan();
        }
    };
    let attempt = Attempt { inner: &inner, run: &run, claimed: &claimed, cancel, waited };
    // A panic is an internal error, and must not lose the state.
    let result = std::panic::AssertUnwindSafe(attempt.run()).catch_unwind().await;
    let mut result =
        result.unwrap_or_else(|_| AttemptResult::failed(internal(&"the host panicked")));
    let slot = result.slot.take();
    let finished = into_finish_op(&inner, run, claimed, result).await;
    inner.pipeline.executor.forget(id);
    if let Some(finished) = finished {
        staging::finish(&inner, finished, permit).await;
    }
    // The execution keeps its slot until its result is in the commit queue, so that the
    // slots bound the memory.
    drop(slot);
}
