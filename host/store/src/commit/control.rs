//! Control operations on runs, except retries: cancel, pause and the sweeps that follow. They are
//! rare, so each uses statements of its own, after the bulk writes of the batch. Not here: retries
//! and redrives (`manual_retry`).

use std::sync::Arc;

use exosphere_domain::ids::StateId;
use exosphere_domain::state::{Claimed, RunStatus, Status};

use super::{Answer, CommitTx, Member, RunInfo, claims};
use crate::error::StoreError;
use crate::inputs::after;
use crate::rows::status;
use crate::sql;
use crate::text::{Cells, Rows, Tx, values};

impl CommitTx<'_> {
    /// Executes a control operation; returns `None` for a start, an end or a piece of one.
    pub(super) async fn control(
        &mut self,
        tx: &mut impl Tx,
        member: &Member,
    ) -> Result<Option<Answer>, StoreError> {
        let is_control = !matches!(member, Member::Start(_) | Member::Finish(_) | Member::Stage(_));
        if is_control && !self.runs.contains_key(&member.run().key) {
            return Ok(Some(Answer::Missing));
        }
        match member {
            Member::Start(_) | Member::Finish(_) | Member::Stage(_) => Ok(None),
            Member::Unstage(leftover) => self.unstage(tx, leftover).await.map(Some),
            Member::Begin { run, state } => self.begin(tx, run, state).await.map(Some),
            Member::Cancel(run) => self.cancel(run).map(Some),
            Member::Pause { run, paused } => self.pause(run, *paused).map(Some),
            Member::Sweep { run, event, from, most } => {
                self.sweep(tx, run, *event, from, *most).await.map(Some)
            }
            Member::Retry { run, state } => self.retry(tx, run, *state).await.map(Some),
            Member::Redrive { run, part } => self.redrive(tx, run, part).await.map(Some),
        }
    }

    /// Records that an execution begins.
    async fn begin(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        state: &Claimed,
    ) -> Result<Answer, StoreError> {
        if !self.is_live(run.key) {
            return Ok(Answer::Stale);
        }
        let begun = tx.execute_each(sql::BEGUN, &claims(std::iter::once(state))).await?;
        Ok(if begun == 1 { Answer::Done } else { Answer::Stale })
    }

    fn cancel(&mut self, run: &Arc<RunInfo>) -> Result<Answer, StoreError> {
        let now = self.now;
        let tally = &mut self.run(run.key)?.tally;
        if !tally.is_live() {
            let words = format!("the run is over already: it is {}", tally.status);
            return Ok(Answer::Refused(words));
        }
        tally.status = RunStatus::Cancelled;
        tally.redrive = 0;
        tally.ended_at = Some(now);
        self.ask_for_sweep(run)
    }

    fn pause(&mut self, run: &Arc<RunInfo>, paused: bool) -> Result<Answer, StoreError> {
        let tally = &mut self.run(run.key)?.tally;
        // A run that ended while paused may be resumed before a retry.
        if !tally.is_live() && (paused || !tally.paused) {
            let words = format!("the run is over already: it is {}", tally.status);
            return Ok(Answer::Refused(words));
        }
        if tally.paused == paused {
            return Ok(Answer::Done);
        }
        tally.paused = paused;
        self.ask_for_sweep(run)
    }

    /// Requests a sweep of the run's states, for the event of this transaction.
    pub(super) fn ask_for_sweep(&mut self, run: &Arc<RunInfo>) -> Result<Answer, StoreError> {
        let tally = &mut self.change(run.key)?.tally;
        tally.unswept = tally.version + 1;
        Ok(Answer::ToSweep(tally.unswept))
    }

    /// Sweeps some of a run's states. The number is bounded, so that a run of any size delays no
    /// other commit.
    async fn sweep(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        event: i64,
        from: &str,
        most: u32,
    ) -> Result<Answer, StoreError> {
        let tally = &self.run(run.key)?.tally;
        if tally.unswept != event {
            return Ok(Answer::Stale);
        }
        let (cancelled, paused) = (tally.status == RunStatus::Cancelled, tally.parks_reopened());
        let states = tx.query(sql::SOME_STATES, &values![run.key.0, from, most], swept).await?;
        let is_swept = |status: Status| match cancelled {
            true => !status.is_terminal(),
            false => status == Status::Created,
        };
        let some = states.iter().filter(|state| state.seen && is_swept(state.status));
        let some: Vec<i64> = some.map(|state| state.id.0).collect();
        if !some.is_empty() {
            let rows = Rows::default().ints(some.iter().copied());
            match cancelled {
                true => tx.execute_each(sql::CANCEL_STATE, &rows.all(self.now)).await?,
                false => tx.execute_each(sql::PARK_STATE, &rows.all(i64::from(paused))).await?,
            };
            self.done.more |= !cancelled && !paused;
            self.done.added |= !cancelled && !paused;
        }
        let tally = &mut self.change(run.key)?.tally;
        tally.cancelled += if cancelled { some.len() as i64 } else { 0 };
        match states.last() {
            Some(last) if states.len() as u32 == most => Ok(Answer::More(after(&last.path))),
            _ => {
                tally.unswept = 0;
                tally.open = if cancelled { 0 } else { tally.open };
                Ok(Answer::Done)
            }
        }
    }
}

/// A state that a sweep examines.
struct Swept {
    id: StateId,
    path: String,
    status: Status,
    /// Set if the state is visible: a staged one is not part of the run yet.
    seen: bool,
}

fn swept(row: &dyn Cells) -> Result<Swept, StoreError> {
    let id = StateId(row.int(0)?);
    let status = status(&row.text(2)?, id)?;
    Ok(Swept { id, path: row.text(1)?, status, seen: row.int(3)? == 1 })
}
