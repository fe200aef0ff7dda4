//! Views over all states of a run, and over the runs of a graph: their query parameters. The
//! answers are types of the domain.

use exosphere_domain::insight::TimelineBy;
use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// The query parameters of a timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// The begin of the interval, in milliseconds since 1970 (UTC) [default: the start of the run].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub from: Option<i64>,
    /// The end of the interval [default: the end of the run, or now].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub to: Option<i64>,
    /// The maximum number of bins, from 1 to 400 [default: 60]. A bin has whole milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 400)]
    pub bins: Option<u32>,
    /// One series for each node, or for each host [default: node].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub by: Option<TimelineBy>,
}

/// The query parameters of a comparison of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunCompareQuery {
    /// The other run, or `last-success`: the last run of the same graph that succeeded before
    /// [default: last-success].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
}

/// The query parameters of the statistics of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GraphStatsQuery {
    /// The begin of the interval, in milliseconds since 1970 (UTC) [default: a week before its
    /// end].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub from: Option<i64>,
    /// The end of the interval [default: now].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0)]
    pub to: Option<i64>,
    /// The maximum number of bins, from 1 to 400 [default: 60].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 400)]
    pub bins: Option<u32>,
}

impl Typed for TimelineQuery {}
impl Typed for RunCompareQuery {}
impl Typed for GraphStatsQuery {}
