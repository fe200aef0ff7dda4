//! Control operations on runs, except retries: cancel, pause and the sweeps that follow. They are
//! rare, so each uses statements of its own, after the bulk writes of the batch. Not here: retries
//! and redrives (`manual_retry`).

use std::sync::Arc;

use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::state::{Claimed, RunStatus, Status};

use super::batch::{Control, Reply};
use super::{CommitTx, claims};
use crate::codec::{after_path, to_status, to_u32};
use crate::dialect::{ParamRows, Row, Tx, params};
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
        let begun = tx.execute_each(sql::RECORD_BEGIN, &claims(std::iter::once(state))).await?;
        Ok(if begun == 1 { Reply::Done } else { Reply::Stale })
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
        self.ask_for_sweep(run)
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
        self.ask_for_sweep(run)
    }

    /// Requests a sweep of the run's states, for the event of this transaction.
    pub(super) fn ask_for_sweep(&mut self, run: &Arc<RunInfo>) -> Result<Reply, StoreError> {
        let row = &mut self.change(run.key)?.row;
        row.sweep_event = row.version + 1;
        Ok(Reply::ToSweep(row.sweep_event))
    }

    /// Sweeps some of a run's states. The number is bounded, so that a run of any size delays no
    /// other commit.
    async fn sweep(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        event: i64,
        from: &str,
        limit: u32,
    ) -> Result<Reply, StoreError> {
        let row = &self.run(run.key)?.row;
        if row.sweep_event != event {
            return Ok(Reply::Stale);
        }
        let (cancelled, paused) = (row.status == RunStatus::Cancelled, row.parks_reopened());
        let states =
            tx.query(sql::STATES_TO_SWEEP, &params![run.key.0, from, limit], swept).await?;
        let is_swept = |status: Status| {
            if cancelled { !status.is_terminal() } else { status == Status::Created }
        };
        let some = states.iter().filter(|state| state.visible && is_swept(state.status));
        let some: Vec<&Swept> = some.collect();
        if !some.is_empty() {
            let rows = ParamRows::default().ints(some.iter().map(|state| state.id.0));
            if cancelled {
                tx.execute_each(sql::CANCEL_STATE, &rows.all(self.now)).await?;
            } else {
                tx.execute_each(sql::PARK_STATE, &rows.all(i64::from(paused))).await?;
            }
            self.done.more_due |= !cancelled && !paused;
            self.done.added |= !cancelled && !paused;
        }
        let row = &mut self.change(run.key)?.row;
        for state in some.iter().filter(|_| cancelled) {
            row.cancelled += 1;
            row.node_counts.change(state.node, state.status, Status::Cancelled);
        }
        match states.last() {
            Some(last) if states.len() as u32 == limit => Ok(Reply::More(after_path(&last.path))),
            _ => {
                row.sweep_event = 0;
                row.open = if cancelled { 0 } else { row.open };
                Ok(Reply::Done)
            }
        }
    }
}

/// A state that a sweep examines.
struct Swept {
    id: StateId,
    path: String,
    status: Status,
    node: NodeIx,
    /// Set if the state is visible: a staged one is not part of the run yet.
    visible: bool,
}

fn swept(row: &dyn Row) -> Result<Swept, StoreError> {
    let id = StateId(row.int(0)?);
    let status = to_status(&row.text(2)?, id)?;
    let node = NodeIx(to_u32(row.int(3)?, "node", id)?);
    Ok(Swept { id, path: row.text(1)?, status, node, visible: row.int(4)? == 1 })
}
