//! Sweeps after a cancel, a pause and a resume, and redrives. Both work on all states of
//! a run, in pieces between which other operations are committed. Unfinished work is in
//! the database, and another host (or the next start of this one) continues it.
//!
//! Not here: the requests that begin them (`service/run_control.rs`), and the effect of a
//! piece (`exosphere_store`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::{RunKey, StateId};
use exosphere_store::{Control, Operation, PendingSweep, RedrivePart, Reply, RunInfo, StoreError};

use crate::execution::staging;
use crate::inner::HostInner;
use parking_lot::{Mutex, MutexGuard};

/// Maximum number of states of one piece of a sweep or a redrive: about 5 ms of a commit.
const MAX_STATES_PER_PIECE: u32 = 250;

/// Maximum number of states that one read scans for failed ones.
const MAX_STATES_PER_READ: u32 = 5_000;

/// The time for which a request waits for its sweep, so that a small run is swept when
/// the answer comes.
const SWEEP_TIMEOUT: Duration = Duration::from_millis(50);

/// The sweeps of this host, and unswept runs that the database reported.
#[derive(Default)]
pub(crate) struct Sweeps {
    state: Mutex<SweepState>,
}

#[derive(Default)]
struct SweepState {
    /// Runs that this host sweeps, with the number of its tasks for each.
    active: HashMap<RunKey, usize>,
    /// Pending sweeps in the database, as of the last check.
    pending: HashSet<PendingSweep>,
}

/// A run that this host sweeps until this is dropped.
struct ActiveSweep<'a> {
    sweeps: &'a Sweeps,
    run: RunKey,
}

/// The result of a redrive.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RedriveSummary {
    /// States that run again.
    pub states: usize,
    /// Failed states that do not run again: a unite above has continued without them.
    pub late: usize,
}

impl Sweeps {
    fn begin(&self, run: RunKey) -> ActiveSweep<'_> {
        *self.lock().active.entry(run).or_default() += 1;
        ActiveSweep { sweeps: self, run }
    }

    fn lock(&self) -> MutexGuard<'_, SweepState> {
        self.state.lock()
    }

    /// Records the currently unswept runs. Returns those that were already unswept at the last
    /// call and that no task of this host sweeps.
    fn abandoned(&self, pending: Vec<PendingSweep>) -> Vec<PendingSweep> {
        let mut state = self.lock();
        let now: HashSet<PendingSweep> = pending.into_iter().collect();
        let before = std::mem::replace(&mut state.pending, now.clone());
        let is_idle = |pending: &PendingSweep| !state.active.contains_key(&pending.run);
        now.into_iter().filter(|sweep| before.contains(sweep) && is_idle(sweep)).collect()
    }
}

impl Drop for ActiveSweep<'_> {
    fn drop(&mut self) {
        let mut state = self.sweeps.lock();
        if let Some(tasks) = state.active.get_mut(&self.run) {
            *tasks -= 1;
            if *tasks == 0 {
                state.active.remove(&self.run);
            }
        }
    }
}

/// Continues all sweeps, redrives and removals that dead hosts have begun.
pub(crate) async fn resume_sweeps(inner: &Arc<HostInner>) -> Result<(), StoreError> {
    staging::remove_leftovers(inner).await?;
    adopt(inner, inner.db.store.pending_sweeps().await?).await
}

/// Continues sweeps that no host seems to continue: they have not changed since the last call.
/// It is harmless if another host does continue one.
pub(crate) async fn adopt_abandoned(inner: &Arc<HostInner>) -> Result<(), StoreError> {
    staging::remove_leftovers(inner).await?;
    let abandoned = inner.pipeline.sweeps.abandoned(inner.db.store.pending_sweeps().await?);
    adopt(inner, abandoned).await
}

async fn adopt(inner: &Arc<HostInner>, pending: Vec<PendingSweep>) -> Result<(), StoreError> {
    for PendingSweep { run, event, redrive } in pending {
        let run = inner.caches.runs.get(&inner.db.store, run).await?;
        let inner = inner.clone();
        tokio::spawn(async move {
            match redrive {
                0 => sweep(&inner, run, event).await,
                redrive => drop(continue_redrive(&inner, run, redrive).await),
            }
        });
    }
    Ok(())
}

/// Sweeps a run: brings its states in line with the run's status. Waits at most
/// [`SWEEP_TIMEOUT`] for the end, and leaves the rest to a task.
pub(crate) async fn begin_sweep(inner: &Arc<HostInner>, run: Arc<RunInfo>, event: i64) {
    let inner = inner.clone();
    let swept = tokio::spawn(async move { sweep(&inner, run, event).await });
    let _ = tokio::time::timeout(SWEEP_TIMEOUT, swept).await;
}

/// Sweeps a run, one piece at a time.
async fn sweep(inner: &Arc<HostInner>, run: Arc<RunInfo>, event: i64) {
    let _active = inner.pipeline.sweeps.begin(run.key);
    let mut from = String::new();
    loop {
        let limit = MAX_STATES_PER_PIECE;
        let operation = Operation::Control(run.clone(), Control::Sweep { event, from, limit });
        match inner.pipeline.committer.submit(operation).await {
            Ok(Reply::More(place)) => from = place,
            Ok(_) => return,
            // Another host, or the next start of this one, continues the sweep.
            Err(error) => return tracing::error!(%error, run = %run.id, "a sweep stopped"),
        }
    }
}

/// Continues a redrive that has begun, until its states may be claimed.
pub(crate) async fn continue_redrive(
    inner: &Arc<HostInner>,
    run: Arc<RunInfo>,
    event: i64,
) -> Result<RedriveSummary, StoreError> {
    let _active = inner.pipeline.sweeps.begin(run.key);
    let submit = |part| {
        inner.pipeline.committer.submit(Operation::Control(run.clone(), Control::Redrive(part)))
    };
    let (mut failed, mut summary) = (FailedStates::new(&run), RedriveSummary::default());
    while !failed.is_read {
        let states = failed.next(inner).await?;
        if states.is_empty() {
            continue;
        }
        match submit(RedrivePart::Some { event, states }).await? {
            Reply::Redriven { states, late } => {
                summary.states += states;
                summary.late += late;
            }
            // The run was cancelled, or another host has finished the redrive.
            _ => return Ok(summary),
        }
    }
    if let Reply::ToSweep(event) = submit(RedrivePart::End { event }).await? {
        let inner = inner.clone();
        tokio::spawn(async move { sweep(&inner, run, event).await });
    }
    Ok(summary)
}

/// The failed states of a run, read piece by piece in path order.
pub(crate) struct FailedStates {
    run: RunKey,
    from: String,
    /// Set if all failed states have been read.
    pub is_read: bool,
}

impl FailedStates {
    pub(crate) fn new(run: &RunInfo) -> Self {
        FailedStates { run: run.key, from: String::new(), is_read: false }
    }

    /// Reads the next states, up to one piece.
    pub(crate) async fn next(&mut self, inner: &HostInner) -> Result<Vec<StateId>, StoreError> {
        let mut states = Vec::new();
        while !self.is_read && states.len() < MAX_STATES_PER_PIECE as usize {
            let left = MAX_STATES_PER_PIECE - states.len() as u32;
            let (page, next) = inner
                .db
                .store
                .failed_states(self.run, &self.from, MAX_STATES_PER_READ, left)
                .await?;
            states.extend(page);
            match next {
                Some(next) => self.from = next,
                None => self.is_read = true,
            }
        }
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_sweep_is_abandoned() {
        let sweeps = Sweeps::default();
        let pending = |run, event| PendingSweep { run: RunKey(run), event, redrive: 0 };
        assert_eq!(sweeps.abandoned(vec![pending(1, 5), pending(2, 5)]), []);
        let active = sweeps.begin(RunKey(2));
        assert_eq!(sweeps.abandoned(vec![pending(1, 6), pending(2, 5)]), [], "a newer event");
        assert_eq!(sweeps.abandoned(vec![pending(1, 6), pending(2, 5)]), [pending(1, 6)]);
        drop(active);
        assert_eq!(sweeps.abandoned(vec![pending(2, 5)]), [pending(2, 5)]);
    }
}
