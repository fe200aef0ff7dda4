//! The row of a run within one commit: read once, changed in memory, and written once with the next
//! version. The write decides whether the run has ended. Not here: its columns (`sql::runs`).

use exosphere_domain::ids::{Millis, NodeIx, RunKey};
use exosphere_domain::limits::Usage;
use exosphere_domain::plan::{RescheduleReason, Transition};
use exosphere_domain::state::{Claimed, Counts, RunStatus, Status};

use crate::dialect::{ParamRows, Tx};
use crate::error::StoreError;
use crate::sql;

pub(crate) use crate::sql::{LifeCycle, RunRow};

impl RunRow {
    /// Reads the rows of existing runs, by number. On Postgres this locks them, in that order.
    pub(crate) async fn load(
        tx: &mut impl Tx,
        runs: impl IntoIterator<Item = RunKey>,
    ) -> Result<Vec<RunRow>, StoreError> {
        let rows = ParamRows::default().ints(runs.into_iter().map(|run| run.0));
        tx.query_each(sql::RUN_ROW, &rows, RunRow::read).await
    }

    /// Returns whether reopened states are held back: they wait for the end of a pause or of a
    /// redrive.
    pub(crate) fn holds_back_reopened(&self) -> bool {
        self.paused || self.redrive > 0
    }

    /// Returns `true` if the run still accepts outcomes of its states.
    pub(crate) fn is_live(&self) -> bool {
        self.status == RunStatus::Running
    }

    /// Counts new states at a node.
    pub(crate) fn add_states(&mut self, node: NodeIx, status: Status, states: usize) {
        self.states += states as i64;
        self.node_counts.add(node, status, states as u64);
    }

    /// Counts a state whose status changes.
    pub(crate) fn change_status(&mut self, node: NodeIx, from: Status, to: Status) {
        self.node_counts.change(node, from, to);
        for (status, change) in [(from, -1), (to, 1)] {
            match status {
                Status::Success => self.succeeded += change,
                Status::Pruned => self.pruned += change,
                Status::Errored => self.errored += change,
                Status::Cancelled => self.cancelled += change,
                Status::Waiting | Status::Created | Status::Queued => {}
            }
        }
    }

    /// Counts the end of an execution.
    pub(crate) fn count_end(&mut self, state: &Claimed, end: &Transition) {
        let node = state.place.node;
        match end {
            Transition::Success { .. } => self.change_status(node, Status::Queued, Status::Success),
            Transition::Pruned { .. } => self.change_status(node, Status::Queued, Status::Pruned),
            Transition::Errored { .. } => self.change_status(node, Status::Queued, Status::Errored),
            Transition::Reschedule { reason: RescheduleReason::Requeued, .. } => self.requeues += 1,
            // A lost host or a conflict uses up no retry.
            Transition::Reschedule { attempts, reason: RescheduleReason::Failed(_), .. } => {
                if attempts.retries > state.attempts.retries {
                    self.retries += 1;
                    self.node_counts.add_retry(node);
                }
            }
            Transition::Reschedule { reason: RescheduleReason::Released, .. } => {}
        }
    }

    /// Adds the cost of an attempt.
    pub(crate) fn add_cost(&mut self, usage: &Usage) {
        let bounded = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.cpu_us = self.cpu_us.saturating_add(bounded(usage.cpu_us));
        self.memory_bytes = self.memory_bytes.max(bounded(usage.peak_memory_bytes));
    }

    /// Adds to the counts of the outermost scope.
    pub(crate) fn count(&mut self, delta: Counts) {
        self.open += delta.open;
        self.failed += delta.failed;
    }

    /// Sets the status of the run from its counts; a cancelled run stays cancelled.
    pub(crate) fn update_status(&mut self, now: Millis) {
        if self.status == RunStatus::Cancelled {
            return;
        }
        self.status = RunStatus::from_counts(self.open, self.failed);
        self.ended_at = match self.status {
            RunStatus::Running => None,
            _ => self.ended_at.or(Some(now)),
        };
    }
}
