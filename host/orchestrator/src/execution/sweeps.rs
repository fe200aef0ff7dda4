//! Sweeps after a cancel, a pause and a resume, and redrives. Both work on all states of
//! a run, in pieces between which other operations are committed. Unfinished work is in
//! the database, and another host (or the next start of this one) continues it.
//!
//! Not here: the effect of a piece (`exosphere_store`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exosphere_domain::ids::{RunKey, StateId};
use exosphere_store::{Answer, Member, RedrivePart, RunInfo, StoreError, Unswept};

use crate::Parts;
use crate::error::Error;
use crate::execution::staging;
use crate::service::request::Request;

/// States of one piece of a sweep or a redrive: about 5 ms of a commit.
const STATES_PER_PIECE: u32 = 250;

/// States that one read scans for failed ones.
const STATES_PER_READ: u32 = 5_000;

/// The time for which a request waits for its sweep, so that a small run is swept when
/// the answer comes.
const SWEEP_PATIENCE: Duration = Duration::from_millis(50);

/// The time for which a request waits for the pieces of a redrive.
pub(crate) const REDRIVE_PATIENCE: Duration = Duration::from_secs(50);

/// The sweeps of this host, and unswept runs that the database reported.
#[derive(Default)]
pub(crate) struct Sweeps {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Runs that this host sweeps, with the number of its tasks for each.
    active: HashMap<RunKey, usize>,
    /// Unswept runs of the database, as of the last check.
    unswept: HashSet<Unswept>,
}

/// A run that this host sweeps until this is dropped.
struct Active<'a> {
    sweeps: &'a Sweeps,
    run: RunKey,
}

/// The result of a redrive.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reopened {
    /// States that run again.
    pub states: usize,
    /// Failed states that do not run again: a unite above has continued without them.
    pub late: usize,
}

impl Sweeps {
    fn begin(&self, run: RunKey) -> Active<'_> {
        *self.lock().active.entry(run).or_default() += 1;
        Active { sweeps: self, run }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the unswept runs of now. Returns those that were unswept at the last call,
    /// too, and that no task of this host sweeps.
    fn abandoned(&self, unswept: Vec<Unswept>) -> Vec<Unswept> {
        let mut known = self.lock();
        let now: HashSet<Unswept> = unswept.into_iter().collect();
        let before = std::mem::replace(&mut known.unswept, now.clone());
        let is_idle = |unswept: &Unswept| !known.active.contains_key(&unswept.run);
        now.into_iter().filter(|it| before.contains(it) && is_idle(it)).collect()
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let mut known = self.sweeps.lock();
        if let Some(tasks) = known.active.get_mut(&self.run) {
            *tasks -= 1;
            if *tasks == 0 {
                known.active.remove(&self.run);
            }
        }
    }
}

/// Continues all sweeps, redrives and removals that dead hosts have begun.
pub(crate) async fn go_on(parts: &Arc<Parts>) -> Result<(), StoreError> {
    staging::remove_leftovers(parts).await?;
    adopt(parts, parts.store.unswept().await?).await
}

/// Continues sweeps that no host seems to continue: they have not changed since the last
/// call. It does no harm if another host does continue one.
pub(crate) async fn adopt_abandoned(parts: &Arc<Parts>) -> Result<(), StoreError> {
    staging::remove_leftovers(parts).await?;
    let abandoned = parts.sweeps.abandoned(parts.store.unswept().await?);
    adopt(parts, abandoned).await
}

async fn adopt(parts: &Arc<Parts>, unswept: Vec<Unswept>) -> Result<(), StoreError> {
    for Unswept { run, event, redrive } in unswept {
        let run = parts.runs.get(&parts.store, run).await?;
        let parts = parts.clone();
        tokio::spawn(async move {
            match redrive {
                0 => sweep(&parts, run, event).await,
                redrive => drop(go_on_redriving(&parts, run, redrive).await),
            }
        });
    }
    Ok(())
}

/// Sweeps a run: brings its states in line with it. Waits a moment for the end, and
/// leaves the rest to a task.
pub(crate) async fn begin_sweep(parts: &Arc<Parts>, run: Arc<RunInfo>, event: i64) {
    let parts = parts.clone();
    let swept = tokio::spawn(async move { sweep(&parts, run, event).await });
    let _ = tokio::time::timeout(SWEEP_PATIENCE, swept).await;
}

/// Sweeps a run, one piece at a time.
async fn sweep(parts: &Arc<Parts>, run: Arc<RunInfo>, event: i64) {
    let _active = parts.sweeps.begin(run.key);
    let mut from = String::new();
    loop {
        let most = STATES_PER_PIECE;
        let member = Member::Sweep { run: run.clone(), event, from, most };
        match parts.committer.submit(member).await {
            Ok(Answer::More(place)) => from = place,
            Ok(_) => return,
            // Another host, or the next start of this one, continues the sweep.
            Err(error) => return tracing::error!(%error, run = %run.id, "a sweep stopped"),
        }
    }
}

/// Reopens all failed states of a run, except those that a unite has continued without.
/// Many states are reopened in pieces, and parked until the last one: no unite continues
/// before that. The request is withdrawn if it times out before any state was reopened.
pub(crate) async fn redrive(
    parts: &Arc<Parts>,
    run: &Arc<RunInfo>,
    request: &Request,
) -> Result<Result<Reopened, Answer>, Error> {
    let member = |part| Member::Redrive { run: run.clone(), part };
    let mut failed = Failed::of(run);
    let first = request.before(failed.next(parts)).await?;
    if failed.is_read {
        let whole = member(RedrivePart::Whole(first));
        return Ok(match request.commit(&parts.committer, whole).await? {
            Answer::Redriven { states, late } => Ok(Reopened { states, late }),
            other => Err(other),
        });
    }
    match request.commit(&parts.committer, member(RedrivePart::Begin)).await? {
        Answer::ToSweep(event) => {
            let (parts, id, run) = (parts.clone(), run.id, run.clone());
            // The task continues even if the caller has gone.
            let redriven = tokio::spawn(async move { go_on_redriving(&parts, run, event).await });
            let stopped = |error: tokio::task::JoinError| StoreError::Data(error.to_string());
            let redriven = async { Ok(redriven.await.map_err(stopped)??) };
            request.after(REDRIVE_PATIENCE, id, redriven).await.map(Ok)
        }
        other => Ok(Err(other)),
    }
}

/// Continues a redrive that has begun, until its states may be claimed.
async fn go_on_redriving(
    parts: &Arc<Parts>,
    run: Arc<RunInfo>,
    event: i64,
) -> Result<Reopened, StoreError> {
    let _active = parts.sweeps.begin(run.key);
    let submit = |part| parts.committer.submit(Member::Redrive { run: run.clone(), part });
    let (mut failed, mut all) = (Failed::of(&run), Reopened::default());
    while !failed.is_read {
        let states = failed.next(parts).await?;
        if states.is_empty() {
            continue;
        }
        match submit(RedrivePart::Some { event, states }).await? {
            Answer::Redriven { states, late } => {
                all.states += states;
                all.late += late;
            }
            // The run was cancelled, or another host has finished the redrive.
            _ => return Ok(all),
        }
    }
    if let Answer::ToSweep(event) = submit(RedrivePart::End { event }).await? {
        let parts = parts.clone();
        tokio::spawn(async move { sweep(&parts, run, event).await });
    }
    Ok(all)
}

/// The failed states of a run, read piece by piece in path order.
struct Failed {
    run: RunKey,
    from: String,
    /// Set if all failed states have been read.
    is_read: bool,
}

impl Failed {
    fn of(run: &RunInfo) -> Self {
        Failed { run: run.key, from: String::new(), is_read: false }
    }

    /// Reads the next states, up to one piece.
    async fn next(&mut self, parts: &Parts) -> Result<Vec<StateId>, StoreError> {
        let mut states = Vec::new();
        while !self.is_read && states.len() < STATES_PER_PIECE as usize {
            let room = STATES_PER_PIECE - states.len() as u32;
            let (some, next) =
                parts.store.failed_states(self.run, &self.from, STATES_PER_READ, room).await?;
            states.extend(some);
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
    fn a_sweep_is_abandoned_when_it_stands_still() {
        let sweeps = Sweeps::default();
        let unswept = |run, event| Unswept { run: RunKey(run), event, redrive: 0 };
        assert_eq!(sweeps.abandoned(vec![unswept(1, 5), unswept(2, 5)]), []);
        let active = sweeps.begin(RunKey(2));
        assert_eq!(sweeps.abandoned(vec![unswept(1, 6), unswept(2, 5)]), [], "a newer event");
        assert_eq!(sweeps.abandoned(vec![unswept(1, 6), unswept(2, 5)]), [unswept(1, 6)]);
        drop(active);
        assert_eq!(sweeps.abandoned(vec![unswept(2, 5)]), [unswept(2, 5)]);
    }
}
