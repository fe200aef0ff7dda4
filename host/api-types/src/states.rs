//! `/runs/{run}/states`: list, show, inputs, outputs.

use exosphere_domain::json::Typed;
use exosphere_domain::limits::Usage;
use exosphere_domain::state::Status;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::json::Json;
use crate::known::Known;

/// A page of the states of a run, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateList {
    /// The states of this page.
    pub states: Vec<StateSummary>,
    /// The cursor of the next page, for `after`; null on the last page. A page may be shorter
    /// than its limit.
    #[serde(default)]
    pub next: Option<String>,
}

/// A state, as a list shows it: without outputs and details, whose sizes it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateSummary {
    /// The run and the path of the state: `RUN/PATH`.
    pub state: String,
    /// The identifier of the node in the graph.
    #[serde(default)]
    pub identifier: Option<String>,
    /// The name of the node in its plugin.
    #[serde(default)]
    pub node_name: Option<String>,
    /// The path of the state, by which requests name it: the identifiers from the root on, each
    /// with the index of the output by which the branch came to it, as `split.count[3]`.
    #[serde(default)]
    pub path: String,
    /// The status of the state.
    #[schema(value_type = Status)]
    pub status: Known<Status>,
    /// The number of the latest attempt, from 1; 0 before the first one.
    #[serde(default)]
    pub attempt: u32,
    /// The number of retries used up.
    #[serde(default)]
    pub retries: u32,
    /// The number of requeues.
    #[serde(default)]
    pub requeues: u32,
    /// The time at which the state was created, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The time from which its next attempt may begin; null unless it is CREATED.
    #[serde(default)]
    pub due_at: Option<i64>,
    /// The time at which the last attempt began; while it is QUEUED, the time at which a host
    /// claimed it. Null before that, and if the host was lost.
    #[serde(default)]
    pub began_at: Option<i64>,
    /// The number of the host of the last attempt (`exosphere host list`); null before the first.
    #[serde(default)]
    pub host: Option<i64>,
    /// The time at which the state ended, in milliseconds since 1970 (UTC); null while it is
    /// open.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// The number of outputs; null unless the state has succeeded.
    #[serde(default)]
    pub output_count: Option<u32>,
    /// The bytes of all outputs of the last attempt; null before the first one has ended.
    #[serde(default)]
    pub output_bytes: Option<u64>,
    /// The bytes of the failure's details, or of the data of a pruned state; null if there are
    /// none.
    #[serde(default)]
    pub details_bytes: Option<u64>,
    /// The failure that ended the state for good; null if there is none.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// A state with its outputs and attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateDetails {
    /// The place, the status and the counters of the state.
    #[serde(flatten)]
    pub summary: StateSummary,
    /// The resources that the last attempt used; null before the first one has ended.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The first outputs of the state, at most 1000; `outputs` below the state has all.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub outputs: Vec<Json>,
    /// The data that a pruned state left for people; null if there is none.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Json>,
    /// The stored attempts, in their order. An attempt that succeeded at first and logged
    /// nothing is not stored.
    #[serde(default)]
    pub attempts: Vec<AttemptDetails>,
}

/// The query parameters of the outputs of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OutputsQuery {
    /// The cursor: `next` of the page before. The page begins at the output with this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of the outputs of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateOutputs {
    /// The run and the path of the state: `RUN/PATH`.
    pub state: String,
    /// The outputs of this page, in order.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub outputs: Vec<Json>,
    /// The cursor of the next page, for `after`; null on the last page. A page may be shorter
    /// than its limit.
    #[serde(default)]
    pub next: Option<String>,
}

/// The inputs of a state, as its node gets them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateInputs {
    /// The run and the path of the state: `RUN/PATH`.
    pub state: String,
    /// The inputs; null if they cannot be rendered.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub inputs: Option<Json>,
    /// The failure to render the inputs; null if there is none.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// A failure of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The kind of the failure, a stable word: `retryable`, `permanent`, `trap`, `exit`,
    /// `timeout`, `limit`, `invalid-output`, `invalid-input`, `store`, `blocked`, `internal`
    /// or `host-lost`.
    pub kind: String,
    /// The message, for people.
    #[serde(default)]
    pub message: String,
    /// The details that the node gave, in any shape. Absent if it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub details: Option<Json>,
}

/// One attempt of a state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptDetails {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The time at which the attempt began, in milliseconds since 1970 (UTC); null if its host was
    /// lost.
    #[serde(default)]
    pub began_at: Option<i64>,
    /// The number of the host that executed it; null if it is not known.
    #[serde(default)]
    pub host: Option<i64>,
    /// The time at which the attempt ended, in milliseconds since 1970 (UTC).
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// The outcome: `SUCCESS`, `PRUNED`, `REQUEUED` or `ERRORED`.
    #[serde(default)]
    pub outcome: Option<String>,
    /// The resources that the attempt used; null if they are not known.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The failure of the attempt; null if there is none.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// The log of the attempt, in the order in which it was written.
    #[serde(default)]
    #[schema(value_type = Vec<LogLine>)]
    pub logs: Json<Vec<LogLine>>,
}

/// A line of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// The severity: `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The time at which the line was written, in milliseconds since 1970 (UTC).
    #[serde(default)]
    pub at: i64,
    /// The text. Its only control characters are tabs.
    pub message: String,
}

impl Typed for OutputsQuery {}
impl Typed for StateList {}
impl Typed for StateDetails {}
impl Typed for StateOutputs {}
impl Typed for StateInputs {}

#[cfg(test)]
mod tests {
    use exosphere_domain::failure::FailureKind;

    #[test]
    fn documented_failure_kinds_are_complete() {
        let source = include_str!("states.rs");
        let documented = source.split_once("/// The kind of the failure").unwrap().1;
        let documented = documented.split_once("pub kind").unwrap().0;
        for kind in FailureKind::ALL {
            assert!(documented.contains(&format!("`{}`", kind.as_str())), "{kind:?}");
        }
    }
}
