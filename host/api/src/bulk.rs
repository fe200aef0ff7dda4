//! `/bulk`: begin, count, list, show and cancel bulk operations.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exosphere_api_types::{
    AnyJson, BulkDetails, BulkList, BulkPreview, ExpectedRuns, PageQuery, StartBulk,
};
use exosphere_orchestrator::domain::bulk::{BulkRef, BulkRequest};
use exosphere_orchestrator::domain::filter::RunFilter;
use exosphere_orchestrator::domain::graph::problems::Problems;
use exosphere_orchestrator::domain::ids::{BulkId, Name};
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{BulkView, Error, Host, RunCount};
use serde_json::Value;

use crate::answer::Answer;
use crate::lists::page_size;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Get, Post};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, idempotency};

/// Returns the routes of bulk operations.
pub(crate) fn routes() -> Vec<Route> {
    const BULK: &str = "/v1/namespaces/{namespace}/bulk";
    const REFERENCE: &str =
        "The operation is its id, the first digits of it (at least 4), or `latest`.";
    vec![
        route(Post, BULK, Role::Operator, QuotaClass::Write, start)
            .describe("startBulk", "Cancels, redrives or deletes every run that meets a filter")
            .details(
                "The filter holds for the time of the request: later runs are left alone. The \
                 operation continues after the answer, in the background and after the end of its \
                 host, and changes each run once. With `dry_run`, the answer has the number of runs \
                 and the status 200, and nothing is changed.",
            )
            .takes::<StartBulk>()
            .answers::<BulkPreview>(200)
            .answers::<BulkDetails>(202)
            .with_location()
            .idempotent_by_key()
            .fails(&[Kind::NotFound, Kind::Conflict]),
        route(Get, BULK, Role::Viewer, QuotaClass::Read, list)
            .describe("listBulk", "Lists the bulk operations of a namespace, the newest first")
            .details("An operation is listed for 30 days after its end.")
            .query::<PageQuery>()
            .answers::<BulkList>(200)
            .fails(&[Kind::NotFound]),
        route(
            Get,
            "/v1/namespaces/{namespace}/bulk/{bulk}",
            Role::Viewer,
            QuotaClass::Read,
            show,
        )
        .describe("showBulk", "Returns a bulk operation with its progress")
        .details(REFERENCE)
        .answers::<BulkDetails>(200)
        .fails(&[Kind::NotFound, Kind::Conflict]),
        route(
            Post,
            "/v1/namespaces/{namespace}/bulk/{bulk}/cancel",
            Role::Operator,
            QuotaClass::Write,
            cancel,
        )
        .describe("cancelBulk", "Stops a bulk operation: it changes no further run")
        .details(
            "What it has done stays. An operation that is over stays as it is, and is the answer.",
        )
        .answers::<BulkDetails>(200)
        .fails(&[Kind::NotFound, Kind::Conflict]),
    ]
}

/// Reads a request, and refuses it with every problem and its path.
fn read_request(body: &Value) -> Result<BulkRequest, Error> {
    let mut problems = Problems::default();
    let request = BulkRequest::read(body, &mut problems);
    problems.or(request).map_err(|problems| {
        let subject = "the bulk operation".to_owned();
        Error::Invalid { subject, problems }
    })
}

pub(crate) async fn start(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES).await?;
    let key = idempotency::key(&headers, None)?;
    let request = read_request(&Value::Object(read.value))?;
    if request.is_dry_run {
        let expected = host.count_bulk(&namespace, &request).await?;
        return Ok(Answer(preview(&request, expected)).into_response());
    }
    let begun = host.begin_bulk(&namespace, request, key).await?;
    let location = format!("/v1/namespaces/{namespace}/bulk/{}", begun.id);
    let answer = Answer(details(begun));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], answer).into_response())
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(PageQuery { after, limit }): Query<PageQuery>,
) -> Result<Answer<BulkList>, Problem> {
    let after = after.map(|text| text.parse()).transpose().map_err(|_| {
        let message = "after: this is not a cursor of a list of bulk operations; give `next` of \
                       the page before";
        Problem::new(Kind::BadQuery, message)
    })?;
    let page = host.bulks(&namespace, after.map(BulkId), page_size(limit)).await?;
    let bulk = page.items.into_iter().map(details).collect();
    Ok(Answer(BulkList { bulk, next: page.next }))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, bulk)): Path<(Name, BulkRef)>,
) -> Result<Answer<BulkDetails>, Problem> {
    Ok(Answer(details(host.find_bulk(&namespace, &bulk).await?)))
}

pub(crate) async fn cancel(
    State(host): State<Host>,
    Path((namespace, bulk)): Path<(Name, BulkRef)>,
) -> Result<Answer<BulkDetails>, Problem> {
    Ok(Answer(details(host.cancel_bulk(&namespace, &bulk).await?)))
}

fn preview(request: &BulkRequest, expected: RunCount) -> BulkPreview {
    let filter = filter_json(&request.filter);
    BulkPreview { action: request.action.into(), filter, expected: expected_runs(expected) }
}

fn details(bulk: BulkView) -> BulkDetails {
    BulkDetails {
        bulk: bulk.id.to_string(),
        action: bulk.action.into(),
        filter: filter_json(&bulk.filter),
        reason: bulk.reason,
        by: bulk.created_by,
        status: bulk.status.into(),
        frozen_at: bulk.frozen_at,
        ended_at: bulk.ended_at,
        expected: expected_runs(bulk.expected),
        selected: bulk.done.saturating_add(bulk.skipped).saturating_add(bulk.failed),
        done: bulk.done,
        skipped: bulk.skipped,
        failed: bulk.failed,
    }
}

fn filter_json(filter: &RunFilter) -> AnyJson {
    AnyJson(serde_json::to_value(filter).unwrap_or_default())
}

fn expected_runs(count: RunCount) -> ExpectedRuns {
    ExpectedRuns { runs: count.runs, exact: count.is_exact }
}
