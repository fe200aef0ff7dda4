//! `/bulk`: operations on every run that meets a filter.

use exosphere_domain::bulk::{BulkAction, BulkStatus};
use exosphere_domain::filter::RunFilter;
use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::json::AnyJson;
use crate::known::{Known, or_default};

/// A request for a bulk operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBulk {
    /// The action on each run.
    pub action: BulkAction,
    /// The filter of the runs, with at least one condition. A status must be one that the action
    /// can change: RUNNING for `cancel`, FAILED for `redrive`, the others but RUNNING for `delete`.
    pub filter: RunFilter,
    /// Why, for people: at most 500 characters, in one line [default: empty].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 500)]
    pub reason: String,
    /// Only counts the runs, and changes none [default: false].
    #[serde(default)]
    pub dry_run: bool,
}

/// The number of runs that a bulk operation begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedRuns {
    /// The number of runs that met the filter, counted up to 10,000.
    pub runs: u64,
    /// Set if there were no more.
    pub exact: bool,
}

/// The runs that a bulk operation would begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkPreview {
    /// The action.
    #[schema(value_type = BulkAction)]
    pub action: Known<BulkAction>,
    /// The filter, as it was given.
    #[schema(value_type = RunFilter)]
    pub filter: AnyJson,
    /// The number of runs.
    pub expected: ExpectedRuns,
}

/// A bulk operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkDetails {
    /// The id of the operation, a UUID.
    pub bulk: String,
    /// The action.
    #[schema(value_type = BulkAction)]
    pub action: Known<BulkAction>,
    /// The filter, as it was given.
    #[schema(value_type = RunFilter)]
    pub filter: AnyJson,
    /// Why; may be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
    /// The caller who asked for it; null if that is not known.
    #[serde(default)]
    pub by: Option<String>,
    /// The status of the operation.
    #[schema(value_type = BulkStatus)]
    pub status: Known<BulkStatus>,
    /// The time at which it began. Runs that were started later, or that ended later and are to be
    /// redriven or deleted, are left alone.
    pub frozen_at: i64,
    /// The time at which it ended; null while it runs.
    pub ended_at: Option<i64>,
    /// The number of runs that met the filter at the beginning.
    pub expected: ExpectedRuns,
    /// The number of runs that were selected so far: the sum of the three below.
    pub selected: u64,
    /// The number of runs that were changed.
    pub done: u64,
    /// The number of runs that were left alone: they did not allow the action any more, or did not
    /// meet the filter when the operation began.
    pub skipped: u64,
    /// The number of runs on which the action failed inside the host, whose log has the reasons.
    pub failed: u64,
}

/// A list of bulk operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkList {
    /// The operations of the page, the newest first.
    pub bulk: Vec<BulkDetails>,
    /// The cursor of the next page; null after the last.
    pub next: Option<String>,
}

impl Typed for StartBulk {}
impl Typed for BulkPreview {}
impl Typed for BulkDetails {}
impl Typed for BulkList {}
