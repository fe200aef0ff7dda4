//! `/graphs`: apply, validate, list, show.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exosphere_api_types::{GraphApplied, GraphList, GraphValid, ListQuery};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::ids::Name;
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::problem::Problem;
use crate::{Path, Query, body, lists, views};

pub(crate) async fn apply(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<GraphApplied>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::MAX_GRAPH_BYTES).await?;
    let template = Value::Object(read.value);
    let applied = host.apply_graph(&namespace, &name, template, read.turn).await?;
    Ok(Answer(views::graph_applied(applied)))
}

pub(crate) async fn validate(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<GraphValid>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::MAX_GRAPH_BYTES).await?;
    let template = Value::Object(read.value);
    host.validate_graph(&namespace, &name, template, read.turn).await?;
    Ok(Answer(GraphValid { valid: true }))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<GraphList>, Problem> {
    let page = host.graphs(&namespace, &lists::page_request(query)).await?;
    let graphs = page.items.into_iter().map(views::graph_summary).collect();
    Ok(Answer(GraphList { graphs, next: page.next }))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
) -> Result<Response, Problem> {
    let (graph, permit) = host.graph(&namespace, &name).await?;
    Ok(answer::respond(&views::graph_details(graph), permit))
}
