//! `/runs/{run}/states`: list, show, retry.

use axum::extract::State;
use axum::response::Response;
use exosphere_orchestrator::domain::graph::Graph;
use exosphere_orchestrator::domain::ids::{Name, RunId, StateId};
use exosphere_orchestrator::domain::path::Path as StatePath;
use exosphere_orchestrator::domain::state::Status;
use exosphere_orchestrator::{AttemptRow, FailureView, Host, StateFilter, StateView};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::{Path, Query, answer, runs};

/// The query parameters of a list of states: filters and page.
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
) -> Result<Response, Problem> {
    let after = list.after.map(|path| path.as_str().to_owned());
    let filter =
        StateFilter { nodes: None, status: list.status, after, most: runs::page(list.limit) };
    let (graph, page) = host.states(&namespace, run, list.identifier.as_deref(), filter).await?;
    let states: Vec<String> = page.items.iter().map(|state| brief(run, &graph, state)).collect();
    let next = json!({"next": page.next});
    let list = answer::with_texts(&next, &[("states", &answer::list(&states))]);
    Ok(answer::json(list, None))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, i64)>,
) -> Result<Response, Problem> {
    let details = host.state(&namespace, run, StateId(state)).await?;
    let mut head = head(run, &details.graph, &details.state);
    head["usage"] = json!(details.state.usage);
    let attempts: Vec<String> = details.attempts.iter().map(attempt).collect();
    let text = answer::with_texts(
        &head,
        &[
            ("failure", &failure(details.state.failure.as_ref())),
            ("outputs", &answer::list(&details.outputs)),
            ("data", details.state.data.as_deref().unwrap_or("null")),
            ("attempts", &answer::list(&attempts)),
        ],
    );
    Ok(answer::json(text, details.place))
}

pub(crate) async fn retry(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, i64)>,
) -> Result<Response, Problem> {
    Ok(runs::sent(host.retry_state(&namespace, run, StateId(state)).await?))
}

/// Returns the JSON text of a state as lists show it.
pub(crate) fn brief(run: RunId, graph: &Graph, state: &StateView) -> String {
    let failure = failure(state.failure.as_ref());
    answer::with_texts(&head(run, graph, state), &[("failure", &failure)])
}

/// Returns the short members of a state.
fn head(run: RunId, graph: &Graph, state: &StateView) -> Value {
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
    })
}

fn failure(failure: Option<&FailureView>) -> String {
    let Some(FailureView { kind, message, details }) = failure else { return "null".to_owned() };
    let details = details.as_deref().map(|details| ("details", details));
    answer::with_texts(&json!({"kind": kind, "message": message}), details.as_slice())
}

fn attempt(attempt: &AttemptRow) -> String {
    let head = json!({
        "number": attempt.number,
        "ended_at": attempt.ended_at,
        "outcome": attempt.outcome,
        "usage": attempt.usage,
    });
    let failure = failure(attempt.failure.as_ref());
    let logs = attempt.logs.as_deref().unwrap_or("[]");
    answer::with_texts(&head, &[("failure", &failure), ("logs", logs)])
}
