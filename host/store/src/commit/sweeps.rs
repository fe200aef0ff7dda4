//! Sweeps: after a cancel or a pause, they bring the states of a run in line with it, some in each
//! transaction.
//!
//! Not here: the loop that requests one piece after the other (`exosphere_orchestrator`, `sweeps`).

use std::sync::Arc;

use exosphere_domain::ids::{Millis, NodeIx, SessionId, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::{RunStatus, Status};

use super::batch::Reply;
use super::{CommitTx, LoadedRun};
use crate::codec::{after_path, to_status, to_u32};
use crate::dialect::{ParamRows, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::sql;
use crate::types::RunInfo;

impl CommitTx<'_> {
    /// Requests a sweep of the run's states, for the event of this transaction.
    pub(super) fn request_sweep(&mut self, run: &Arc<RunInfo>) -> Result<Reply, StoreError> {
        let row = &mut self.change(run.key)?.row;
        row.sweep_event = row.version + 1;
        Ok(Reply::ToSweep(row.sweep_event))
    }

    /// Sweeps some of a run's states. The number is bounded, so that a run of any size delays no
    /// other commit.
    pub(super) async fn sweep(
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
        // A run that is over otherwise has no open states.
        let (cancelled, paused) = (row.status != RunStatus::Running, row.holds_back_reopened());
        let states = tx
            .query(sql::STATES_TO_SWEEP, &params![run.key.0, from, limit], read_sweep_row)
            .await?;
        let is_swept = |status: Status| {
            if cancelled { !status.is_terminal() } else { status == Status::Created }
        };
        let swept_states = states.iter().filter(|state| state.visible && is_swept(state.status));
        let swept_states: Vec<&SweepRow> = swept_states.collect();
        if !swept_states.is_empty() {
            let rows = ParamRows::default().ints(swept_states.iter().map(|state| state.id.0));
            if cancelled {
                tx.execute_each(sql::CANCEL_STATE, &rows.all(self.now)).await?;
            } else {
                tx.execute_each(sql::HOLD_BACK, &rows.all(i64::from(paused))).await?;
            }
            self.done.more_due |= !cancelled && !paused;
            self.done.added |= !cancelled && !paused;
        }
        let running = swept_states.iter().filter(|state| state.status == Status::Queued);
        for state in running.filter(|_| cancelled) {
            self.reporter.add_cancelled(run, state, self.now);
        }
        let LoadedRun { row, commit_counts, .. } = self.change(run.key)?;
        for state in swept_states.iter().filter(|_| cancelled) {
            row.change_status(state.node, state.status, Status::Cancelled);
            commit_counts.cancelled += 1;
        }
        match states.last() {
            Some(last) if states.len() as u32 == limit => {
                Ok(Reply::More(after_path(last.path.as_str())))
            }
            _ => {
                row.sweep_event = 0;
                row.open = if cancelled { 0 } else { row.open };
                Ok(Reply::Done)
            }
        }
    }
}

/// A state that a sweep examines.
pub(super) struct SweepRow {
    id: StateId,
    pub(super) path: Path,
    status: Status,
    pub(super) node: NodeIx,
    /// Set if the state is visible: a staged one is not part of the run yet.
    visible: bool,
    /// The number of its latest attempt.
    pub(super) attempt: u32,
    /// The session that claimed it last, if it is claimed or was.
    pub(super) session: Option<SessionId>,
    /// The time of that claim.
    pub(super) began_at: Option<Millis>,
}

fn read_sweep_row(row: &dyn Row) -> Result<SweepRow, StoreError> {
    let id = StateId(row.int(0)?);
    let status = to_status(&row.text(2)?, id)?;
    let node = NodeIx(to_u32(row.int(3)?, "node", id)?);
    Ok(SweepRow {
        id,
        path: Path::decode(&row.text(1)?).map_err(|_| corrupt_row("state", "path", id))?,
        status,
        node,
        visible: row.int(4)? == 1,
        attempt: to_u32(row.int(5)?, "attempt", id)?,
        session: row.maybe_int(6)?.map(SessionId),
        began_at: row.maybe_int(7)?,
    })
}
