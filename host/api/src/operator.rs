//! `/v1/operator`: endpoints for operators only. They list the hosts, and set
//! the limits and slots of namespaces and the grants of plugins. By their path prefix, a proxy in front of the
//! host tells operators from other callers.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use exosphere_api_types::{
    GrantList, Grants, HostList, ListQuery, NamespaceList, NamespaceSettings,
};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::ids::Name;

use crate::answer::Answer;
use crate::etag::{expected_versions, with_etag};
use crate::problem::Problem;
use crate::{Path, Query, body, lists, views};

pub(crate) fn router() -> Router<Host> {
    Router::new()
        .route("/hosts", get(list_hosts))
        .route("/namespaces", get(list_namespaces))
        .route("/namespaces/{namespace}", get(show_namespace).put(set_namespace))
        .route("/namespaces/{namespace}/grants", get(list_grants))
        .route(
            "/namespaces/{namespace}/grants/{plugin}",
            get(show_grants).put(set_grants).delete(remove_grants),
        )
}

async fn list_hosts(State(host): State<Host>) -> Result<Answer<HostList>, Problem> {
    let hosts = host.hosts().await?.into_iter().map(views::host_details).collect();
    Ok(Answer(HostList { hosts }))
}

async fn list_namespaces(
    State(host): State<Host>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<NamespaceList>, Problem> {
    let page = host.namespaces(&lists::page_request(query)).await?;
    let namespaces = page.items.into_iter().map(views::namespace_details).collect();
    Ok(Answer(NamespaceList { namespaces, next: page.next }))
}

async fn show_namespace(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
) -> Result<Response, Problem> {
    let found = host.namespace(&namespace).await?;
    Ok(with_etag(found.version, views::namespace_details(found)))
}

async fn set_namespace(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = expected_versions(&headers)?;
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES);
    let NamespaceSettings { limits, slots } = read.await?;
    let settings = exosphere_orchestrator::NamespaceSettings { limits, slots };
    let set = host.set_namespace(&namespace, settings, &expected).await?;
    Ok(with_etag(set.version, views::namespace_details(set)))
}

async fn list_grants(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<GrantList>, Problem> {
    let page = host.grants(&namespace, &lists::page_request(query)).await?;
    let grants = page.items.into_iter().map(views::plugin_grants).collect();
    Ok(Answer(GrantList { grants, next: page.next }))
}

async fn show_grants(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
) -> Result<Response, Problem> {
    let found = host.grants_of(&namespace, &plugin).await?;
    Ok(with_etag(found.version, views::plugin_grants(found)))
}

async fn set_grants(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = expected_versions(&headers)?;
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_GRAPH_BYTES);
    let grants: Grants = read.await?;
    let set = host.set_grants(&namespace, &plugin, grants, &expected).await?;
    Ok(with_etag(set.version, views::plugin_grants(set)))
}

async fn remove_grants(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = expected_versions(&headers)?;
    let set = host.set_grants(&namespace, &plugin, Grants::default(), &expected).await?;
    Ok(with_etag(set.version, views::plugin_grants(set)))
}
