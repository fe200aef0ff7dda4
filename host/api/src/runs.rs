//! `/runs`: start, list, show, inputs, result, pause, cancel, redrive, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exosphere_api_types::{
    AnyJson, LogQuery, ResultQuery, RunDeleted, RunDetails, RunFilter, RunInputs, RunList, RunLogs,
    RunQuery, RunRedriven, RunResult, RunStarted, RunWhy, StartQuery, StartRun,
};
use exosphere_orchestrator::domain::graph::problems::{Object, Problems, string, whole_number};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::domain::label::Labels;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::domain::run_ref::RunRef;
use exosphere_orchestrator::{
    BadLogCursor, BadOutputCursor, Error, Host, LogRequest, OutputCursor, RunCursor,
    RunPageRequest, StartRequest,
};
use serde_json::{Map, Value};

use crate::answer::{self, Answer};
use crate::lists::{LIST_DETAILS, Listing, full_page_size};
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Delete, Get, Post};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, idempotency, views};

/// Returns the routes of runs.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Post, "/v1/namespaces/{namespace}/graphs/{name}/runs", Role::Operator, QuotaClass::Start, start)
            .describe("startRun", "Starts a run of a graph")
            .details("The status is 200 if an earlier start with the same idempotency key has started the run.")
            .query::<StartQuery>()
            .takes::<StartRun>()
            .answers::<RunStarted>(200)
            .answers::<RunStarted>(201)
            .idempotent_by_key()
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads()
            .offloaded_if_long(),
        route(Get, "/v1/namespaces/{namespace}/runs", Role::Viewer, QuotaClass::Read, list)
            .describe("listRuns", "Lists the runs of a namespace, the newest first")
            .details(LIST_DETAILS)
            .lists::<RunFilter>()
            .answers::<RunList>(200)
            .fails(&[Kind::NotFound]),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}", Role::Viewer, QuotaClass::Read, show)
            .describe("showRun", "Returns a run")
            .details(
                "The run is its id, the first digits of it (at least 4), or `latest`. With `after`, the \
                 host waits for a version after it.",
            )
            .query::<RunQuery>()
            .answers::<RunDetails>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads(),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/inputs", Role::Viewer, QuotaClass::Read, inputs)
            .describe("showRunInputs", "Returns what a run was started with")
            .answers::<RunInputs>(200)
            .fails(&[Kind::NotFound])
            .shows_payloads()
            .offloaded(),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/result", Role::Viewer, QuotaClass::Read, result)
            .describe("showRunResult", "Returns the outputs of a run's last states")
            .details("The last states are those at nodes that no other node follows.")
            .query::<ResultQuery>()
            .answers::<RunResult>(200)
            .fails(&[Kind::NotFound])
            .shows_payloads()
            .offloaded(),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/why", Role::Viewer, QuotaClass::Read, why)
            .describe("whyRun", "Counts the reasons why the open states of a run wait")
            .details("The run is its id, the first digits of it (at least 4), or `latest`.")
            .answers::<RunWhy>(200)
            .fails(&[Kind::NotFound, Kind::Conflict]),
        route(Get, "/v1/namespaces/{namespace}/runs/{run}/logs", Role::Viewer, QuotaClass::Read, logs)
            .describe("listRunLogs", "Lists the logs of a run, in the order in which its attempts ended")
            .query::<LogQuery>()
            .answers::<RunLogs>(200)
            .fails(&[Kind::NotFound])
            .shows_payloads()
            .offloaded(),
        route(Post, "/v1/namespaces/{namespace}/runs/{run}/cancel", Role::Operator, QuotaClass::Write, cancel)
            .describe("cancelRun", "Cancels a run")
            .answers::<RunDetails>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads(),
        route(Post, "/v1/namespaces/{namespace}/runs/{run}/pause", Role::Operator, QuotaClass::Write, pause)
            .describe("pauseRun", "Pauses a run: none of its states starts")
            .answers::<RunDetails>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads(),
        route(Post, "/v1/namespaces/{namespace}/runs/{run}/resume", Role::Operator, QuotaClass::Write, resume)
            .describe("resumeRun", "Resumes a paused run")
            .answers::<RunDetails>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads(),
        route(Post, "/v1/namespaces/{namespace}/runs/{run}/redrive", Role::Operator, QuotaClass::Write, redrive)
            .describe("redriveRun", "Runs the failed states of a run again")
            .answers::<RunRedriven>(200)
            .fails(&[Kind::NotFound, Kind::Conflict])
            .shows_payloads(),
        route(Delete, "/v1/namespaces/{namespace}/runs/{run}", Role::Operator, QuotaClass::Write, delete)
            .describe("deleteRun", "Deletes a run that has ended, with everything that belongs to it")
            .answers::<RunDeleted>(200)
            .fails(&[Kind::NotFound, Kind::Conflict]),
    ]
}

/// The longest wait of a long poll, in milliseconds.
const MAX_WAIT_MS: u64 = 30_000;

/// Reads a start request and refuses it with every mistake and its path. Inputs and store
/// are taken as they are: the host validates them with the graph.
fn read_start(mut body: Map<String, Value>) -> Result<StartRun, Error> {
    const KEYS: [&str; 8] = [
        "inputs",
        "store",
        "idempotency_key",
        "labels",
        "delay_ms",
        "revision",
        "deadline_ms",
        "start_by_ms",
    ];
    let mut problems = Problems::default();
    let mut take = |key: &str| body.remove(key).filter(|value| !value.is_null()).map(AnyJson);
    let (inputs, store) = (take("inputs"), take("store"));
    let body = Value::Object(body);
    let object = Object::read(&body, "$", &KEYS, &mut problems);
    let idempotency_key = object.as_ref().and_then(|object| {
        let key = object.read_as("idempotency_key", &mut problems, string);
        key.map(str::to_owned)
    });
    let mut number = |key: &str, min| {
        let object = object.as_ref()?;
        object.read_as(key, &mut problems, |value| whole_number(value, min, u64::MAX))
    };
    let (delay_ms, revision) = (number("delay_ms", 0), number("revision", 1));
    let (deadline_ms, start_by_ms) = (number("deadline_ms", 0), number("start_by_ms", 0));
    let labels = object.as_ref().and_then(|object| {
        let labels = object.get("labels")?;
        Some(Labels::read(labels, &object.at("labels"), &mut problems))
    });
    let labels = labels.unwrap_or_default();
    let start = StartRun {
        idempotency_key,
        inputs,
        store,
        labels,
        delay_ms,
        revision,
        deadline_ms,
        start_by_ms,
    };
    problems.or(Some(start)).map_err(|problems| {
        let subject = "the start request".to_owned();
        Error::Invalid { subject, problems }
    })
}

/// Returns the wait of a request that asks for `ms` milliseconds.
fn bounded_wait(ms: u64) -> Duration {
    Duration::from_millis(ms.min(MAX_WAIT_MS))
}

pub(crate) async fn start(
    State(host): State<Host>,
    Path((namespace, graph)): Path<(Name, Name)>,
    Query(StartQuery { wait_ms }): Query<StartQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Response), Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::MAX_START_BYTES).await?;
    let StartRun {
        idempotency_key,
        inputs,
        store,
        labels,
        delay_ms,
        revision,
        deadline_ms,
        start_by_ms,
    } = read_start(read.value)?;
    let idempotency_key = idempotency::key(&headers, idempotency_key)?;
    let request = StartRequest {
        inputs: inputs.map(|AnyJson(inputs)| Arc::new(inputs)),
        store: store.map(|AnyJson(store)| store),
        idempotency_key,
        labels,
        delay_ms,
        revision,
        deadline_ms,
        start_by_ms,
        wait: bounded_wait(wait_ms.unwrap_or(0)),
        turn: read.turn,
    };
    let started = host.start_run(&namespace, &graph, request).await?;
    let status = if started.new { StatusCode::CREATED } else { StatusCode::OK };
    let (details, permit) = views::run_details(started.run);
    let answer = RunStarted { details, started_before: !started.new };
    Ok((status, answer::respond(&answer, permit)))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    listing: Listing<RunFilter>,
) -> Result<Answer<RunList>, Problem> {
    let after = listing.after(str::parse::<RunCursor>)?;
    let page = RunPageRequest { after, limit: listing.limit() };
    let page = host.runs(&namespace, &listing.filter, page).await?;
    let runs = page.items.into_iter().map(|listed| views::run_summary(listed.run, listed.labels));
    Ok(Answer(RunList { runs: runs.collect(), next: page.next }))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunRef)>,
    Query(RunQuery { after, wait_ms }): Query<RunQuery>,
) -> Result<Response, Problem> {
    let run = host.find_run(&namespace, &run).await?;
    let found = match after {
        None => host.run(&namespace, run).await?,
        Some(after) => {
            let wait = bounded_wait(wait_ms.unwrap_or(MAX_WAIT_MS));
            host.watch_run(&namespace, run, after, wait).await?
        }
    };
    Ok(details(found))
}

pub(crate) async fn inputs(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    let (inputs, permit) = views::run_inputs(host.run_inputs(&namespace, run).await?);
    Ok(answer::respond(&inputs, permit))
}

pub(crate) async fn result(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(ResultQuery { after, limit }): Query<ResultQuery>,
) -> Result<Response, Problem> {
    let after = after.map(|cursor| cursor.parse()).transpose();
    let after: OutputCursor = after
        .map_err(|error: BadOutputCursor| Problem::new(Kind::BadQuery, format!("after: {error}")))?
        .unwrap_or_default();
    let page = host.run_result(&namespace, run, after, full_page_size(limit)).await?;
    let (result, permit) = views::run_result(page);
    Ok(answer::respond(&result, permit))
}

pub(crate) async fn why(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunRef)>,
) -> Result<Answer<RunWhy>, Problem> {
    let run = host.find_run(&namespace, &run).await?;
    Ok(Answer(host.why_run(&namespace, run).await?))
}

pub(crate) async fn logs(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(LogQuery { state, since, after, limit }): Query<LogQuery>,
) -> Result<Response, Problem> {
    let after = after.map(|cursor| cursor.parse()).transpose();
    let after = after
        .map_err(|error: BadLogCursor| Problem::new(Kind::BadQuery, format!("after: {error}")))?;
    let request = LogRequest { state, since, after, limit: full_page_size(limit) };
    let (logs, permit) = views::run_logs(host.run_logs(&namespace, run, request).await?);
    Ok(answer::respond(&logs, permit))
}

pub(crate) async fn cancel(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(details(host.cancel_run(&namespace, run).await?))
}

pub(crate) async fn pause(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(details(host.pause_run(&namespace, run).await?))
}

pub(crate) async fn resume(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(details(host.resume_run(&namespace, run).await?))
}

pub(crate) async fn redrive(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    let redriven = host.redrive_run(&namespace, run).await?;
    let (details, permit) = views::run_details(redriven.run);
    let (retried, late) = (redriven.retried as u64, redriven.late as u64);
    Ok(answer::respond(&RunRedriven { details, retried, late }, permit))
}

pub(crate) async fn delete(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Answer<RunDeleted>, Problem> {
    host.delete_run(&namespace, run).await?;
    Ok(Answer(RunDeleted { run: run.to_string() }))
}

/// Returns a run as a response, which holds its memory permit until it has been sent.
fn details(details: exosphere_orchestrator::RunDetails) -> Response {
    let (run, permit) = views::run_details(details);
    answer::respond(&run, permit)
}
