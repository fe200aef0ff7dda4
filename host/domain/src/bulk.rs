//! Bulk operations: one action on every run that meets a filter, at the time of the request.
//!
//! Not here: the filter itself (`filter`), and the task that carries an operation out (the
//! orchestrator).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change_reason::check_reason;
use crate::filter::{Filter, RunFilter};
use crate::graph::problems::{Object, Problems, boolean, element, nearest, quoted, string};
use crate::ids::{BulkId, Millis};
use crate::run_ref::RunRef;
use crate::state::RunStatus;

/// The action of a bulk operation, on each of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BulkAction {
    /// Cancels runs that have not ended.
    Cancel,
    /// Redrives failed runs.
    Redrive,
    /// Deletes ended runs.
    Delete,
}

impl BulkAction {
    /// Every action.
    pub const ALL: [BulkAction; 3] = [BulkAction::Cancel, BulkAction::Redrive, BulkAction::Delete];

    /// Returns the name of the action in the API, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            BulkAction::Cancel => "cancel",
            BulkAction::Redrive => "redrive",
            BulkAction::Delete => "delete",
        }
    }

    /// Parses the name of an action.
    pub fn parse(text: &str) -> Option<Self> {
        BulkAction::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// Returns the statuses of the runs that the action can change.
    pub fn statuses(self) -> &'static [RunStatus] {
        match self {
            BulkAction::Cancel => &[RunStatus::Running],
            BulkAction::Redrive => &[RunStatus::Failed],
            BulkAction::Delete => &[RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled],
        }
    }

    /// Returns whether the action is for runs that had ended before the operation began.
    pub fn needs_ended(self) -> bool {
        self != BulkAction::Cancel
    }
}

impl fmt::Display for BulkAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a bulk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BulkStatus {
    /// Runs are left.
    Running,
    /// No run is left, and the action failed on none.
    Success,
    /// No run is left, and the action failed on some; or the operation cannot continue.
    Failed,
    /// A user cancelled the operation; what it had done stays.
    Cancelled,
}

impl BulkStatus {
    /// Every status.
    pub const ALL: [BulkStatus; 4] =
        [BulkStatus::Running, BulkStatus::Success, BulkStatus::Failed, BulkStatus::Cancelled];

    /// Returns the name of the status in the API, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            BulkStatus::Running => "RUNNING",
            BulkStatus::Success => "SUCCESS",
            BulkStatus::Failed => "FAILED",
            BulkStatus::Cancelled => "CANCELLED",
        }
    }

    /// Parses the name of a status.
    pub fn parse(text: &str) -> Option<Self> {
        BulkStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for BulkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The effect of a bulk operation on one of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BulkOutcome {
    /// The action was carried out.
    Done,
    /// The run does not allow the action, or was not as the filter says when the operation began.
    Skipped,
    /// The action failed inside the host.
    Failed,
}

impl BulkOutcome {
    /// Every outcome.
    pub const ALL: [BulkOutcome; 3] =
        [BulkOutcome::Done, BulkOutcome::Skipped, BulkOutcome::Failed];

    /// Returns the name of the outcome in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            BulkOutcome::Done => "done",
            BulkOutcome::Skipped => "skipped",
            BulkOutcome::Failed => "failed",
        }
    }

    /// Parses the name of an outcome.
    pub fn parse(text: &str) -> Option<Self> {
        BulkOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// A request for a bulk operation. Its filter has a condition, and selects only runs that the
/// action can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkRequest {
    /// The action.
    pub action: BulkAction,
    /// The filter, as the caller gave it.
    pub filter: RunFilter,
    /// The reason, for people; may be empty.
    pub reason: String,
    /// Set if the request asks for the number of runs only.
    pub is_dry_run: bool,
}

impl BulkRequest {
    /// The members of a request.
    pub const KEYS: [&str; 4] = ["action", "filter", "reason", "dry_run"];

    /// Reads a request, and records each problem with its path.
    pub fn read(value: &Value, problems: &mut Problems) -> Option<Self> {
        let object = Object::read(value, "$", &Self::KEYS, problems)?;
        let action = object.require("action", problems, read_action);
        let given = object.require("filter", problems, Ok);
        let reason = object.read_as("reason", problems, read_reason).unwrap_or_default();
        let is_dry_run = object.read_as("dry_run", problems, boolean).unwrap_or_default();
        let (path, before) = (object.at("filter"), problems.len());
        let filter = RunFilter::read(given?, &path, problems)?;
        if problems.len() == before {
            check_filter(action, &filter, &path, problems);
        }
        Some(BulkRequest { action: action?, filter, reason: reason.to_owned(), is_dry_run })
    }
}

/// Records what is wrong with a filter that is well formed: it has no condition, or selects runs
/// that the action cannot change.
fn check_filter(
    action: Option<BulkAction>,
    filter: &RunFilter,
    path: &str,
    problems: &mut Problems,
) {
    if filter.is_empty() {
        let message = "the filter is empty, and would select every run; give at least one \
                       condition: status, graph, label, created_after or created_before";
        problems.add(path, message);
    }
    let Some(action) = action else { return };
    let allowed = action.statuses();
    let names: Vec<_> = allowed.iter().map(|status| status.as_str()).collect();
    for (index, status) in filter.statuses.iter().enumerate() {
        if !allowed.contains(status) {
            problems.add(
                element(&format!("{path}.status"), index),
                format!("{action} is for runs that are {}, not {status}", names.join(" or ")),
            );
        }
    }
    if let (Some(after), Some(before)) = (filter.created_after, filter.created_before)
        && after >= before
    {
        let message = "this is not later than created_after, so that no run meets both";
        problems.add(format!("{path}.created_before"), message);
    }
}

/// Returns the filter by which an operation finds its runs: with the statuses that the action can
/// change, and without runs that were started after the freeze.
pub fn frozen(action: BulkAction, filter: &RunFilter, frozen_at: Millis) -> RunFilter {
    let is_wanted =
        |status: &&RunStatus| filter.statuses.is_empty() || filter.statuses.contains(status);
    let statuses = action.statuses().iter().filter(is_wanted).copied().collect();
    let created_before = filter.created_before.map_or(frozen_at, |before| before.min(frozen_at));
    RunFilter { statuses, created_before: Some(created_before), ..filter.clone() }
}

fn read_action(value: &Value) -> Result<BulkAction, String> {
    let word = string(value)?;
    BulkAction::parse(word).ok_or_else(|| {
        let names = BulkAction::ALL.map(BulkAction::as_str);
        let hint = match nearest(word, names) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("use {}", names.join(", ")),
        };
        format!("unknown action {}; {hint}", quoted(word))
    })
}

fn read_reason(value: &Value) -> Result<&str, String> {
    let reason = string(value)?;
    check_reason(reason).map(|()| reason)
}

/// A reference to one bulk operation of a namespace, as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BulkRef {
    /// The whole id.
    Id(BulkId),
    /// The first hexadecimal digits of an id, in lower case and without dashes.
    Prefix(String),
    /// The operation that began last.
    Latest,
}

/// A text that names no bulk operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a valid bulk operation: give its id, the first digits of it (at least 4) or latest; \
     list them with `exosphere bulk list`"
)]
pub struct BadBulkRef;

impl FromStr for BulkRef {
    type Err = BadBulkRef;

    /// Ids of operations are written as those of runs.
    fn from_str(text: &str) -> Result<Self, BadBulkRef> {
        Ok(match text.parse::<RunRef>().map_err(|_| BadBulkRef)? {
            RunRef::Id(id) => BulkRef::Id(BulkId(id.0)),
            RunRef::Prefix(prefix) => BulkRef::Prefix(prefix.to_string()),
            RunRef::Latest => BulkRef::Latest,
        })
    }
}

impl TryFrom<String> for BulkRef {
    type Error = BadBulkRef;

    fn try_from(text: String) -> Result<Self, BadBulkRef> {
        text.parse()
    }
}

impl From<BulkRef> for String {
    fn from(reference: BulkRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for BulkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BulkRef::Id(id) => id.fmt(f),
            BulkRef::Prefix(prefix) => f.write_str(prefix),
            BulkRef::Latest => RunRef::Latest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::change_reason::MAX_REASON_CHARS;

    fn read(value: &Value) -> Result<BulkRequest, Vec<(String, String)>> {
        let mut problems = Problems::default();
        let request = BulkRequest::read(value, &mut problems);
        let list = |problems: Vec<crate::graph::Problem>| {
            problems.into_iter().map(|it| (it.path, it.message)).collect()
        };
        problems.or(request).map_err(list)
    }

    fn paths(value: &Value) -> Vec<String> {
        read(value).unwrap_err().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_request_is_read_as_written() {
        let request = read(&json!({
            "action": "redrive", "filter": {"graph": "words"}, "reason": "fixed", "dry_run": true,
        }));
        let request = request.unwrap();
        assert_eq!(request.action, BulkAction::Redrive);
        assert_eq!((request.reason.as_str(), request.is_dry_run), ("fixed", true));
        let plain = read(&json!({"action": "cancel", "filter": {"status": ["RUNNING"]}})).unwrap();
        assert_eq!((plain.reason.as_str(), plain.is_dry_run), ("", false));
    }

    #[test]
    fn a_filter_without_conditions_is_refused() {
        for filter in [json!({}), json!({"status": [], "label": []}), json!({"graph": null})] {
            let problems = read(&json!({"action": "delete", "filter": filter})).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].0, "$.filter");
            assert!(problems[0].1.contains("is empty"), "{problems:?}");
        }
        assert_eq!(paths(&json!({"action": "delete"})), ["$"]);
    }

    #[test]
    fn statuses_beyond_the_action_are_refused() {
        let of = |action: &str, status: &str| json!({"action": action, "filter": {"status": ["FAILED", status]}});
        assert!(read(&of("redrive", "FAILED")).is_ok());
        assert!(read(&of("delete", "CANCELLED")).is_ok());
        assert_eq!(paths(&of("redrive", "RUNNING")), ["$.filter.status[1]"]);
        assert_eq!(paths(&of("delete", "RUNNING")), ["$.filter.status[1]"]);
        assert_eq!(paths(&of("cancel", "RUNNING")), ["$.filter.status[0]"]);
    }

    #[test]
    fn every_problem_of_a_request_is_reported() {
        let given = json!({
            "action": "redrve", "filter": {"status": ["FAILD"], "colour": 1},
            "reason": "a\nb", "dry_run": 1, "more": 2,
        });
        let expected = [
            "$.more",
            "$.action",
            "$.reason",
            "$.dry_run",
            "$.filter.colour",
            "$.filter.status[0]",
        ];
        assert_eq!(paths(&given), expected);
        let (_, message) = read(&given).unwrap_err().remove(1);
        assert!(message.contains("did you mean \"redrive\"?"), "{message}");
        let empty_range = json!({"created_after": 5, "created_before": 5});
        let given = json!({"action": "cancel", "filter": empty_range});
        assert_eq!(paths(&given), ["$.filter.created_before"]);
        let long = "x".repeat(MAX_REASON_CHARS + 1);
        let given = json!({"action": "cancel", "filter": {"graph": "g"}, "reason": long});
        assert_eq!(paths(&given), ["$.reason"]);
        assert_eq!(paths(&json!([])), ["$"]);
    }

    #[test]
    fn a_frozen_filter_excludes_later_runs() {
        let filter = RunFilter { created_before: Some(9), ..RunFilter::default() };
        let frozen_at = |at| frozen(BulkAction::Delete, &filter, at);
        assert_eq!(frozen_at(5).created_before, Some(5));
        assert_eq!(frozen_at(50).created_before, Some(9));
        assert_eq!(frozen_at(5).statuses, BulkAction::Delete.statuses());
        let failed = RunFilter { statuses: vec![RunStatus::Failed], ..RunFilter::default() };
        assert_eq!(frozen(BulkAction::Delete, &failed, 5).statuses, [RunStatus::Failed]);
    }

    #[test]
    fn names_are_read_as_written() {
        for action in BulkAction::ALL {
            assert_eq!(BulkAction::parse(action.as_str()), Some(action));
            assert_eq!(serde_json::to_value(action).unwrap(), json!(action.as_str()));
        }
        for status in BulkStatus::ALL {
            assert_eq!(BulkStatus::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), json!(status.as_str()));
        }
        for outcome in BulkOutcome::ALL {
            assert_eq!(BulkOutcome::parse(outcome.as_str()), Some(outcome));
        }
        const ID: &str = "0195b7f0-0000-7000-8000-00000000000a";
        for text in [ID, "0195b7f0", "latest"] {
            assert_eq!(text.parse::<BulkRef>().unwrap().to_string(), text);
        }
        assert_eq!("019".parse::<BulkRef>(), Err(BadBulkRef));
    }
}
