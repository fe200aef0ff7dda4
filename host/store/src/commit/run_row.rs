//! The row of a run within one commit: read once, changed in memory, and written once with the next
//! version. The write decides whether the run has ended. Not here: its columns (`sql::runs`).

use exosphere_domain::ids::{Millis, RunKey};
use exosphere_domain::state::{Counts, RunStatus};

use crate::dialect::{ParamRows, Tx};
use crate::error::StoreError;
use crate::sql;

pub(crate) use crate::sql::RunRow;

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
    pub(crate) fn parks_reopened(&self) -> bool {
        self.paused || self.redrive > 0
    }

    /// Returns whether outcomes still count.
    pub(crate) fn is_live(&self) -> bool {
        self.status == RunStatus::Running
    }

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
