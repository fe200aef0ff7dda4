//! The counts of a run within one commit: how many executions ended in which way. Metrics are made
//! of the counts of commits that have succeeded, so that they equal the database.
//!
//! Not here: the run's own counters (`run_row`), and commits whose end is unknown
//! (`crate::unknown_commits`).

use std::sync::Arc;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::Millis;
use exosphere_domain::limits::{Limit, Usage};
use exosphere_domain::plan::{RescheduleReason, Transition};
use exosphere_domain::state::RunStatus;

use crate::types::RunInfo;

/// A number for each kind of failure, in the order of [`FailureKind::ALL`].
pub type ByKind = [u32; FailureKind::ALL.len()];

/// Counts of the changes that one commit made in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Set if the commit started the run.
    pub started: bool,
    /// The end of the run: its status, and the time since its start in milliseconds.
    pub ended: Option<(RunStatus, Millis)>,
    /// States that ended as SUCCESS.
    pub succeeded: u32,
    /// States that ended as PRUNED.
    pub pruned: u32,
    /// States that ended as CANCELLED.
    pub cancelled: u32,
    /// States that ended as ERRORED, by the kind of their failure.
    pub errored: ByKind,
    /// Failed attempts after which the state runs again, by the kind of the failure.
    pub retried: ByKind,
    /// Executions that requeued themselves.
    pub requeued: u32,
    /// CPU time of the ended attempts, in microseconds.
    pub cpu_us: u64,
    /// The limits that attempts have reached, one for each breach.
    pub breaches: Vec<Limit>,
}

/// The counts of the runs that a commit changed.
pub type RunCommitCounts = Vec<(Arc<RunInfo>, CommitCounts)>;

impl CommitCounts {
    /// Returns `true` if nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        *self == CommitCounts::default()
    }

    /// Counts the end of an execution.
    pub(crate) fn add_end(&mut self, end: &Transition, usage: Option<Usage>) {
        self.cpu_us += usage.map_or(0, |usage| usage.cpu_us);
        match end {
            Transition::Success { .. } => self.succeeded += 1,
            Transition::Pruned { .. } => self.pruned += 1,
            Transition::Errored { failure } => self.add_errored(failure),
            Transition::Reschedule { reason: RescheduleReason::Requeued, .. } => self.requeued += 1,
            Transition::Reschedule { reason: RescheduleReason::Failed(failure), .. } => {
                self.retried[failure.kind as usize] += 1;
                self.breaches.extend(Limit::of_failure(failure));
            }
            Transition::Reschedule { reason: RescheduleReason::Released, .. } => {}
        }
    }

    /// Counts a state that failed for good.
    pub(crate) fn add_errored(&mut self, failure: &Failure) {
        self.errored[failure.kind as usize] += 1;
        self.breaches.extend(Limit::of_failure(failure));
    }

    /// Counts the end of the run, if its status changes to a terminal one.
    pub(crate) fn add_run(
        &mut self,
        before: RunStatus,
        status: RunStatus,
        (created_at, ended_at): (Millis, Option<Millis>),
    ) {
        if let (RunStatus::Running, Some(ended_at)) = (before, ended_at)
            && status != RunStatus::Running
        {
            self.ended = Some((status, ended_at.saturating_sub(created_at).max(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::limits::Limits;

    use super::*;

    #[test]
    fn kinds_are_counted_at_their_index() {
        for (at, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind}");
        }
        let mut counts = CommitCounts::default();
        counts.add_errored(&Limits::default().reached(Limit::Outputs));
        counts.add_errored(&Failure::new(FailureKind::Trap, ""));
        assert_eq!(counts.errored[FailureKind::Limit as usize], 1);
        assert_eq!(counts.errored[FailureKind::Trap as usize], 1);
        assert_eq!(counts.breaches, [Limit::Outputs]);
    }

    #[test]
    fn a_run_is_counted_when_it_ends() {
        let mut counts = CommitCounts::default();
        counts.add_run(RunStatus::Running, RunStatus::Running, (5, None));
        counts.add_run(RunStatus::Failed, RunStatus::Failed, (5, Some(9)));
        assert!(counts.is_empty());
        counts.add_run(RunStatus::Running, RunStatus::Failed, (5, Some(9)));
        assert_eq!(counts.ended, Some((RunStatus::Failed, 4)));
    }
}
