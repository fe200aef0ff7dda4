//! The report of a commit, for traces: the attempts and the runs that it ended. It is only made for
//! runs whose traces are sampled, and holds no payload.
//!
//! Not here: spans (`exosphere_orchestrator`, `traces`).

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::deadline::DeadlineKind;
use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, RunKey, SessionId, StateId};
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::plan::Transition;
use exosphere_domain::state::RunStatus;
use exosphere_domain::trace::SampleRatio;

use super::LoadedRun;
use super::batch::Finished;
use super::run_row::RunRow;
use super::sweeps::SweepRow;
use crate::types::RunInfo;

/// The attempts and runs that ended in a commit.
#[derive(Debug, Default)]
pub struct CommitReport {
    /// The runs of these attempts, and those that ended.
    pub runs: BTreeMap<RunKey, ReportedRun>,
    /// The attempts that ended.
    pub attempts: Vec<EndedAttempt>,
    /// The runs that ended.
    pub ended_runs: Vec<EndedRun>,
    /// States whose end an earlier transaction may have committed without a report.
    pub in_doubt: Vec<StateId>,
}

/// A run in a report. It holds no inputs, so that a queue of reports is small.
#[derive(Debug, Clone)]
pub struct ReportedRun {
    /// The key of the run's row.
    pub key: RunKey,
    /// The public id of the run.
    pub id: RunId,
    /// The namespace of the run.
    pub namespace: Name,
    /// The name of the run's graph.
    pub graph_name: Name,
    /// The number of the graph's revision.
    pub revision: i64,
    /// The graph, as this revision defines it.
    pub graph: Arc<Graph>,
}

impl From<&RunInfo> for ReportedRun {
    fn from(run: &RunInfo) -> Self {
        ReportedRun {
            key: run.key,
            id: run.id,
            namespace: run.namespace.clone(),
            graph_name: run.graph_name.clone(),
            revision: run.revision,
            graph: run.graph.clone(),
        }
    }
}

/// An attempt that ended in a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedAttempt {
    /// The key of the run's row.
    pub run: RunKey,
    /// The node of the state.
    pub node: NodeIx,
    /// The path of the state.
    pub path: Path,
    /// The number of the attempt.
    pub number: u32,
    /// The session that executed it.
    pub session: SessionId,
    /// The time at which it began, or was claimed if its host was lost or its run cancelled.
    pub began_at: Option<Millis>,
    /// The time at which it ended.
    pub ended_at: Millis,
    /// The end of the attempt.
    pub end: AttemptEnd,
    /// The resource usage of the attempt.
    pub usage: Option<Usage>,
}

/// The end of an attempt in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// An end with an outcome, and the kind of its failure.
    Outcome(AttemptOutcome, Option<FailureKind>),
    /// The run was cancelled, or missed a deadline.
    Cancelled,
}

/// A run that ended in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// The key of the run's row.
    pub run: RunKey,
    /// The status of the run.
    pub status: RunStatus,
    /// The time of its start.
    pub created_at: Millis,
    /// The time of its end.
    pub ended_at: Millis,
    /// The deadline that it missed.
    pub missed: Option<DeadlineKind>,
}

impl CommitReport {
    /// Adds the report of another commit.
    pub fn merge(&mut self, other: CommitReport) {
        self.runs.extend(other.runs);
        self.attempts.extend(other.attempts);
        self.ended_runs.extend(other.ended_runs);
        self.in_doubt.extend(other.in_doubt);
    }

    /// Returns whether nothing ended.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.ended_runs.is_empty() && self.in_doubt.is_empty()
    }
}

/// The report of a commit under way; nothing is reported without a sample ratio.
pub(super) struct Reporter {
    sampled: Option<SampleRatio>,
    report: CommitReport,
}

impl Reporter {
    pub(super) fn new(sampled: Option<SampleRatio>) -> Self {
        Reporter { sampled, report: CommitReport::default() }
    }

    pub(super) fn into_report(self) -> CommitReport {
        self.report
    }

    /// Returns whether the ends of a run are reported, and remembers the run.
    fn reports(&mut self, run: &RunInfo) -> bool {
        let is_reported = self.sampled.is_some_and(|ratio| ratio.includes(run.id));
        if is_reported {
            self.report.runs.entry(run.key).or_insert_with(|| run.into());
        }
        is_reported
    }

    /// Reports the end of an execution, unless it was no attempt.
    pub(super) fn add_finished(
        &mut self,
        finished: &Finished,
        end: &Transition,
        began_at: Option<Millis>,
        ended_at: Millis,
    ) {
        let Finished { run, state, usage, .. } = finished;
        let Some((outcome, failure)) = end.attempt() else { return };
        if self.reports(run) {
            self.report.attempts.push(EndedAttempt {
                run: run.key,
                node: state.place.node,
                path: state.place.path.clone(),
                number: state.attempts.attempt,
                session: state.claim.session,
                began_at: began_at.or_else(|| failure?.claim_time()),
                ended_at,
                end: AttemptEnd::Outcome(outcome, failure.map(|failure| failure.kind)),
                usage: *usage,
            });
        }
    }

    /// Reports an attempt that a sweep has ended.
    pub(super) fn add_cancelled(&mut self, run: &RunInfo, state: &SweepRow, ended_at: Millis) {
        let Some(session) = state.session else { return };
        if self.reports(run) {
            self.report.attempts.push(EndedAttempt {
                run: run.key,
                node: state.node,
                path: state.path.clone(),
                number: state.attempt,
                session,
                began_at: state.began_at,
                ended_at,
                end: AttemptEnd::Cancelled,
                usage: None,
            });
        }
    }

    /// Reports the end of a run.
    pub(super) fn add_run(&mut self, run: &LoadedRun) {
        let LoadedRun { row, info, missed, .. } = run;
        let RunRow { id, status, created_at, ended_at, .. } = row;
        if self.reports(info) {
            self.report.ended_runs.push(EndedRun {
                run: *id,
                status: *status,
                created_at: *created_at,
                ended_at: ended_at.unwrap_or_default(),
                missed: *missed,
            });
        }
    }
}
