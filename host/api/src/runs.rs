//! `/runs`: start, list, show, pause, cancel, redrive.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exosphere_orchestrator::domain::graph::problems::{
    Object, Problems, string, whole as whole_number,
};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::domain::state::RunStatus;
use exosphere_orchestrator::{Error, Host, RunDetails, RunFilter, RunView, StartRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::{Path, Query, answer, body, states};

/// The longest wait of a long poll, in milliseconds.
const MAX_WAIT_MS: u64 = 30_000;

/// The default and the largest number of items per page.
pub(crate) const PAGE: (u32, u32) = (50, 1000);

/// Returns the number of items of a page.
pub(crate) fn page(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE.0).clamp(1, PAGE.1)
}

/// The parameters of a start.
struct Start {
    inputs: Option<Value>,
    store: Option<Value>,
    idempotency_key: Option<String>,
    delay_ms: Option<u64>,
}

impl Start {
    /// Splits a body into its members, without changing their values.
    fn read(mut body: Map<String, Value>) -> Result<Self, Error> {
        const KEYS: [&str; 4] = ["inputs", "store", "idempotency_key", "delay_ms"];
        let mut problems = Problems::default();
        let mut given = |key: &str| body.remove(key).filter(|value| !value.is_null());
        let (inputs, store) = (given("inputs"), given("store"));
        let body = Value::Object(body);
        let object = Object::read(&body, "$", &KEYS, &mut problems);
        let key = object.as_ref().and_then(|object| {
            let key = object.read_as("idempotency_key", &mut problems, string);
            key.map(str::to_owned)
        });
        let delay_ms = object.as_ref().and_then(|object| {
            object.read_as("delay_ms", &mut problems, |value| whole_number(value, 0, u64::MAX))
        });
        let start = Start { inputs, store, idempotency_key: key, delay_ms };
        problems.or(Some(start)).map_err(|problems| {
            let what = "the start request".to_owned();
            Error::Invalid { what, problems }
        })
    }
}

/// The query parameters of a start: the wait for the end of the run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    wait_ms: Option<u64>,
}

/// Returns the wait of a request that asks for `ms` milliseconds.
fn wait(ms: u64) -> Duration {
    Duration::from_millis(ms.min(MAX_WAIT_MS))
}

pub(crate) async fn start(
    State(host): State<Host>,
    Path((namespace, graph)): Path<(Name, Name)>,
    Query(Wait { wait_ms }): Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Response), Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::START_BYTES).await?;
    let Start { inputs, store, idempotency_key, delay_ms } = Start::read(read.value)?;
    let wait = wait(wait_ms.unwrap_or(0));
    let (turn, inputs) = (read.turn, inputs.map(Arc::new));
    let request = StartRequest { inputs, store, idempotency_key, delay_ms, wait, turn };
    let started = host.start_run(&namespace, &graph, request).await?;
    let status = if started.new { StatusCode::CREATED } else { StatusCode::OK };
    let text = whole(&started.run, &[("started_before", &(!started.new).to_string())]);
    Ok((status, answer::json(text, started.run.place)))
}

/// The query parameters of a list of runs: filters and page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    graph: Option<Name>,
    status: Option<RunStatus>,
    before: Option<i64>,
    limit: Option<u32>,
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(list): Query<List>,
) -> Result<Json<Value>, Problem> {
    let List { graph, status, before, limit } = list;
    let filter = RunFilter { graph, status, before, most: page(limit) };
    let found = host.runs(&namespace, &filter).await?;
    let runs: Vec<Value> = found.items.iter().map(brief).collect();
    Ok(Json(json!({"runs": runs, "next": found.next})))
}

/// The query parameters of a long poll on a run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {
    after: Option<i64>,
    wait_ms: Option<u64>,
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(show): Query<Show>,
) -> Result<Response, Problem> {
    let found = match show.after {
        None => host.run(&namespace, run).await?,
        Some(after) => {
            let wait = wait(show.wait_ms.unwrap_or(MAX_WAIT_MS));
            host.watch_run(&namespace, run, after, wait).await?
        }
    };
    Ok(sent(found))
}

pub(crate) async fn cancel(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(sent(host.cancel_run(&namespace, run).await?))
}

pub(crate) async fn pause(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(sent(host.pause_run(&namespace, run).await?))
}

pub(crate) async fn resume(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    Ok(sent(host.resume_run(&namespace, run).await?))
}

pub(crate) async fn redrive(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
) -> Result<Response, Problem> {
    let redriven = host.redrive_run(&namespace, run).await?;
    let (retried, late) = (redriven.retried.to_string(), redriven.late.to_string());
    let text = whole(&redriven.run, &[("retried", &retried), ("late", &late)]);
    Ok(answer::json(text, redriven.run.place))
}

fn brief(run: &RunView) -> Value {
    let ended = run.succeeded + run.pruned + run.errored + run.cancelled;
    json!({
        "run": run.id,
        "graph": run.graph,
        "revision": run.revision,
        "status": run.status,
        "paused": run.paused,
        "version": run.version,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "counts": {
            "states": run.states,
            "open": run.states - ended,
            "success": run.succeeded,
            "pruned": run.pruned,
            "errored": run.errored,
            "cancelled": run.cancelled,
            "retries": run.retries,
            "requeues": run.requeues,
        },
    })
}

/// Returns a run as a response, which holds its memory permit until it has been sent.
pub(crate) fn sent(details: RunDetails) -> Response {
    answer::json(whole(&details, &[]), details.place)
}

/// Returns the JSON text of a run, with `more` members that are JSON text already.
fn whole(details: &RunDetails, more: &[(&str, &str)]) -> String {
    let mut head = brief(&details.run);
    head["store"] = json!(details.store);
    let brief = |state| states::brief(details.run.id, &details.graph, state);
    let failures: Vec<String> = details.failures.iter().map(brief).collect();
    answer::with_texts(&head, &[&[("failures", &*answer::list(&failures))], more].concat())
}
