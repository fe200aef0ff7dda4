//! The row of a run within one commit: read once, changed in memory, written
//! once with the next version. A run's end is decided when it is written.

use exosphere_domain::ids::{Millis, RunKey};
use exosphere_domain::state::{Counts, RunStatus};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::error::StoreError;
use crate::rows::corrupt;
use crate::sql;

/// What may change of a run.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub status: RunStatus,
    pub version: i64,
    /// The counts of the outermost scope.
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
}

impl Tally {
    pub(crate) fn load(tx: &Transaction<'_>, run: RunKey) -> Result<Option<Self>, StoreError> {
        let read = |row: &Row<'_>| Ok(Tally::read(row, run));
        tx.prepare_cached(sql::RUN_ROW)?.query_row([run.0], read).optional()?.transpose()
    }

    fn read(row: &Row<'_>, run: RunKey) -> Result<Self, StoreError> {
        let status: String = row.get(0)?;
        Ok(Tally {
            status: RunStatus::parse(&status).ok_or_else(|| corrupt("run", "status", run.0))?,
            version: row.get(1)?,
            open: row.get(2)?,
            failed: row.get(3)?,
            states: row.get(4)?,
            succeeded: row.get(5)?,
            pruned: row.get(6)?,
            errored: row.get(7)?,
            cancelled: row.get(8)?,
            retries: row.get(9)?,
            requeues: row.get(10)?,
            store_keys: row.get(11)?,
            store_bytes: row.get(12)?,
            store_version: row.get(13)?,
            ended_at: row.get(14)?,
        })
    }

    /// Whether outcomes still count.
    pub(crate) fn is_live(&self) -> bool {
        self.status == RunStatus::Running
    }

    pub(crate) fn count(&mut self, delta: Counts) {
        self.open += delta.open;
        self.failed += delta.failed;
    }

    /// Where the run stands by its counts; a cancelled one stays cancelled.
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

    pub(crate) fn save(&self, tx: &Transaction<'_>, run: RunKey) -> Result<(), StoreError> {
        tx.prepare_cached(sql::SAVE_RUN)?.execute(params![
            run.0,
            self.status.as_str(),
            self.version,
            self.open,
            self.failed,
            self.states,
            self.succeeded,
            self.pruned,
            self.errored,
            self.cancelled,
            self.retries,
            self.requeues,
            self.store_keys,
            self.store_bytes,
            self.store_version,
            self.ended_at,
        ])?;
        Ok(())
    }
}
