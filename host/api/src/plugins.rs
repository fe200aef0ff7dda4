//! `/plugins`: upload, check, list, inspect.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use exosphere_orchestrator::domain::grant::Missing;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::{
    AdmissionReport, Capability, Host, PluginEntry, PluginRow, PluginUpload,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::{Kind, Problem};
use crate::uploads::Uploads;
use crate::{ListPart, Path, Query, answer};

/// The query parameters of an upload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Push {
    name: Name,
    #[serde(default)]
    version: String,
}

pub(crate) async fn push(
    State(host): State<Host>,
    Extension(uploads): Extension<Uploads>,
    Path(namespace): Path<Name>,
    Query(push): Query<Push>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (_place, bytes) = uploads.take(&namespace, &headers, body, host.upload_bytes()).await?;
    let Push { name, version } = push;
    let uploaded = host.push_plugin(PluginUpload { namespace, name, version, bytes }).await?;
    let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
    let mut value = whole(&uploaded.plugin);
    add_remarks(&mut value, &uploaded.remarks);
    Ok((status, Json(value)))
}

/// The query parameters of a check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// The name that the plugin would have; its grants apply.
    name: Option<Name>,
}

/// Checks an upload and reports on it without storing it. A plugin may itself be named
/// `check`, so the check and that plugin share one path.
pub(crate) async fn check(
    State(host): State<Host>,
    Extension(uploads): Extension<Uploads>,
    Path((namespace, word)): Path<(Name, String)>,
    Query(Check { name }): Query<Check>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    if word != "check" {
        return Err(crate::no_method().await);
    }
    let name = name.ok_or_else(|| {
        let words = "give the name that the plugin would have, as `?name=..`: grants go by it";
        Problem::new(Kind::BadQuery, words)
    })?;
    let (_place, bytes) = uploads.take(&namespace, &headers, body, host.upload_bytes()).await?;
    let checked = host.check_plugin(&namespace, &name, &bytes).await?;
    let mut value = json!({
        "name": name,
        "version": "",
        "digest": checked.digest,
        "size": checked.size,
        "uploaded_at": null,
        "nodes": checked.nodes,
        "imports": checked.imports,
        "compile_ms": u64::try_from(checked.compile.as_millis()).unwrap_or(u64::MAX),
    });
    add_remarks(&mut value, &checked.remarks);
    Ok(Json(value))
}

fn add_remarks(value: &mut Value, remarks: &AdmissionReport) {
    let capabilities = remarks.capabilities.iter().map(|capability| {
        let Capability { asked, granted, remedy } = capability;
        let mut value = json!({"needs": asked.capability(), "granted": granted, "grant": remedy});
        match asked {
            Missing::Import { import, .. } => value["import"] = json!(import),
            Missing::Secret(name) => value["secret"] = json!(name),
        }
        value
    });
    value["capabilities"] = capabilities.collect();
    value["warnings"] = json!(remarks.warnings);
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(part): Query<ListPart>,
) -> Result<Response, Problem> {
    let page = host.plugins(&namespace, &part.into()).await?;
    let plugins: Vec<String> = page.items.iter().map(entry).collect();
    let next = json!({"next": page.next});
    let list = answer::with_texts(&next, &[("plugins", &answer::list(&plugins))]);
    Ok(answer::json(list, None))
}

fn entry(plugin: &PluginEntry) -> String {
    let head = json!({
        "name": plugin.name,
        "version": plugin.version,
        "digest": plugin.digest,
        "size": plugin.size,
        "uploaded_at": plugin.uploaded_at,
    });
    answer::with_texts(&head, &[("nodes", &plugin.nodes)])
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, String)>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(whole(&host.plugin(&namespace, &name).await?)))
}

fn brief(plugin: &PluginRow) -> Value {
    let nodes: Vec<_> = plugin.nodes.iter().map(|node| &node.name).collect();
    json!({
        "name": plugin.name,
        "version": plugin.version,
        "digest": plugin.digest,
        "size": plugin.size,
        "uploaded_at": plugin.uploaded_at,
        "nodes": nodes,
    })
}

fn whole(plugin: &PluginRow) -> Value {
    let mut value = brief(plugin);
    value["nodes"] = json!(plugin.nodes);
    value["imports"] = json!(plugin.imports);
    value["compile_ms"] = json!(plugin.compile_ms);
    value
}
