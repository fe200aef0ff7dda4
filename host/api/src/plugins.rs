//! `/plugins`: upload, check, list, inspect, remove.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use exosphere_api_types::{
    CheckQuery, ListQuery, PluginDetails, PluginList, PluginRemoveQuery, PluginRemoved,
    PluginReport, UploadQuery,
};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{self as host, Host, PluginUpload};

use crate::answer::Answer;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Delete, Get, Post};
use crate::route::{QuotaClass, Route, route};
use crate::uploads::Uploads;
use crate::{Path, Query, lists, plugin_views};

/// Returns the routes of plugins.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/namespaces/{namespace}/plugins", Role::Viewer, QuotaClass::Read, list)
            .describe("listPlugins", "Lists the plugins of a namespace, by name")
            .query::<ListQuery>()
            .answers::<PluginList>(200)
            .fails(&[Kind::NotFound]),
        route(Post, "/v1/namespaces/{namespace}/plugins", Role::Deployer, QuotaClass::Upload, push)
            .describe("pushPlugin", "Uploads a plugin")
            .details("The status is 200 if the plugin existed.")
            .query::<UploadQuery>()
            .takes_upload()
            .answers::<PluginReport>(200)
            .answers::<PluginReport>(201)
            .fails(&[Kind::Invalid, Kind::QuotaExceeded])
            .offloaded(),
        route(
            Get,
            "/v1/namespaces/{namespace}/plugins/{name}",
            Role::Viewer,
            QuotaClass::Read,
            show,
        )
        .describe("showPlugin", "Returns a plugin at its newest upload")
        .answers::<PluginDetails>(200)
        .fails(&[Kind::NotFound])
        .offloaded(),
        route(
            Post,
            "/v1/namespaces/{namespace}/plugins/{name}",
            Role::Deployer,
            QuotaClass::Upload,
            check,
        )
        .shown_as("/v1/namespaces/{namespace}/plugins/check")
        .describe("checkPlugin", "Checks a plugin without storing it")
        .query::<CheckQuery>()
        .takes_upload()
        .answers::<PluginReport>(200)
        .offloaded(),
        route(
            Delete,
            "/v1/namespaces/{namespace}/plugins/{name}",
            Role::Deployer,
            QuotaClass::Write,
            remove,
        )
        .describe("removePlugin", "Removes versions of a plugin that nothing uses")
        .query::<PluginRemoveQuery>()
        .answers::<PluginRemoved>(200)
        .fails(&[Kind::NotFound, Kind::Conflict])
        .offloaded(),
    ]
}

pub(crate) async fn push(
    State(host): State<Host>,
    State(uploads): State<Uploads>,
    Path(namespace): Path<Name>,
    Query(UploadQuery { name, version }): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Answer<PluginReport>), Problem> {
    let upload = uploads.receive(&namespace, &headers, body, host.upload_bytes()).await?;
    let (_permit, bytes) = upload;
    let uploaded = host.push_plugin(PluginUpload { namespace, name, version, bytes }).await?;
    let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
    let plugin = plugin_views::plugin_details(uploaded.plugin);
    Ok((status, Answer(plugin_views::plugin_report(plugin, uploaded.remarks))))
}

/// Checks an upload and reports on it without storing it. A plugin may itself be named
/// `check`, so the check and that plugin share one path.
pub(crate) async fn check(
    State(host): State<Host>,
    State(uploads): State<Uploads>,
    Path((namespace, word)): Path<(Name, String)>,
    Query(CheckQuery { name }): Query<CheckQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<PluginReport>, Problem> {
    if word != "check" {
        return Err(crate::no_method().await.allow("GET,HEAD"));
    }
    let name = name.ok_or_else(|| {
        let message = "the name that the plugin would have is missing, and its grants depend on it: \
                     give it as `?name=..`";
        Problem::new(Kind::BadQuery, message)
    })?;
    let upload = uploads.receive(&namespace, &headers, body, host.upload_bytes()).await?;
    let (_permit, bytes) = upload;
    let checked = host.check_plugin(&namespace, &name, &bytes).await?;
    Ok(Answer(plugin_views::plugin_checked(name, checked)))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<PluginList>, Problem> {
    let page = host.plugins(&namespace, &lists::page_request(query)).await?;
    let plugins = page.items.into_iter().map(plugin_views::plugin_summary).collect();
    Ok(Answer(PluginList { plugins, next: page.next }))
}

pub(crate) async fn remove(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    Query(PluginRemoveQuery { digest, unused }): Query<PluginRemoveQuery>,
) -> Result<Answer<PluginRemoved>, Problem> {
    let uploads = match (digest, unused.unwrap_or(false)) {
        (Some(_), true) => {
            let message = "give a digest or `unused`, not both: a digest names one version";
            return Err(Problem::new(Kind::BadQuery, message));
        }
        (Some(digest), false) => host::Uploads::Digest(digest),
        (None, true) => host::Uploads::Unused,
        (None, false) => host::Uploads::All,
    };
    let removed = host.remove_plugin(&namespace, &name, uploads).await?;
    let digests = removed.iter().map(ToString::to_string).collect();
    Ok(Answer(PluginRemoved { name: name.into(), digests }))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, String)>,
) -> Result<Answer<PluginDetails>, Problem> {
    let plugin = host.plugin(&namespace, &name).await?;
    Ok(Answer(plugin_views::plugin_details(plugin)))
}
