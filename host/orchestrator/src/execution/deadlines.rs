//! Waits for the deadlines of runs, and has those that are due judged by a commit. Every host waits
//! for all deadlines in the database, so that the end of a host delays none by more than a
//! heartbeat; a deadline that two hosts judge is judged once.
//!
//! Not here: the decision (`exosphere_domain::deadline`), and the deadlines of attempts (`attempt`).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use exosphere_store::{Control, Operation, PendingDeadline, Reply, StoreError};
use tokio::sync::Notify;

use crate::database_backoff::{database_backoff, pause};
use crate::execution::sweeps;
use crate::inner::HostInner;

/// Number of deadlines that one read returns.
const DEADLINES_PER_READ: u32 = 100;

/// The longest sleep until the next deadline. Clocks may be set forward meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The shortest pause between two looks at deadlines, for one that is due and cannot be judged yet.
const MIN_SLEEP: Duration = Duration::from_millis(10);

/// The pause before another look at a deadline whose run cannot be read: it may never be.
const UNREADABLE_SLEEP: Duration = Duration::from_secs(1);

/// Wakes the task that waits for deadlines.
#[derive(Default)]
pub(crate) struct DeadlineWatch {
    changed: Notify,
}

impl DeadlineWatch {
    /// Reports that there may be an earlier deadline.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Starts the task that waits for deadlines.
pub(crate) fn start(inner: &Arc<HostInner>) {
    tokio::spawn(run(inner.clone()));
}

async fn run(inner: Arc<HostInner>) {
    let mut backoff = database_backoff();
    while !inner.pipeline.committer.is_stopping() {
        match expire_due(&inner).await {
            Ok(wait) => {
                backoff.reset();
                let changed = inner.pipeline.deadlines.changed.notified();
                match wait {
                    Some(wait) => drop(tokio::time::timeout(wait, changed).await),
                    None => changed.await,
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot look at deadlines yet");
                pause(&mut backoff).await;
            }
        }
    }
}

/// Has the due deadlines judged. Returns the time until the next one, if there is one.
async fn expire_due(inner: &Arc<HostInner>) -> Result<Option<Duration>, StoreError> {
    loop {
        let now = inner.db.clock.now();
        let (next, now) = inner.db.store.next_deadlines(DEADLINES_PER_READ, now).await?;
        let (due, later): (Vec<_>, Vec<_>) =
            next.into_iter().partition(|deadline| deadline.due_at <= now);
        let mut sleep = None;
        for deadline in &due {
            sleep = sleep.max(expire(inner, deadline).await?);
        }
        if sleep.is_some() {
            return Ok(sleep);
        }
        if due.is_empty() {
            return Ok(later.first().map(|first| sleep_until(first.due_at, now)));
        }
    }
}

/// Has one deadline judged. Returns the pause before another look at it, if it is not judged: it is
/// not due yet by the clock of the commit, or its run cannot be read.
async fn expire(
    inner: &Arc<HostInner>,
    deadline: &PendingDeadline,
) -> Result<Option<Duration>, StoreError> {
    let PendingDeadline { run, kind, .. } = *deadline;
    let run = match inner.caches.runs.get(&inner.db.store, run).await {
        Ok(run) => run,
        // The run was deleted meanwhile, with its deadlines, or is corrupt.
        Err(StoreError::Data(cause)) => {
            tracing::debug!(cause, "a deadline has no readable run");
            return Ok(Some(UNREADABLE_SLEEP));
        }
        Err(error) => return Err(error),
    };
    let operation = Operation::Control(run.clone(), Control::Expire(kind));
    match inner.pipeline.committer.submit(operation).await? {
        Reply::ToSweep(event) => {
            tracing::info!(run = %run.id, reason = kind.as_str(), "a run has missed its deadline");
            sweeps::begin_sweep(inner, run, event).await;
            Ok(None)
        }
        Reply::Stale | Reply::Missing => Ok(Some(MIN_SLEEP)),
        _ => Ok(None),
    }
}

/// Returns the time to sleep until a deadline.
fn sleep_until(due_at: Millis, now: Millis) -> Duration {
    let left = due_at.saturating_sub(now).max(0).unsigned_abs();
    Duration::from_millis(left).clamp(MIN_SLEEP, MAX_SLEEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_are_bounded() {
        assert_eq!(sleep_until(1_500, 1_000), Duration::from_millis(500));
        assert_eq!(sleep_until(1_000, 1_500), MIN_SLEEP);
        assert_eq!(sleep_until(Millis::MAX, Millis::MIN), MAX_SLEEP);
    }
}
