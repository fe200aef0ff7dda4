//! `/v1/operator`: endpoints for operators only. They set the limits and the share of
//! hosts of namespaces, and the grants of plugins. Their path prefix lets a proxy in
//! front of the host tell operators from other callers.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use exosphere_orchestrator::domain::grant::Grants;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::json::Typed;
use exosphere_orchestrator::domain::limits::{Limit, LimitValues};
use exosphere_orchestrator::{Host, NamespaceDetails, NamespaceSettings, PluginGrants};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::etag::{expected, tagged};
use crate::problem::Problem;
use crate::{ListPart, Path, Query, body};

pub(crate) fn router() -> Router<Host> {
    Router::new()
        .route("/namespaces", get(list))
        .route("/namespaces/{namespace}", get(show).put(set))
        .route("/namespaces/{namespace}/grants", get(all_grants))
        .route("/namespaces/{namespace}/grants/{plugin}", get(grants).put(grant).delete(revoke))
}

/// The settings of a namespace, as an operator sends them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    limits: LimitValues,
    #[serde(default)]
    slots: Option<u32>,
}

impl Typed for Settings {}

async fn list(
    State(host): State<Host>,
    Query(part): Query<ListPart>,
) -> Result<Json<Value>, Problem> {
    let page = host.namespaces(&part.into()).await?;
    let namespaces: Vec<_> = page.items.iter().map(whole).collect();
    Ok(Json(json!({"namespaces": namespaces, "next": page.next})))
}

async fn show(State(host): State<Host>, Path(namespace): Path<Name>) -> Result<Response, Problem> {
    let found = host.namespace(&namespace).await?;
    Ok(tagged(found.version, whole(&found)))
}

async fn set(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let read = body::typed(&host, &namespace, &headers, body, body::SETTINGS_BYTES);
    let Settings { limits, slots } = read.await?;
    let settings = NamespaceSettings { limits, slots };
    let set = host.set_namespace(&namespace, settings, &expected).await?;
    Ok(tagged(set.version, whole(&set)))
}

async fn all_grants(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(part): Query<ListPart>,
) -> Result<Json<Value>, Problem> {
    let page = host.grants(&namespace, &part.into()).await?;
    let grants: Vec<_> = page.items.iter().map(of).collect();
    Ok(Json(json!({"grants": grants, "next": page.next})))
}

async fn grants(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
) -> Result<Response, Problem> {
    let found = host.grants_of(&namespace, &plugin).await?;
    Ok(tagged(found.version, of(&found)))
}

async fn grant(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let grants: Grants = body::typed(&host, &namespace, &headers, body, body::GRAPH_BYTES).await?;
    let set = host.set_grants(&namespace, &plugin, grants, &expected).await?;
    Ok(tagged(set.version, of(&set)))
}

async fn revoke(
    State(host): State<Host>,
    Path((namespace, plugin)): Path<(Name, Name)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let set = host.set_grants(&namespace, &plugin, Grants::default(), &expected).await?;
    Ok(tagged(set.version, of(&set)))
}

fn of(granted: &PluginGrants) -> Value {
    json!({ "plugin": granted.plugin, "grants": granted.grants })
}

fn whole(namespace: &NamespaceDetails) -> Value {
    let NamespaceDetails { name, limits, effective, own_slots, slots, version: _ } = namespace;
    let effective: Map<String, Value> =
        Limit::ALL.iter().map(|limit| (limit.to_string(), json!(effective.get(*limit)))).collect();
    json!({
        "name": name,
        "limits": limits,
        "slots": own_slots,
        "effective": { "limits": effective, "slots": slots },
    })
}
