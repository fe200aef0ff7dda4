//! `/runs`: start, list, show, inputs, result, pause, cancel, redrive. Not here: the events of live
//! views (`live`).

use std::collections::BTreeMap;

use exosphere_domain::json::Typed;
use exosphere_domain::label::Labels;
use exosphere_domain::state::RunStatus;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::json::{AnyJson, Json};
use crate::known::{Known, or_default};
use crate::pauses::RunPause;
use crate::states::{LogLine, StateSummary};

/// A request to start a run. Each member may be absent or null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartRun {
    /// The idempotency key, at most 256 bytes: a second start with the same key returns the
    /// run of the first, and is refused if its request differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The inputs of the root node, an object. They override those of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub inputs: Option<AnyJson>,
    /// The initial entries of the run's store, an object of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub store: Option<AnyJson>,
    /// The labels of the run, at most 16. A key has 1 to 64 letters, digits, `_`, `-`, `.` or
    /// `/`; a value has at most 256 bytes and no control characters.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The delay before the first state is due, in milliseconds [default: 0].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The deadline of the run, in milliseconds after the start: if the run has not ended by then,
    /// it fails, and its open states are cancelled [default: none].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The deadline of its beginning, in milliseconds after the start: if no state of the run has
    /// begun by then, the run fails [default: none].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_by_ms: Option<u64>,
    /// The number of the graph's revision [default: the current one].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// The query parameters of a start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StartQuery {
    /// The longest wait for the end of the run before the answer, in milliseconds, at most
    /// 30,000 [default: 0].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 30_000)]
    pub wait_ms: Option<u64>,
}

/// The query parameters of a run. With `after`, the request is a long poll.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// The latest version that the caller knows: the host waits for a later one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// The longest wait, in milliseconds, at most 30,000 [default: 30,000].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 30_000)]
    pub wait_ms: Option<u64>,
}

/// A page of the runs of a namespace, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The runs of this page.
    pub runs: Vec<RunSummary>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A run, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// The id of the run, a UUID.
    pub run: String,
    /// The name of the graph.
    pub graph: String,
    /// The number of the graph's revision, from 1.
    pub revision: u64,
    /// The status of the run.
    #[schema(value_type = RunStatus)]
    pub status: Known<RunStatus>,
    /// Set if the run is paused: none of its states starts.
    #[serde(default)]
    pub paused: bool,
    /// The number of the run's latest event. It grows with every change of the run.
    #[serde(default, deserialize_with = "or_default")]
    pub version: i64,
    /// The time at which the run was started, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The time at which its first state was due, which is later than the start of a delayed run;
    /// null for runs of earlier versions.
    #[serde(default)]
    pub due_at: Option<i64>,
    /// The time at which the run ended, in milliseconds since 1970 (UTC); null while it is
    /// running.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// The labels of the run.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The deadline that the run has missed, if that is why it FAILED: `deadline` or `start-by`.
    #[serde(default)]
    pub reason: Option<String>,
    /// The time by which the run must have ended, in milliseconds since 1970 (UTC); null without a
    /// deadline, and once the run has ended in time.
    #[serde(default)]
    pub deadline_at: Option<i64>,
    /// The time by which the run must have begun; null like `deadline_at`.
    #[serde(default)]
    pub start_by_at: Option<i64>,
    /// Counts of the run's states and attempts.
    #[serde(default)]
    pub counts: RunCounts,
}

/// Counts of a run's states by status, and of its retries and requeues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RunCounts {
    /// The number of states so far.
    pub states: u64,
    /// The number of states that have not ended.
    pub open: u64,
    /// The number of states that succeeded.
    pub success: u64,
    /// The number of states that were pruned.
    pub pruned: u64,
    /// The number of states that failed.
    pub errored: u64,
    /// The number of states that were cancelled.
    pub cancelled: u64,
    /// The number of failed attempts that another attempt followed.
    pub retries: u64,
    /// The number of attempts that requeued their state.
    pub requeues: u64,
    /// The CPU time of all attempts, in microseconds. Executions that a cancel stopped do not count.
    pub cpu_us: u64,
    /// The largest memory of an attempt, in bytes.
    pub peak_memory_bytes: u64,
}

/// A run with its store and its first failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunDetails {
    /// The status and the counts of the run.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The entries of the run's store so far.
    #[serde(default)]
    pub store: BTreeMap<String, String>,
    /// The first states that failed, at most 10.
    #[serde(default)]
    pub failures: Vec<StateSummary>,
    /// The pause of the run: its own, or that of its graph or namespace; null if it is not paused.
    #[serde(default)]
    pub pause: Option<RunPause>,
    /// The states of each node, in the order of the graph.
    #[serde(default)]
    pub nodes: Vec<NodeCounts>,
}

/// A snapshot of a run, as its live view shows it: the run without its store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunSnapshot {
    /// The status and the counts of the run.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The first states that failed, at most 10, without the details of their failures.
    #[serde(default)]
    pub failures: Vec<StateSummary>,
    /// The pause of the run: its own, or that of its graph or namespace; null if it is not paused.
    #[serde(default)]
    pub pause: Option<RunPause>,
    /// The states of each node, in the order of the graph.
    #[serde(default)]
    pub nodes: Vec<NodeCounts>,
}

/// The states of a run at one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// The identifier of the node in the graph.
    pub identifier: String,
    /// Unites that wait for their members.
    #[serde(default)]
    pub waiting: u64,
    /// States that are CREATED or QUEUED.
    #[serde(default)]
    pub active: u64,
    /// States that are SUCCESS.
    #[serde(default)]
    pub success: u64,
    /// States that are PRUNED.
    #[serde(default)]
    pub pruned: u64,
    /// States that are ERRORED.
    #[serde(default)]
    pub errored: u64,
    /// States that are CANCELLED.
    #[serde(default)]
    pub cancelled: u64,
    /// Failed attempts that another attempt followed.
    #[serde(default)]
    pub retries: u64,
}

impl NodeCounts {
    /// Returns `true` if no state of the node has been created.
    pub fn is_unused(&self) -> bool {
        let identifier = self.identifier.clone();
        *self == NodeCounts { identifier, ..NodeCounts::default() }
    }
}

/// The answer to a start. The status is 201 if the request created the run, and 200 if an
/// earlier one with the same idempotency key did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunStarted {
    /// The run, with its end if that came within the wait.
    #[serde(flatten)]
    pub details: RunDetails,
    /// Set if an earlier start with the same idempotency key created the run.
    #[serde(default)]
    pub started_before: bool,
}

/// The answer to the deletion of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunDeleted {
    /// The id of the run, which does not exist any more.
    pub run: String,
}

/// The answer to a redrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunRedriven {
    /// The run after the redrive.
    #[serde(flatten)]
    pub details: RunDetails,
    /// The number of failed states that run again.
    #[serde(default)]
    pub retried: u64,
    /// The number of failed states that do not run again, because a unite above them has
    /// continued without them.
    #[serde(default)]
    pub late: u64,
}

/// The inputs, the store, the labels and the key that a run was started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunInputs {
    /// The id of the run, a UUID.
    pub run: String,
    /// The name of the graph.
    pub graph: String,
    /// The number of the graph's revision, from 1.
    pub revision: u64,
    /// The inputs of the start, which override those of the template.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    pub inputs: Json,
    /// The store of the run at its start.
    #[serde(default)]
    pub store: BTreeMap<String, String>,
    /// The labels of the run.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The idempotency key; null if the start had none.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// The time of the start, in milliseconds since 1970 (UTC).
    #[serde(default)]
    pub created_at: i64,
    /// The time at which the first state was due; null for runs of earlier versions.
    #[serde(default)]
    pub due_at: Option<i64>,
    /// The delay before the first state was due, in milliseconds; null for runs of earlier
    /// versions.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// The id of the API key that started the run; null if the host asked for none.
    #[serde(default)]
    pub started_by: Option<String>,
}

/// The query parameters of the result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResultQuery {
    /// The cursor: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of the result of a run: the outputs of its last states, those at nodes that no other
/// follows. While the run is running, these are the results so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunResult {
    /// The id of the run, a UUID.
    pub run: String,
    /// The status of the run.
    #[schema(value_type = RunStatus)]
    pub status: Known<RunStatus>,
    /// The outputs of this page, in the order of the paths of their states.
    #[serde(default)]
    pub outputs: Vec<ResultOutput>,
    /// The cursor of the next page, for `after`; null on the last page. A page may be shorter
    /// than its limit, and even empty.
    #[serde(default)]
    pub next: Option<String>,
}

/// The query parameters of the logs of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only logs of the state at this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only logs of attempts that ended at this time or later, in milliseconds since 1970 (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub since: Option<i64>,
    /// The cursor: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The maximum number of attempts of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of the logs of a run, in the order in which the attempts ended. An attempt that is running
/// is not among them yet, and neither is one that logged nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunLogs {
    /// The attempts with a log.
    #[serde(default)]
    pub attempts: Vec<AttemptLog>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// The log of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptLog {
    /// The path of the state in its run.
    pub path: String,
    /// The identifier of the node in the graph; null if the graph has no such node.
    #[serde(default)]
    pub identifier: Option<String>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The time at which the attempt ended, in milliseconds since 1970 (UTC).
    pub ended_at: i64,
    /// The outcome of the attempt.
    pub outcome: String,
    /// The lines, in the order in which they were written.
    #[serde(default)]
    #[schema(value_type = Vec<LogLine>)]
    pub logs: Json<Vec<LogLine>>,
}

/// An output of one of a run's last states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultOutput {
    /// The path of the state.
    pub path: String,
    /// The index of the output in its state, from 0.
    pub index: u32,
    /// The output.
    #[schema(value_type = serde_json::Value)]
    pub output: Json,
}

impl Typed for LogQuery {}
impl Typed for RunLogs {}
impl Typed for AttemptLog {}
impl Typed for RunInputs {}
impl Typed for RunResult {}
impl Typed for StartRun {}
impl Typed for RunList {}
impl Typed for RunDetails {}
impl Typed for RunSnapshot {}
impl Typed for RunSummary {}
impl Typed for RunStarted {}
impl Typed for RunRedriven {}
impl Typed for RunDeleted {}
impl Typed for StartQuery {}
impl Typed for RunQuery {}
impl Typed for ResultQuery {}
