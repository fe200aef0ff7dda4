//! `/graphs`: apply, validate, list, show.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exosphere_api_types::{GraphApplied, GraphDetails, GraphList, GraphValid, ListQuery};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Get, Post, Put};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, lists, views};

/// The description of the body with a graph.
const TEMPLATE: &str = "A graph, as a graph file has it.";

/// Returns the routes of graphs.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/namespaces/{namespace}/graphs", Role::Viewer, QuotaClass::Read, list)
            .describe("listGraphs", "Lists the graphs of a namespace, by name")
            .query::<ListQuery>()
            .answers::<GraphList>(200)
            .fails(&[Kind::NotFound]),
        route(
            Get,
            "/v1/namespaces/{namespace}/graphs/{name}",
            Role::Viewer,
            QuotaClass::Read,
            show,
        )
        .describe("showGraph", "Returns a graph at its current revision")
        .answers::<GraphDetails>(200)
        .fails(&[Kind::NotFound])
        .offloaded(),
        route(
            Put,
            "/v1/namespaces/{namespace}/graphs/{name}",
            Role::Deployer,
            QuotaClass::Write,
            apply,
        )
        .describe("applyGraph", "Applies a graph: a new revision, if it has changed")
        .takes_object(TEMPLATE)
        .answers::<GraphApplied>(200)
        .fails(&[Kind::Conflict])
        .offloaded(),
        route(
            Post,
            "/v1/namespaces/{namespace}/graphs/{name}/validate",
            Role::Deployer,
            QuotaClass::Write,
            validate,
        )
        .describe("validateGraph", "Checks a graph without applying it")
        .takes_object(TEMPLATE)
        .answers::<GraphValid>(200)
        .offloaded(),
    ]
}

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
