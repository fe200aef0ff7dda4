//! `/v1/operator`: endpoints for admins. They list the hosts, and set the limits, slots and quotas
//! of namespaces and the grants of plugins.
//!
//! Not here: keys and the audit log (`keys`).

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exosphere_api_types::{
    GrantList, Grants, HostList, ListQuery, NamespaceDetails, NamespaceList, NamespaceQuotas,
    NamespaceSettings, PauseRequest, PluginGrants, QuotaSettings,
};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;

use crate::answer::Answer;
use crate::etag::{expected_versions, with_etag};
use crate::problem::Problem;
use crate::route::Verb::{Delete, Get, Post, Put};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, lists, views};

/// Returns the routes for operators.
pub(crate) fn routes() -> Vec<Route> {
    const QUOTAS: &str = "/v1/operator/namespaces/{namespace}/quotas";
    const GRANTS: &str = "/v1/operator/namespaces/{namespace}/grants/{plugin}";
    let all = vec![
        route(Get, "/v1/operator/hosts", Role::Admin, QuotaClass::Read, list_hosts)
            .describe("listHosts", "Lists the hosts of the database, by number")
            .answers::<HostList>(200),
        route(Get, "/v1/operator/namespaces", Role::Admin, QuotaClass::Read, list_namespaces)
            .describe("listNamespaces", "Lists the namespaces, by name")
            .query::<ListQuery>()
            .answers::<NamespaceList>(200),
        route(
            Get,
            "/v1/operator/namespaces/{namespace}",
            Role::Admin,
            QuotaClass::Read,
            show_namespace,
        )
        .describe("showNamespace", "Returns a namespace with its settings")
        .answers::<NamespaceDetails>(200)
        .with_etag(),
        route(
            Put,
            "/v1/operator/namespaces/{namespace}",
            Role::Admin,
            QuotaClass::Write,
            set_namespace,
        )
        .describe("setNamespace", "Replaces the settings of a namespace")
        .if_match()
        .takes::<NamespaceSettings>()
        .answers::<NamespaceDetails>(200)
        .with_etag(),
        route(
            Post,
            "/v1/operator/namespaces/{namespace}/pause",
            Role::Admin,
            QuotaClass::Write,
            pause_namespace,
        )
        .describe(
            "pauseNamespace",
            "Pauses a namespace: none of its states starts, and new runs wait",
        )
        .takes::<PauseRequest>()
        .answers::<NamespaceDetails>(200)
        .with_etag(),
        route(
            Post,
            "/v1/operator/namespaces/{namespace}/resume",
            Role::Admin,
            QuotaClass::Write,
            resume_namespace,
        )
        .describe("resumeNamespace", "Resumes a paused namespace")
        .answers::<NamespaceDetails>(200)
        .with_etag(),
        route(
            Get,
            "/v1/operator/namespaces/{namespace}/grants",
            Role::Admin,
            QuotaClass::Read,
            list_grants,
        )
        .describe("listGrants", "Lists the grants of a namespace, by name of plugin")
        .query::<ListQuery>()
        .answers::<GrantList>(200),
        route(Get, QUOTAS, Role::Admin, QuotaClass::Read, show_quotas)
            .describe("showQuotas", "Returns the quotas of a namespace, and what it uses of them")
            .answers::<NamespaceQuotas>(200)
            .with_etag(),
        route(Put, QUOTAS, Role::Admin, QuotaClass::Write, set_quotas)
            .describe("setQuotas", "Replaces the quotas of a namespace")
            .details("Quotas bound the admins of a namespace, too: the key must be one of all.")
            .for_all_namespaces()
            .if_match()
            .takes::<QuotaSettings>()
            .answers::<NamespaceQuotas>(200)
            .with_etag(),
        route(Get, GRANTS, Role::Admin, QuotaClass::Read, show_grants)
            .describe("showGrants", "Returns the grants of a plugin")
            .answers::<PluginGrants>(200)
            .with_etag(),
        route(Put, GRANTS, Role::Admin, QuotaClass::Write, set_grants)
            .describe("setGrants", "Replaces the grants of a plugin")
            .if_match()
            .takes::<Grants>()
            .answers::<PluginGrants>(200)
            .with_etag(),
        route(Delete, GRANTS, Role::Admin, QuotaClass::Write, remove_grants)
            .describe("removeGrants", "Removes the grants of a plugin")
            .if_match()
            .answers::<PluginGrants>(200)
            .with_etag(),
    ];
    all.into_iter().map(Route::offloaded).collect()
}

async fn list_hosts(State(host): State<Host>) -> Result<Answer<HostList>, Problem> {
    let hosts = host.hosts().await?.into_iter().map(views::host_details).collect();
    Ok(Answer(HostList { hosts, holding: host.holding() }))
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
    let found = host.show_namespace(&namespace).await?;
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

async fn show_quotas(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
) -> Result<Response, Problem> {
    let found = host.quotas(&namespace).await?;
    Ok(with_etag(found.version, views::namespace_quotas(found)))
}

async fn set_quotas(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = expected_versions(&headers)?;
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES);
    let QuotaSettings { quotas } = read.await?;
    let set = host.set_quotas(&namespace, &quotas, &expected).await?;
    Ok(with_etag(set.version, views::namespace_quotas(set)))
}

async fn pause_namespace(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let read = body::typed(&host, &namespace, &headers, body, body::MAX_SETTINGS_BYTES);
    let PauseRequest { reason } = read.await?;
    let paused = host.pause_namespace(&namespace, &reason).await?;
    Ok(with_etag(paused.version, views::namespace_details(paused)))
}

async fn resume_namespace(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
) -> Result<Response, Problem> {
    let resumed = host.resume_namespace(&namespace).await?;
    Ok(with_etag(resumed.version, views::namespace_details(resumed)))
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
    let found = host.show_grants(&namespace, &plugin).await?;
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
    let set = host.remove_grants(&namespace, &plugin, &expected).await?;
    Ok(with_etag(set.version, views::plugin_grants(set)))
}
