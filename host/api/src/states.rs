//! `/runs/{run}/states`: list, show, retry.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use exosphere_orchestrator::domain::graph::Graph;
use exosphere_orchestrator::domain::ids::{Name, RunId, StateId};
use exosphere_orchestrator::domain::path::Path as StatePath;
use exosphere_orchestrator::domain::state::Status;
use exosphere_orchestrator::{AttemptRow, Host, StateFilter, StateView};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{self, stored};
use crate::problem::Problem;
use crate::raw::{self, RawMember};
use crate::{Path, Query, runs};

/// Which states are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    identifier: Option<String>,
    status: Option<Status>,
    after: Option<StatePath>,
    limit: Option<u32>,
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    Query(list): Query<List>,
) -> Result<Json<Value>, Problem> {
    let after = list.after.map(|path| path.as_str().to_owned());
    let filter =
        StateFilter { nodes: None, status: list.status, after, most: runs::page(list.limit) };
    let (graph, page) = host.states(&namespace, run, list.identifier.as_deref(), filter).await?;
    let states: Vec<Value> = page.items.iter().map(|state| brief(run, &graph, state)).collect();
    Ok(Json(json!({"states": states, "next": page.next})))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, i64)>,
) -> Result<Response, Problem> {
    let details = host.state(&namespace, run, StateId(state)).await?;
    let mut value = brief(run, &details.graph, &details.state);
    value["usage"] = json!(details.state.usage);
    value["attempts"] = details.attempts.iter().map(attempt).collect();
    let bytes: usize = details.outputs.iter().map(String::len).sum();
    let _turn = if bytes as u64 > body::LARGE { host.large(&namespace).await } else { None };
    let outputs = RawMember::list("outputs", &details.outputs);
    let data = RawMember::one("data", details.state.data.as_deref());
    Ok(raw::answer(&value, &[outputs, data]))
}

pub(crate) async fn retry(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, i64)>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(runs::whole(&host.retry_state(&namespace, run, StateId(state)).await?)))
}

pub(crate) fn brief(run: RunId, graph: &Graph, state: &StateView) -> Value {
    let node = graph.get(state.node);
    json!({
        "state": format!("{run}/{}", state.id),
        "number": state.id,
        "identifier": node.map(|node| &node.identifier),
        "node_name": node.map(|node| &node.node_name),
        "path": state.path.to_string(),
        "status": state.status,
        "attempt": state.attempt,
        "retries": state.retries,
        "requeues": state.requeues,
        "created_at": state.created_at,
        "ended_at": state.ended_at,
        "output_count": state.outputs,
        "failure": state.failure,
    })
}

fn attempt(attempt: &AttemptRow) -> Value {
    json!({
        "number": attempt.number,
        "ended_at": attempt.ended_at,
        "outcome": attempt.outcome,
        "failure": attempt.failure,
        "logs": attempt.logs.as_deref().map_or_else(|| json!([]), stored),
        "usage": attempt.usage,
    })
}
