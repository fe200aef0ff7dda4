//! `/secrets` and `/graphs/{name}/secrets`: list, set, remove. No answer holds a value.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use exosphere_api_types::{SecretEntry, SecretList, SecretListQuery, SecretValue};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{Host, SecretName};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Delete, Get, Put};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, lists};

/// Returns the routes of secrets.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/namespaces/{namespace}/secrets", Role::Deployer, QuotaClass::Read, list)
            .describe("listSecrets", "Lists the secrets of a namespace, without their values")
            .query::<SecretListQuery>()
            .answers::<SecretList>(200)
            .fails(&[Kind::NotFound]),
        route(
            Put,
            "/v1/namespaces/{namespace}/graphs/{name}/secrets/{secret}",
            Role::Deployer,
            QuotaClass::Write,
            set,
        )
        .describe("setSecret", "Sets a secret of a graph, which need not be applied yet")
        .takes::<SecretValue>()
        .answers::<SecretEntry>(200)
        .offloaded(),
        route(
            Delete,
            "/v1/namespaces/{namespace}/graphs/{name}/secrets/{secret}",
            Role::Deployer,
            QuotaClass::Write,
            remove,
        )
        .describe("removeSecret", "Removes a secret that no node of its graph declares")
        .answers::<SecretEntry>(200)
        .fails(&[Kind::NotFound, Kind::Conflict]),
    ]
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path(namespace): Path<Name>,
    Query(SecretListQuery { after, limit }): Query<SecretListQuery>,
) -> Result<Answer<SecretList>, Problem> {
    let after = after.map(|cursor| read_cursor(&cursor)).transpose()?;
    let limit = lists::full_page_size(limit);
    let page = host.secrets(&namespace, after.as_ref(), limit).await?;
    let secrets = page.items.into_iter().map(entry).collect();
    Ok(Answer(SecretList { secrets, next: page.next }))
}

pub(crate) async fn set(
    State(host): State<Host>,
    Path((namespace, graph, name)): Path<(Name, Name, Name)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<SecretEntry>, Problem> {
    let read = body::json(&host, &namespace, &headers, body, body::MAX_SECRET_BODY_BYTES).await?;
    let value = read_value(read.value)?;
    let secret = SecretName { graph, name };
    host.set_secret(&namespace, &secret, value).await?;
    Ok(Answer(entry(secret)))
}

pub(crate) async fn remove(
    State(host): State<Host>,
    Path((namespace, graph, name)): Path<(Name, Name, Name)>,
) -> Result<Answer<SecretEntry>, Problem> {
    let secret = SecretName { graph, name };
    host.remove_secret(&namespace, &secret).await?;
    Ok(Answer(entry(secret)))
}

/// Reads a [`SecretValue`]. No message repeats the value, as those of a derived reader do.
fn read_value(mut body: Map<String, Value>) -> Result<Zeroizing<String>, Problem> {
    match (body.remove("value"), body.is_empty()) {
        (Some(Value::String(value)), true) => Ok(Zeroizing::new(value)),
        _ => {
            let message = "the body must be {\"value\": \"..\"}: one member, a string";
            Err(Problem::new(Kind::BadJson, message))
        }
    }
}

fn entry(secret: SecretName) -> SecretEntry {
    SecretEntry { graph: secret.graph, name: secret.name }
}

/// Reads a cursor: the graph and the name of a secret.
fn read_cursor(text: &str) -> Result<SecretName, Problem> {
    let names = text.split_once('/').and_then(|(graph, name)| {
        Some(SecretName { graph: graph.parse().ok()?, name: name.parse().ok()? })
    });
    let message = "after: this is not a cursor; use `next` of the page before";
    names.ok_or_else(|| Problem::new(Kind::BadQuery, message))
}
