//! Deadlines of runs: recorded by a start, and judged when they are due. A run that has missed one
//! is FAILED at once, and a sweep ends its states.
//!
//! Not here: the decision (`exosphere_domain::deadline`), and the task that finds due deadlines
//! (`exosphere_orchestrator`, `deadlines`).

use std::sync::Arc;

use exosphere_domain::deadline::{DeadlineKind, Progress, Verdict, judge};
use exosphere_domain::ids::{Millis, RunKey};
use exosphere_domain::state::RunStatus;

use super::CommitTx;
use super::batch::{NewRun, Operation, Reply};
use crate::codec::{read_int, read_text};
use crate::dialect::{ParamRows, PendingWrites, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::types::RunInfo;
use crate::{Store, in_transaction, sql};

/// A deadline that is not met or missed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingDeadline {
    /// The key of the run's row.
    pub run: RunKey,
    /// The kind of the deadline.
    pub kind: DeadlineKind,
    /// The time at which it is due.
    pub due_at: Millis,
}

impl CommitTx<'_> {
    /// Adds the deadlines of the runs that this batch has started.
    pub(super) fn add_deadlines(&self, pending: &mut PendingWrites<'_>, operations: &[Operation]) {
        let started = operations.iter().zip(&self.done.replies).filter_map(|each| match each {
            (Operation::Start(new), Reply::Done) => Some(&**new),
            _ => None,
        });
        let deadline = |new: &NewRun| {
            let run = new.info.key.0;
            new.deadlines.iter().map(move |(kind, after)| (run, kind, after))
        };
        let all: Vec<_> = started.flat_map(deadline).collect();
        let rows = ParamRows::default()
            .ints(all.iter().map(|(run, ..)| *run))
            .texts(all.iter().map(|(_, kind, _)| kind.as_str()))
            .ints(all.iter().map(|(.., after)| self.now.saturating_add(*after)));
        pending.add(sql::NEW_DEADLINE, rows);
    }

    /// Judges a deadline of a run. If the run has missed it, the run fails.
    pub(super) async fn expire(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        kind: DeadlineKind,
    ) -> Result<Reply, StoreError> {
        let key = params![run.key.0, kind.as_str()];
        let due_at = tx.query(sql::DEADLINE, &key, read_int).await?;
        let Some(due_at) = due_at.first().copied() else { return Ok(Reply::Stale) };
        let attempts = tx.query(sql::ROOT_ATTEMPTS, &params![run.key.0], read_int).await?;
        let has_begun = attempts.first().is_none_or(|attempts| *attempts > 0);
        let row = &self.run(run.key)?.row;
        // The last state may have ended in this batch.
        let status = match row.status {
            RunStatus::Running => RunStatus::from_counts(row.open, row.failed),
            ended => ended,
        };
        match judge(kind, due_at, self.now, Progress { status, has_begun }) {
            Verdict::Early => return Ok(Reply::Stale),
            Verdict::Met => {
                tx.execute(sql::END_DEADLINE, &key).await?;
                return Ok(Reply::Done);
            }
            Verdict::Missed => {}
        }
        tx.execute(sql::MISS_DEADLINE, &params![run.key.0, kind.as_str(), self.now]).await?;
        tx.execute(sql::END_OTHER_DEADLINES, &params![run.key.0]).await?;
        self.stop(run, kind)?;
        self.request_sweep(run)
    }

    /// Fails a run although states of it are open. None of their ends counts any more.
    fn stop(&mut self, run: &Arc<RunInfo>, kind: DeadlineKind) -> Result<(), StoreError> {
        let now = self.now;
        // Its unites are not closed, but ended by the sweep.
        self.counts.retain(|_, (of_run, _)| *of_run != run.key);
        self.drained.retain(|unite| unite.run != run.key);
        let loaded = self.run(run.key)?;
        loaded.missed = Some(kind);
        let row = &mut loaded.row;
        row.status = RunStatus::Failed;
        row.open = 0;
        // A FAILED run has a failure: here it is the run itself.
        row.failed = row.failed.max(1);
        row.redrive = 0;
        row.ended_at = Some(now);
        Ok(())
    }

    /// Returns the refusal of a retry, if the run has missed a deadline.
    pub(super) async fn refuses_missed(
        &self,
        tx: &mut impl Tx,
        run: RunKey,
    ) -> Result<Option<Reply>, StoreError> {
        let missed = tx.query(sql::MISSED_DEADLINE, &params![run.0], read_text).await?;
        Ok(missed.first().map(|_| {
            let message = "the run has missed its deadline, and its open states were cancelled; \
                           start a new run";
            Reply::Refused(message.into())
        }))
    }
}

impl Store {
    /// Reads the next deadlines, and the present time of the database's clock, by which they are
    /// judged.
    pub async fn next_deadlines(
        &self,
        limit: u32,
        now: Millis,
    ) -> Result<(Vec<PendingDeadline>, Millis), StoreError> {
        in_transaction!(self, now, |tx| next_deadlines(tx, limit))
    }
}

async fn next_deadlines(
    tx: &mut impl Tx,
    limit: u32,
) -> Result<(Vec<PendingDeadline>, Millis), StoreError> {
    let next = tx.query(sql::NEXT_DEADLINES, &params![limit], read_deadline).await?;
    Ok((next, tx.now()))
}

fn read_deadline(row: &dyn Row) -> Result<PendingDeadline, StoreError> {
    let run = row.int(0)?;
    Ok(PendingDeadline {
        run: RunKey(run),
        kind: to_kind(&row.text(1)?, run)?,
        due_at: row.int(2)?,
    })
}

/// Parses the kind of a deadline from its column.
pub(crate) fn to_kind(text: &str, run: i64) -> Result<DeadlineKind, StoreError> {
    DeadlineKind::parse(text).ok_or_else(|| corrupt_row("deadline", "kind", run))
}
