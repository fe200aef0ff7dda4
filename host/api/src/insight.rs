//! Views over all states of a run, and over the runs of a graph: timeline, failures, distribution,
//! comparison, statistics.

use axum::extract::State;
use axum::response::Response;
use exosphere_api_types::{
    FailureGroups, GraphStats, GraphStatsQuery, NodeDistribution, RunCompareQuery, RunComparison,
    Timeline, TimelineQuery,
};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::domain::insight::MAX_TIMELINE_BINS;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::domain::run_ref::{BadRunRef, RunRef};
use exosphere_orchestrator::{Baseline, Host, Interval};

use crate::answer::{self, Answer};
use crate::lists::bad_parameter;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::Get;
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query};

/// The number of bins if a caller gives none.
const DEFAULT_BINS: u32 = 60;

/// The word for the run that is compared with if a caller names none.
const LAST_SUCCESS: &str = "last-success";

/// Says how a view of a large run is made.
const SAMPLE_DETAILS: &str = "Of a run with more than 200,000 states, an even sample is read: `sample` says how \
     many states were examined, and of how many.";

/// Returns the routes of views over many rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/timeline", Role::Viewer, QuotaClass::Read, timeline)
            .describe("showTimeline", "Returns how many states of a run ran and waited over time")
            .details(SAMPLE_DETAILS)
            .query::<TimelineQuery>()
            .answers::<Timeline>(200)
            .fails(&[Kind::NotFound])
            .offloaded(),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/failures", Role::Viewer, QuotaClass::Read, failures)
            .describe("listFailures", "Groups the failures of a run by kind and message")
            .details(
                "Messages that differ only in numbers, ids and quoted values are in one group. A key that \
                 may not see payloads gets one group for each kind.",
            )
            .answers::<FailureGroups>(200)
            .fails(&[Kind::NotFound])
            .shows_payloads()
            .offloaded(),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/nodes/{identifier}/distribution",
            Role::Viewer,
            QuotaClass::Read,
            distribution,
        )
        .describe("showDistribution", "Returns how long the states of a node took and waited")
        .details(SAMPLE_DETAILS)
        .answers::<NodeDistribution>(200)
        .fails(&[Kind::NotFound])
        .offloaded(),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/compare", Role::Viewer, QuotaClass::Read, compare)
            .describe("compareRuns", "Compares a run with another one, node by node")
            .details(
                "Each node also has the medians of up to 20 runs of the graph that succeeded before, \
                 unless these have more than 50,000 states together.",
            )
            .query::<RunCompareQuery>()
            .answers::<RunComparison>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .offloaded(),
        route(Get, "/v1/namespaces/{namespace}/graphs/{name}/stats", Role::Viewer, QuotaClass::Read, stats)
            .describe("showGraphStats", "Returns how the runs of a graph went")
            .details("The newest 20,000 runs of the interval are examined; `is_cut` says that it has more.")
            .query::<GraphStatsQuery>()
            .answers::<GraphStats>(200)
            .fails(&[Kind::NotFound])
            .offloaded(),
    ]
}

/// Reads an interval, which must not be empty.
fn interval(from: Option<i64>, to: Option<i64>, bins: Option<u32>) -> Result<Interval, Problem> {
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(bad_parameter("from", format!("this is not before {to}, which is `to`")));
    }
    let bins = bins.unwrap_or(DEFAULT_BINS);
    if !(1..=MAX_TIMELINE_BINS).contains(&bins) {
        let message = format!("this must be a whole number from 1 to {MAX_TIMELINE_BINS}");
        return Err(bad_parameter("bins", message));
    }
    Ok(Interval { from, to, bins })
}

pub(crate) async fn timeline(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(TimelineQuery { from, to, bins, by }): Query<TimelineQuery>,
) -> Result<Response, Problem> {
    let interval = interval(from, to, bins)?;
    let by = by.unwrap_or_default();
    let (timeline, permit) = host.timeline(&namespace, run, by, interval).await?;
    Ok(answer::respond(&timeline, permit))
}

pub(crate) async fn failures(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    let (groups, permit) = host.failures(&namespace, run).await?;
    Ok(answer::respond(&groups, permit))
}

pub(crate) async fn distribution(
    State(host): State<Host>,
    Path((namespace, run, identifier)): Path<(Name, RunId, Name)>,
) -> Result<Answer<NodeDistribution>, Problem> {
    Ok(Answer(host.node_distribution(&namespace, run, &identifier).await?))
}

pub(crate) async fn compare(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(RunCompareQuery { with }): Query<RunCompareQuery>,
) -> Result<Answer<RunComparison>, Problem> {
    let baseline = match with.as_deref() {
        None | Some(LAST_SUCCESS) => Baseline::LastSuccess,
        Some(text) => {
            let reference: RunRef = text.parse().map_err(|error: BadRunRef| {
                Problem::new(Kind::BadQuery, format!("with: {error}, or give {LAST_SUCCESS}"))
            })?;
            Baseline::Run(host.find_run(&namespace, &reference).await?)
        }
    };
    Ok(Answer(host.compare_runs(&namespace, run, baseline).await?))
}

pub(crate) async fn stats(
    State(host): State<Host>,
    Path((namespace, graph)): Path<(Name, Name)>,
    Query(GraphStatsQuery { from, to, bins }): Query<GraphStatsQuery>,
) -> Result<Answer<GraphStats>, Problem> {
    let interval = interval(from, to, bins)?;
    Ok(Answer(host.graph_stats(&namespace, &graph, interval).await?))
}
