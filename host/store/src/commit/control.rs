//! Control operations on runs, except retries: cancel and pause. They are
//! rare, so each uses statements of its own, after the bulk writes of the batch. Not here: the sweeps
//! that follow (`sweeps`), retries and redrives (`manual_retry`).

use std::sync::Arc;

use exosphere_domain::state::{Claimed, RunStatus};

use super::batch::{Control, Reply};
use super::{CommitTx, claims};
use crate::dialect::Tx;
use crate::error::StoreError;
use crate::sql;
use crate::types::RunInfo;

impl CommitTx<'_> {
    /// Executes a control operation.
    pub(super) async fn control(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        control: &Control,
    ) -> Result<Reply, StoreError> {
        if !self.runs.contains_key(&run.key) {
            return Ok(Reply::Missing);
        }
        match control {
            Control::Unstage(leftover) => self.unstage(tx, run.key, leftover).await,
            Control::Begin(state) => self.begin(tx, run, state).await,
            Control::Cancel => self.cancel(run),
            Control::Pause => self.set_paused(run, true),
            Control::Resume => self.set_paused(run, false),
            Control::Sweep { event, from, limit } => {
                self.sweep(tx, run, *event, from, *limit).await
            }
            Control::Retry(state) => self.retry(tx, run, *state).await,
            Control::Redrive(part) => self.redrive(tx, run, part).await,
        }
    }

    /// Records that an execution begins.
    async fn begin(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        state: &Claimed,
    ) -> Result<Reply, StoreError> {
        if !self.is_live(run.key) {
            return Ok(Reply::Stale);
        }
        let recorded = tx.execute_each(sql::RECORD_BEGIN, &claims(std::iter::once(state))).await?;
        Ok(if recorded == 1 { Reply::Done } else { Reply::Stale })
    }

    fn cancel(&mut self, run: &Arc<RunInfo>) -> Result<Reply, StoreError> {
        let now = self.now;
        let row = &mut self.run(run.key)?.row;
        if !row.is_live() {
            let message = format!("the run is over already: it is {}", row.status);
            return Ok(Reply::Refused(message));
        }
        row.status = RunStatus::Cancelled;
        row.redrive = 0;
        row.ended_at = Some(now);
        self.request_sweep(run)
    }

    fn set_paused(&mut self, run: &Arc<RunInfo>, paused: bool) -> Result<Reply, StoreError> {
        let row = &mut self.run(run.key)?.row;
        // A run that ended while paused may be resumed before a retry.
        if !row.is_live() && (paused || !row.paused) {
            let message = format!("the run is over already: it is {}", row.status);
            return Ok(Reply::Refused(message));
        }
        if row.paused == paused {
            return Ok(Reply::Done);
        }
        row.paused = paused;
        self.request_sweep(run)
    }
}
