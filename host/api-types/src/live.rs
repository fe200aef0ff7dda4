//! Live views: the events of a run and of a list of runs.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::runs::RunSummary;

/// The query parameters of a live view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LiveQuery {
    /// The time after which the host ends the stream, in milliseconds; with 0, after the first
    /// event [default: never].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// The query parameters of a live list, besides its filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LiveListQuery {
    /// The maximum number of runs of the list, from 1 to 100 [default: 50].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// The time after which the host ends the stream, in milliseconds; with 0, after the first
    /// event [default: never].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// An event of a list of runs: the ids of its runs in their order, and those runs that have changed
/// since the event before. The first event has all of them, and so has one that follows an event
/// which a slow reader missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunListChange {
    /// The ids of the runs of the list, the newest first. A run that is not among them is no longer
    /// in the list.
    pub order: Vec<String>,
    /// The runs that are new in the list or have changed.
    #[serde(default)]
    pub runs: Vec<RunSummary>,
    /// Set if further runs meet the filter.
    #[serde(default)]
    pub more: bool,
}

impl Typed for LiveQuery {}
impl Typed for LiveListQuery {}
impl Typed for RunListChange {}
