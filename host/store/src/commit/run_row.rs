//! The row of a run within one commit: read once, changed in memory, and written once with the next
//! version. The write decides whether the run has ended.

use crate::batch::RunInfo;
use crate::error::StoreError;
use crate::rows::corrupt;
use crate::sql;
use crate::text::{Cells, Rows, Tx};
use crate::view::RunView;
use exosphere_domain::ids::{Millis, RunKey};
use exosphere_domain::state::{Counts, RunStatus};

/// The mutable columns of a run's row.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub status: RunStatus,
    /// Set if the run is paused: none of the run's states is claimed.
    pub paused: bool,
    /// The number of the event for which the run's states are still to be swept; 0 if none.
    pub unswept: i64,
    /// The number of the event by which a redrive in parts began; 0 if none is under way.
    pub redrive: i64,
    pub version: i64,
    /// The open and failed counts of the outermost scope.
    pub open: i64,
    pub failed: i64,
    pub states: i64,
    pub succeeded: i64,
    pub pruned: i64,
    pub errored: i64,
    pub cancelled: i64,
    pub retries: i64,
    pub requeues: i64,
    pub store_keys: i64,
    pub store_bytes: i64,
    pub store_version: i64,
    pub ended_at: Option<Millis>,
    /// Immutable, unlike the other fields.
    pub created_at: Millis,
}

impl RunRow {
    /// Reads the rows of existing runs, by number. On Postgres this locks them, in that order.
    pub(crate) async fn load(
        tx: &mut impl Tx,
        runs: impl IntoIterator<Item = RunKey>,
    ) -> Result<Vec<(RunKey, Self)>, StoreError> {
        let rows = Rows::default().ints(runs.into_iter().map(|run| run.0));
        tx.query_each(sql::RUN_ROW, &rows, RunRow::read).await
    }

    fn read(row: &dyn Cells) -> Result<(RunKey, Self), StoreError> {
        let run = RunKey(row.int(0)?);
        let status = RunStatus::parse(&row.text(1)?);
        let tally = RunRow {
            status: status.ok_or_else(|| corrupt("run", "status", run.0))?,
            paused: row.int(2)? != 0,
            unswept: row.int(3)?,
            version: row.int(4)?,
            open: row.int(5)?,
            failed: row.int(6)?,
            states: row.int(7)?,
            succeeded: row.int(8)?,
            pruned: row.int(9)?,
            errored: row.int(10)?,
            cancelled: row.int(11)?,
            retries: row.int(12)?,
            requeues: row.int(13)?,
            store_keys: row.int(14)?,
            store_bytes: row.int(15)?,
            store_version: row.int(16)?,
            ended_at: row.maybe_int(17)?,
            created_at: row.int(18)?,
            redrive: row.int(19)?,
        };
        Ok((run, tally))
    }

    /// Returns whether reopened states are parked: they wait for the end of a pause or of a
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
    pub(crate) fn settle(&mut self, now: Millis) {
        if self.status == RunStatus::Cancelled {
            return;
        }
        self.status = RunStatus::of(self.open, self.failed);
        self.ended_at = match self.status {
            RunStatus::Running => None,
            _ => self.ended_at.or(Some(now)),
        };
    }

    /// Returns the run as the API shows it.
    pub(crate) fn view(&self, run: &RunInfo) -> RunView {
        RunView {
            key: run.key,
            id: run.id,
            graph: run.graph_name.clone(),
            revision: run.revision,
            status: self.status,
            paused: self.paused,
            version: self.version,
            created_at: self.created_at,
            ended_at: self.ended_at,
            states: self.states,
            succeeded: self.succeeded,
            pruned: self.pruned,
            errored: self.errored,
            cancelled: self.cancelled,
            retries: self.retries,
            requeues: self.requeues,
            store_keys: self.store_keys,
        }
    }

    /// Writes the rows of several runs.
    pub(crate) async fn save(
        tx: &mut impl Tx,
        tallies: &[(RunKey, RunRow)],
    ) -> Result<(), StoreError> {
        let each = |get: fn(&RunRow) -> i64| tallies.iter().map(move |(_, tally)| get(tally));
        let rows = Rows::default()
            .ints(tallies.iter().map(|(run, _)| run.0))
            .texts(tallies.iter().map(|(_, tally)| tally.status.as_str()))
            .ints(each(|tally| i64::from(tally.paused)))
            .ints(each(|tally| tally.unswept))
            .ints(each(|tally| tally.version))
            .ints(each(|tally| tally.open))
            .ints(each(|tally| tally.failed))
            .ints(each(|tally| tally.states))
            .ints(each(|tally| tally.succeeded))
            .ints(each(|tally| tally.pruned))
            .ints(each(|tally| tally.errored))
            .ints(each(|tally| tally.cancelled))
            .ints(each(|tally| tally.retries))
            .ints(each(|tally| tally.requeues))
            .ints(each(|tally| tally.store_keys))
            .ints(each(|tally| tally.store_bytes))
            .ints(each(|tally| tally.store_version))
            .maybe_ints(tallies.iter().map(|(_, tally)| tally.ended_at))
            .ints(each(|tally| tally.redrive));
        tx.put_off(sql::SAVE_RUN, &rows, None).await
    }
}
