//! Live views: the snapshots of a run, or of a list of runs, as server-sent events. A reader gets
//! the latest snapshot, and not each step between: a slow one skips snapshots and holds nothing.
//!
//! The path of a snapshot: a source (`source`) reads the view when it may have changed, a topic
//! (`topic`) makes the text once for all readers, and each reader (`reader`) sends it.
//!
//! Not here: the reads themselves ([`RunFollower`](exosphere_orchestrator::RunFollower)).

mod reader;
mod source;
mod topic;

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exosphere_api_types::{LiveListQuery, LiveQuery, RunFilter};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::filter::Filter;
use exosphere_orchestrator::domain::graph::problems::{Object, Problems, whole_number};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::domain::run_ref::RunRef;

use crate::lists::Listing;
use crate::permits::Permits;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::Get;
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query};

use reader::Reader;
use source::Source;
pub(crate) use topic::Topics;

/// The largest number of runs of a live list, and the default.
const MAX_LIVE_RUNS: u32 = 100;
const DEFAULT_LIVE_RUNS: u32 = 50;

/// Seconds after which a refused reader may come again (`Retry-After`).
const RETRY_AFTER_S: u64 = 5;

const DETAILS: &str = "The answer is a stream of server-sent events, which continues until the caller closes it or its \
     key is revoked. The first event comes at once, and then one for each change, at most four \
     times a second: a reader gets the latest state, and not every step. A comment comes every 15 \
     seconds, so that no proxy takes the connection for idle. After a lost connection, a reader \
     sends the id of its last event as `Last-Event-ID`, to any host, and gets what has changed.";

/// Returns the routes of live views.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/namespaces/{namespace}/runs/live", Role::Viewer, QuotaClass::Read, runs)
            .describe("followRuns", "Follows the newest runs of a namespace that meet a filter")
            .details(DETAILS)
            .query::<RunFilter>()
            .query::<LiveListQuery>()
            .resumable()
            .streams()
            .fails(&[Kind::NotFound, Kind::Full]),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/live",
            Role::Viewer,
            QuotaClass::Read,
            run,
        )
        .describe("followRun", "Follows a run")
        .details(DETAILS)
        .query::<LiveQuery>()
        .resumable()
        .streams()
        .fails(&[Kind::NotFound, Kind::Conflict, Kind::Full]),
    ]
}

/// The readers of live views, and what they read.
#[derive(Clone)]
pub(crate) struct Live {
    topics: Topics,
    permits: Permits,
    /// Resolves when the host closes its connections.
    closed: tokio::sync::watch::Receiver<()>,
}

impl Live {
    /// Creates live views without readers. Each reader keeps a connection: half of them may be
    /// readers, and a quarter those of one namespace.
    pub(crate) fn new(max_connections: usize, closed: tokio::sync::watch::Receiver<()>) -> Self {
        let max = max_connections.div_ceil(2);
        Live { topics: Topics::default(), permits: Permits::new(max, max.div_ceil(2)), closed }
    }

    /// Answers with the events of a source.
    async fn stream(
        &self,
        host: Host,
        source: Source,
        (headers, query): (&HeaderMap, LiveQuery),
    ) -> Result<Response, Problem> {
        let permit = self.permits.try_acquire(source.namespace()).ok_or_else(|| self.full())?;
        let snapshots = self.topics.subscribe(&host, source).await?;
        let time = query.for_ms.map(Duration::from_millis);
        let reader = Reader::new(host, snapshots, headers, (time, self.closed.clone()), permit);
        Ok(reader.into_response())
    }

    fn full(&self) -> Problem {
        let message = format!(
            "the host has no place for another reader of live views: it has {} at a time, and {} of \
             one namespace; close one, or try again in {RETRY_AFTER_S} s",
            self.permits.max, self.permits.max_per_namespace
        );
        Problem::new(Kind::Full, message).retry_after(RETRY_AFTER_S)
    }
}

async fn run(
    State(host): State<Host>,
    State(live): State<Live>,
    Path((namespace, run)): Path<(Name, RunRef)>,
    Query(query): Query<LiveQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let run = host.find_run(&namespace, &run).await?;
    live.stream(host, Source::Run { namespace, run }, (&headers, query)).await
}

async fn runs(
    State(host): State<Host>,
    State(live): State<Live>,
    Path(namespace): Path<Name>,
    listing: Listing<LiveRuns>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    listing.refuse_after()?;
    let limit = listing.limit_up_to(DEFAULT_LIVE_RUNS, MAX_LIVE_RUNS)?;
    let LiveRuns { filter, for_ms } = listing.filter;
    let source = Source::Runs { namespace, filter, limit };
    live.stream(host, source, (&headers, LiveQuery { for_ms })).await
}

/// The filter of a live list, and its time.
struct LiveRuns {
    filter: RunFilter,
    for_ms: Option<u64>,
}

impl Filter for LiveRuns {
    const KEYS: &'static [&'static str] =
        &["status", "graph", "label", "created_after", "created_before", "for_ms"];
    const LISTS: &'static [&'static str] = RunFilter::LISTS;
    const NUMBERS: &'static [&'static str] = &["created_after", "created_before", "for_ms"];

    fn read_members(object: &Object<'_>, problems: &mut Problems) -> Self {
        let for_ms = object.read_as("for_ms", problems, |time| whole_number(time, 0, u64::MAX));
        LiveRuns { filter: RunFilter::read_members(object, problems), for_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_list_takes_every_filter_of_runs() {
        for (own, others) in
            [(LiveRuns::KEYS, RunFilter::KEYS), (LiveRuns::NUMBERS, RunFilter::NUMBERS)]
        {
            assert_eq!(own, [others, &["for_ms"]].concat());
        }
    }
}
