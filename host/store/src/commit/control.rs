//! Control operations on runs, except retries: cancel, pause and deletion. They are
//! rare, so each uses statements of its own, after the bulk writes of the batch. Not here: the sweeps
//! that follow (`sweeps`), retries and redrives (`manual_retry`).

use std::sync::Arc;

use exosphere_domain::ids::RunKey;
use exosphere_domain::state::{Claimed, RunStatus};

use super::batch::{Control, Operation, Reply};
use super::{CommitTx, claims};
use crate::audit::{self, AuditEntry};
use crate::dialect::{ParamRows, PendingWrites, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::pauses::{PausesOfRun, read_pauses};
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
        self.control_by(tx, run, control, None).await
    }

    /// Executes a control operation of a caller, if that is known.
    async fn control_by(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        control: &Control,
        caller: Option<&AuditEntry>,
    ) -> Result<Reply, StoreError> {
        if !self.runs.contains_key(&run.key) {
            return Ok(Reply::Missing);
        }
        match control {
            Control::Unstage(leftover) => self.unstage(tx, run.key, leftover).await,
            Control::Begin(state) => self.begin(tx, run, state).await,
            Control::Cancel => self.cancel(run),
            Control::Delete => self.delete(tx, run).await,
            Control::Expire(kind) => self.expire(tx, run, *kind).await,
            Control::Pause => self.set_paused(tx, run, true, caller).await,
            Control::Resume => self.set_paused(tx, run, false, caller).await,
            Control::FollowGraph => self.follow_graph(tx, run).await,
            Control::Sweep { event, from, limit } => {
                self.sweep(tx, run, *event, from, *limit).await
            }
            Control::Retry(state) => self.retry(tx, run, *state).await,
            Control::Redrive(part) => self.redrive(tx, run, part).await,
            Control::Audited(control, entry) => {
                let reply = Box::pin(self.control_by(tx, run, control, Some(entry))).await?;
                if !matches!(reply, Reply::Missing | Reply::Stale | Reply::Refused(_)) {
                    audit::record(tx, Some(entry), None, None).await?;
                }
                Ok(reply)
            }
            Control::Bulk(step) => self.bulk_step(tx, run, step).await,
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

    /// Deletes a run that has ended. Its row goes first: no reader finds it from then on, and its
    /// idempotency key is free.
    async fn delete(&mut self, tx: &mut impl Tx, run: &Arc<RunInfo>) -> Result<Reply, StoreError> {
        let row = &self.run(run.key)?.row;
        // An earlier operation of this batch may have reopened it.
        if row.is_live() || (row.status != RunStatus::Cancelled && row.open > 0) {
            let message = "the run has not ended; cancel it first";
            return Ok(Reply::Refused(message.into()));
        }
        // A deadline that no commit can judge would be read again and again.
        tx.execute(sql::REMOVE_DEADLINES, &params![run.key.0]).await?;
        tx.execute(sql::DELETE_RUN, &params![run.key.0]).await?;
        tx.execute(sql::RECORD_DELETED_RUN, &params![run.key.0, self.now]).await?;
        self.runs.remove(&run.key);
        Ok(Reply::Done)
    }

    async fn set_paused(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        paused: bool,
        caller: Option<&AuditEntry>,
    ) -> Result<Reply, StoreError> {
        let row = &self.run(run.key)?.row;
        if !row.is_live() {
            let message = format!("the run is over already: it is {}", row.status);
            return Ok(Reply::Refused(message));
        }
        if row.paused {
            let PausesOfRun { of_graph, with_graph } = self.pauses(tx, run.key).await?;
            match (paused, with_graph) {
                // From now on it is paused by itself, also after its graph is resumed.
                (true, true) => {
                    tx.execute(sql::END_PAUSED_RUN, &params![run.key.0]).await?;
                    self.record_own_pause(tx, run.key, caller).await?;
                }
                (false, true) => {
                    let message = format!(
                        "the run is paused with its graph; resume that with \
                         `exosphere graph resume {}`",
                        run.graph_name
                    );
                    return Ok(Reply::Refused(message));
                }
                // It stays paused, with its graph from now on.
                (false, false) if of_graph => {
                    tx.execute(sql::NEW_PAUSED_RUN_OF, &params![run.key.0]).await?;
                    tx.execute(sql::END_OWN_PAUSE, &params![run.key.0]).await?;
                    return Ok(Reply::Done);
                }
                _ => {}
            }
        }
        if self.run(run.key)?.row.paused == paused {
            return Ok(Reply::Done);
        }
        self.run(run.key)?.row.paused = paused;
        if paused {
            self.record_own_pause(tx, run.key, caller).await?;
        } else {
            tx.execute(sql::END_OWN_PAUSE, &params![run.key.0]).await?;
        }
        self.request_sweep(run)
    }

    /// Records since when a run is paused by itself, and by whom.
    async fn record_own_pause(
        &self,
        tx: &mut impl Tx,
        run: RunKey,
        caller: Option<&AuditEntry>,
    ) -> Result<(), StoreError> {
        let by = caller.and_then(AuditEntry::key);
        let row = params![run.0, self.now, by.as_deref()];
        tx.execute(sql::NEW_OWN_PAUSE, &row).await.map(drop)
    }

    /// Pauses a run with its graph, or resumes it with that.
    async fn follow_graph(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
    ) -> Result<Reply, StoreError> {
        let PausesOfRun { of_graph, with_graph } = self.pauses(tx, run.key).await?;
        let row = &mut self.run(run.key)?.row;
        let (is_live, is_paused) = (row.is_live(), row.paused);
        match (of_graph, with_graph) {
            (true, false) if is_live && !is_paused => {
                row.paused = true;
                tx.execute(sql::NEW_PAUSED_RUN_OF, &params![run.key.0]).await?;
                self.request_sweep(run)
            }
            (false, true) => {
                row.paused = false;
                tx.execute(sql::END_PAUSED_RUN, &params![run.key.0]).await?;
                if is_live && is_paused { self.request_sweep(run) } else { Ok(Reply::Done) }
            }
            _ => Ok(Reply::Done),
        }
    }

    /// Pauses a run that a retry reopens, if its graph is paused.
    pub(super) async fn pause_reopened(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
    ) -> Result<(), StoreError> {
        if !self.run(run.key)?.row.is_live() && self.pauses(tx, run.key).await?.of_graph {
            self.run(run.key)?.row.paused = true;
            tx.execute(sql::NEW_PAUSED_RUN_OF, &params![run.key.0]).await?;
        }
        Ok(())
    }

    async fn pauses(&self, tx: &mut impl Tx, run: RunKey) -> Result<PausesOfRun, StoreError> {
        let pauses = tx.query(sql::PAUSES_OF_RUN, &params![run.0], read_pauses).await?.pop();
        pauses.ok_or_else(|| corrupt_row("run", "graph", run.0))
    }

    /// Records which of the runs that this batch has started are paused with their graphs.
    pub(super) fn add_paused_runs(
        &self,
        pending: &mut PendingWrites<'_>,
        operations: &[Operation],
    ) {
        let started = operations.iter().zip(&self.done.replies).filter_map(|each| match each {
            (Operation::Start(new), Reply::Done) => Some(new.info.key),
            _ => None,
        });
        let is_paused = |run: &RunKey| self.runs.get(run).is_some_and(|it| it.row.paused);
        let paused = started.filter(is_paused).map(|run| run.0);
        pending.add(sql::NEW_PAUSED_RUN, ParamRows::default().ints(paused));
    }
}
