//! `/plugins`: upload, list, inspect.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::{Host, PluginRow, PluginUpload};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::{Path, Query, body};

/// What goes with an upload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Push {
    name: Name,
    #[serde(default)]
    version: String,
}

pub(crate) async fn push(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(push): Query<Push>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let bytes = body::bytes(&headers, body, body::PLUGIN_BYTES).await?;
    let Push { name, version } = push;
    let uploaded = host.push_plugin(PluginUpload { namespace, name, version, bytes }).await?;
    let status = if uploaded.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(whole(&uploaded.plugin))))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
) -> Result<Json<Value>, Problem> {
    let plugins = host.plugins(&namespace).await?;
    let plugins: Vec<Value> = plugins.iter().map(brief).collect();
    Ok(Json(json!({ "plugins": plugins })))
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
