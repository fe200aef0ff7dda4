//! `/graphs`: apply, validate, list, show.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::{GraphEntry, Host};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::{ListPart, Path, Query, answer, body};

pub(crate) async fn apply(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::GRAPH_BYTES).await?;
    let template = Value::Object(read.value);
    let applied = host.apply_graph(&namespace, &name, template, read.turn).await?;
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
    let template = Value::Object(read.value);
    host.validate_graph(&namespace, &name, template, read.turn).await?;
    Ok(Json(json!({"valid": true})))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(part): Query<ListPart>,
) -> Result<Json<Value>, Problem> {
    let page = host.graphs(&namespace, &part.into()).await?;
    let graphs: Vec<Value> = page.items.iter().map(brief).collect();
    Ok(Json(json!({"graphs": graphs, "next": page.next})))
}

fn brief(graph: &GraphEntry) -> Value {
    json!({
        "name": graph.name,
        "revision": graph.revision,
        "created_at": graph.created_at,
        "nodes": graph.nodes,
    })
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, name)): Path<(Name, Name)>,
) -> Result<Response, Problem> {
    let (row, place) = host.graph(&namespace, &name).await?;
    let head = json!({
        "name": row.name,
        "revision": row.revision.number,
        "digest": row.revision.digest,
        "created_at": row.created_at,
    });
    Ok(answer::json(answer::with_texts(&head, &[("template", &row.body)]), place))
}
