//! `/graphs`: apply, validate, list, show.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::ids::Name;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::{Path, body};

pub(crate) async fn apply(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::GRAPH_BYTES).await?;
    let applied = host.apply_graph(&namespace, &name, read.value, read.turn).await?;
    let nodes: Vec<Value> = applied
        .graph
        .nodes()
        .map(|(_, node)| {
            json!({
                "identifier": node.identifier,
                "node_name": node.node_name,
                "plugin": node.plugin,
                "digest": node.digest,
            })
        })
        .collect();
    Ok(Json(json!({
        "name": applied.name,
        "revision": applied.revision,
        "digest": applied.digest,
        "changed": applied.changed,
        "nodes": nodes,
    })))
}

pub(crate) async fn validate(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::GRAPH_BYTES).await?;
    host.validate_graph(&namespace, &name, read.value, read.turn).await?;
    Ok(Json(json!({"valid": true})))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
) -> Result<Json<Value>, Problem> {
    let graphs = host.graphs(&namespace).await?;
    let graphs: Vec<Value> = graphs
        .iter()
        .map(|row| {
            let body: Value = serde_json::from_str(&row.body).unwrap_or_default();
            json!({
                "name": row.name,
                "revision": row.revision.number,
                "created_at": row.created_at,
                "nodes": body["nodes"].as_array().map_or(0, Vec::len),
            })
        })
        .collect();
    Ok(Json(json!({ "graphs": graphs })))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
) -> Result<Json<Value>, Problem> {
    let row = host.graph(&namespace, &name).await?;
    let template: Value = serde_json::from_str(&row.body).unwrap_or_default();
    Ok(Json(json!({
        "name": row.name,
        "revision": row.revision.number,
        "digest": row.revision.digest,
        "created_at": row.created_at,
        "template": template,
    })))
}
