//! Control of runs that exist: cancel, pause, resume, manual retry and redrive.
//!
//! Not here: starts (`start`), and the sweeps that follow (`execution::sweeps`).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::{Name, RunId};
use exosphere_store::{Control, Operation, RedrivePart, Reply, RunInfo, StoreError};
use tokio::task::JoinError;
use tracing::Instrument;

use crate::Host;
use crate::error::{Error, log_internal};
use crate::execution::sweeps::{FailedStates, RedriveSummary, begin_sweep, continue_redrive};
use crate::service::queries::RunDetails;
use crate::service::request::{LateCallback, Request, RequestKind, expect_done};

/// The time for which a request waits for the pieces of a redrive.
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(50);

/// The result of a redrive.
#[derive(Debug)]
pub struct Redriven {
    /// The run after the redrive.
    pub run: RunDetails,
    /// States that run again.
    pub retried: usize,
    /// Failed states that do not run again: a unite above has continued without them.
    pub late: usize,
}

impl Host {
    /// Cancels a run: it has no further effects, and its executions are stopped on every
    /// host.
    pub async fn cancel_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.change_status(namespace, id, RequestKind::Cancel, |run| {
            self.audited(run, "run cancel", Control::Cancel)
        })
        .await
    }

    /// Pauses a run: running executions end, and none of its states is claimed.
    pub async fn pause_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        let pause = |run| self.audited(run, "run pause", Control::Pause);
        self.change_status(namespace, id, RequestKind::Pause, pause).await
    }

    /// Resumes a paused run.
    pub async fn resume_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        let resume = |run| self.audited(run, "run resume", Control::Resume);
        self.change_status(namespace, id, RequestKind::Resume, resume).await
    }

    /// Returns a control operation of the caller on a run, which the audit log records.
    pub(super) fn audited(
        &self,
        run: Arc<RunInfo>,
        action: &'static str,
        control: Control,
    ) -> Operation {
        let object = run.id.to_string();
        self.audited_on(object, run, action, control)
    }

    /// Returns a control operation of the caller, which the audit log records as one on an object
    /// in the run.
    fn audited_on(
        &self,
        object: String,
        run: Arc<RunInfo>,
        action: &'static str,
        control: Control,
    ) -> Operation {
        let entry = self.store().audit_entry(action, Some(&run.namespace), object);
        let control = match entry {
            Some(entry) => Control::Audited(Box::new(control), entry),
            None => control,
        };
        Operation::Control(run, control)
    }

    /// Changes the status of a run, and sweeps its states if needed. It runs in its own
    /// task, so that neither a caller that has gone nor a late commit prevents the sweep.
    async fn change_status(
        &self,
        namespace: &Name,
        id: RunId,
        kind: RequestKind,
        operation: impl FnOnce(Arc<RunInfo>) -> Operation,
    ) -> Result<RunDetails, Error> {
        let request = Request::new(kind);
        let run = request.before_commit(self.run_info(namespace, id)).await?;
        let (inner, operation) = (self.inner.clone(), operation(run.clone()));
        let change = async move {
            let late: LateCallback = {
                let (inner, run) = (inner.clone(), run.clone());
                Box::new(move |answer| {
                    if let Reply::ToSweep(event) = answer {
                        tokio::spawn(async move { begin_sweep(&inner, run, event).await });
                    }
                })
            };
            match request.commit_with(&inner.pipeline.committer, operation, Some(late)).await? {
                Reply::ToSweep(event) => {
                    begin_sweep(&inner, run, event).await;
                    Ok(())
                }
                other => expect_done("run", id, other),
            }
        };
        let changed = tokio::spawn(change.in_current_span());
        changed.await.unwrap_or_else(|ended| Err(Error::Internal(log_internal(&ended))))?;
        request.after_commit(Duration::ZERO, id, self.run(namespace, id)).await
    }

    /// Retries a failed state.
    pub async fn retry_state(
        &self,
        namespace: &Name,
        id: RunId,
        path: &str,
    ) -> Result<RunDetails, Error> {
        let request = Request::new(RequestKind::Retry);
        let run = request.before_commit(self.run_info(namespace, id)).await?;
        let (state, _) = request.before_commit(self.find_state(&run, path)).await?;
        let object = format!("{id}/{path}");
        let operation = self.audited_on(object, run, "state retry", Control::Retry(state));
        expect_done(
            "state",
            path,
            request.commit(&self.inner.pipeline.committer, operation).await?,
        )?;
        request.after_commit(Duration::ZERO, id, self.run(namespace, id)).await
    }

    /// Redrives a run: retries every failed state, except those that a unite has
    /// continued without.
    pub async fn redrive_run(&self, namespace: &Name, id: RunId) -> Result<Redriven, Error> {
        let request = Request::new(RequestKind::Redrive);
        let run = request.before_commit(self.run_info(namespace, id)).await?;
        match self.reopen_failed(&run, &request).await? {
            Ok(RedriveSummary { states: 0, late }) => Err(Error::Conflict(format!(
                "none of its {late} failed states can be retried: unites above have continued without them"
            ))),
            Ok(RedriveSummary { states, late }) => {
                let details = self.run(namespace, id);
                let run = request.after_commit(REDRIVE_TIMEOUT, id, details).await?;
                Ok(Redriven { run, retried: states, late })
            }
            Err(other) => {
                expect_done("run", id, other)?;
                Err(Error::Internal(log_internal(&"a redrive was not answered as one")))
            }
        }
    }

    /// Reopens all failed states of a run, except those that a unite has continued
    /// without. Many states are reopened in pieces, and held back until the last one: no
    /// unite continues before that. The request is withdrawn if it times out before any
    /// state was reopened.
    async fn reopen_failed(
        &self,
        run: &Arc<RunInfo>,
        request: &Request,
    ) -> Result<Result<RedriveSummary, Reply>, Error> {
        let (inner, committer) = (&self.inner, &self.inner.pipeline.committer);
        let operation = |part| self.audited(run.clone(), "run redrive", Control::Redrive(part));
        let mut failed = FailedStates::new(run);
        let first = request.before_commit(failed.next(inner)).await?;
        if failed.is_read {
            let whole = operation(RedrivePart::Whole(first));
            return Ok(match request.commit(committer, whole).await? {
                Reply::Redriven { states, late } => Ok(RedriveSummary { states, late }),
                other => Err(other),
            });
        }
        match request.commit(committer, operation(RedrivePart::Begin)).await? {
            Reply::ToSweep(event) => {
                let (inner, id, run) = (inner.clone(), run.id, run.clone());
                // The task continues even if the caller has gone.
                let redrive = async move { continue_redrive(&inner, run, event).await };
                let redriven = tokio::spawn(redrive);
                let stopped = |error: JoinError| StoreError::Data(error.to_string());
                let redriven = async { Ok(redriven.await.map_err(stopped)??) };
                request.after_commit(REDRIVE_TIMEOUT, id, redriven).await.map(Ok)
            }
            other => Ok(Err(other)),
        }
    }
}
