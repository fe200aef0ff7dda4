//! `/graphs`: apply, validate, list, show, revisions, delete.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use exosphere_api_types::{
    GraphApplied, GraphDeleteQuery, GraphDeleted, GraphDetails, GraphDiff, GraphDiffQuery,
    GraphList, GraphPause, GraphValid, ListQuery, PauseRequest, RevisionList, RevisionListQuery,
    RollBack,
};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{DeletedGraph, Host};
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::etag::{etag, expected_versions};
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Delete, Get, Post, Put};
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
        .with_etag()
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
        .if_match()
        .takes_object(TEMPLATE)
        .answers::<GraphApplied>(200)
        .fails(&[Kind::QuotaExceeded])
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
        route(
            Delete,
            "/v1/namespaces/{namespace}/graphs/{name}",
            Role::Deployer,
            QuotaClass::Write,
            delete,
        )
        .describe("deleteGraph", "Deletes a graph with all its revisions and secrets")
        .details("It must have no runs that have not ended, and none at all without `with_runs`.")
        .query::<GraphDeleteQuery>()
        .answers::<GraphDeleted>(200)
        .fails(&[Kind::NotFound, Kind::Conflict])
        .offloaded(),
    ]
    .into_iter()
    .chain(revision_routes())
    .collect()
}

/// Returns the routes of revisions.
fn revision_routes() -> Vec<Route> {
    vec![
        route(
            Get,
            "/v1/namespaces/{namespace}/graphs/{name}/revisions",
            Role::Viewer,
            QuotaClass::Read,
            revisions,
        )
        .describe("listRevisions", "Lists the revisions of a graph, the newest first")
        .query::<RevisionListQuery>()
        .answers::<RevisionList>(200)
        .fails(&[Kind::NotFound]),
        route(
            Get,
            "/v1/namespaces/{namespace}/graphs/{name}/revisions/{revision}",
            Role::Viewer,
            QuotaClass::Read,
            show_revision,
        )
        .describe("showRevision", "Returns a graph at one of its revisions")
        .answers::<GraphDetails>(200)
        .fails(&[Kind::NotFound])
        .offloaded(),
        route(
            Get,
            "/v1/namespaces/{namespace}/graphs/{name}/diff",
            Role::Viewer,
            QuotaClass::Read,
            diff,
        )
        .describe("diffRevisions", "Compares two revisions of a graph: nodes, edges and settings")
        .query::<GraphDiffQuery>()
        .answers::<GraphDiff>(200)
        .fails(&[Kind::NotFound])
        .offloaded(),
        route(
            Post,
            "/v1/namespaces/{namespace}/graphs/{name}/rollback",
            Role::Deployer,
            QuotaClass::Write,
            roll_back,
        )
        .describe("rollBackGraph", "Makes the definition of an old revision the newest revision")
        .details("It is validated again, with the plugins that it names.")
        .if_match()
        .takes::<RollBack>()
        .answers::<GraphApplied>(200)
        .fails(&[Kind::NotFound, Kind::Conflict, Kind::QuotaExceeded])
        .offloaded(),
        route(
            Post,
            "/v1/namespaces/{namespace}/graphs/{name}/pause",
            Role::Operator,
            QuotaClass::Write,
            pause,
        )
        .describe("pauseGraph", "Pauses a graph: no states of its runs start, and new runs wait")
        .takes::<PauseRequest>()
        .answers::<GraphPause>(200)
        .fails(&[Kind::NotFound]),
        route(
            Post,
            "/v1/namespaces/{namespace}/graphs/{name}/resume",
            Role::Operator,
            QuotaClass::Write,
            resume,
        )
        .describe("resumeGraph", "Resumes a paused graph, and the runs that were paused with it")
        .answers::<GraphPause>(200)
        .fails(&[Kind::NotFound]),
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
    let expected = expected_versions(&headers)?;
    let applied = host.apply_graph(&namespace, &name, template, read.turn, &expected).await?;
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
    let tag = etag(&graph.revision.digest);
    let pause = host.graph_pause(&namespace, &name).await?;
    Ok((tag, answer::respond(&views::graph_details(graph, pause), permit)).into_response())
}

pub(crate) async fn revisions(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    Query(RevisionListQuery { before, limit }): Query<RevisionListQuery>,
) -> Result<Answer<RevisionList>, Problem> {
    let page = host.revisions(&namespace, &name, before, lists::page_size(limit)).await?;
    let revisions = page.items.into_iter().map(views::revision_summary).collect();
    Ok(Answer(RevisionList { revisions, next: page.next }))
}

pub(crate) async fn show_revision(
    State(host): State<Host>,
    Path((namespace, name, revision)): Path<(Name, Name, u32)>,
) -> Result<Response, Problem> {
    let (graph, permit) = host.revision(&namespace, &name, revision.into()).await?;
    Ok(answer::respond(&views::graph_details(graph, None), permit))
}

pub(crate) async fn diff(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    Query(GraphDiffQuery { from, to }): Query<GraphDiffQuery>,
) -> Result<Response, Problem> {
    let (diff, permit) = host.diff_revisions(&namespace, &name, (from, to)).await?;
    Ok(answer::respond(&views::graph_diff(name, (from, to), diff), permit))
}

pub(crate) async fn roll_back(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<GraphApplied>, Problem> {
    let expected = expected_versions(&headers)?;
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES);
    let RollBack { revision } = read.await?;
    let revision = i64::try_from(revision).unwrap_or(i64::MAX);
    let applied = host.roll_back(&namespace, &name, revision, &expected).await?;
    Ok(Answer(views::graph_applied(applied)))
}

pub(crate) async fn delete(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    Query(GraphDeleteQuery { with_runs }): Query<GraphDeleteQuery>,
) -> Result<Answer<GraphDeleted>, Problem> {
    let deleted = host.delete_graph(&namespace, &name, with_runs.unwrap_or(false)).await?;
    let DeletedGraph { revisions, runs } = deleted;
    Ok(Answer(GraphDeleted { name: name.into(), revisions, runs }))
}

pub(crate) async fn pause(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<GraphPause>, Problem> {
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES);
    let PauseRequest { reason } = read.await?;
    let pause = host.pause_graph(&namespace, &name, &reason).await?.map(views::pause);
    Ok(Answer(GraphPause { name: name.into(), pause }))
}

pub(crate) async fn resume(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
) -> Result<Answer<GraphPause>, Problem> {
    let pause = host.resume_graph(&namespace, &name).await?.map(views::pause);
    Ok(Answer(GraphPause { name: name.into(), pause }))
}
