//! `/v1/operator/keys` and `/v1/operator/audit`: keys of the API, and the changes that callers
//! made with them.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use exosphere_api_types::{
    AuditList, AuditQuery, AuditedChange, CreateKey, KeyCreated, KeyDetails, KeyList, KeyListQuery,
};
use exosphere_orchestrator::domain::access::Access;
use exosphere_orchestrator::domain::api_key::{ApiKeyId, BadApiKeyId};
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{ApiKeyRow, AuditFilter, AuditRow, Host, KeyRequest};

use crate::answer::Answer;
use crate::lists::{full_page_size, page_size};
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Delete, Get, Post};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, body, idempotency};

/// Returns the routes of keys and of the audit log.
pub(crate) fn routes() -> Vec<Route> {
    const KEYS: &str = "/v1/operator/keys";
    let all = vec![
        route(Post, KEYS, Role::Admin, QuotaClass::Write, create)
            .describe("createKey", "Creates a key, and returns it once")
            .takes::<CreateKey>()
            .details("It takes no `Idempotency-Key`: the host does not keep the secret of a key.")
            .answers::<KeyCreated>(201)
            .fails(&[Kind::BadHeader, Kind::Conflict]),
        route(Get, KEYS, Role::Admin, QuotaClass::Read, list)
            .describe("listKeys", "Lists the keys without their secrets, by id")
            .query::<KeyListQuery>()
            .answers::<KeyList>(200),
        route(Delete, "/v1/operator/keys/{key}", Role::Admin, QuotaClass::Write, revoke)
            .describe("revokeKey", "Revokes a key, on every host within a second")
            .answers::<KeyDetails>(200)
            .fails(&[Kind::NotFound, Kind::Conflict]),
        route(Get, "/v1/operator/audit", Role::Admin, QuotaClass::Read, audit)
            .describe("listChanges", "Lists the changes that callers made, the newest first")
            .details("Starts of runs are not here: each run names the key that started it.")
            .query::<AuditQuery>()
            .answers::<AuditList>(200)
            .fails(&[Kind::NotFound]),
    ];
    all.into_iter().map(Route::offloaded).collect()
}

impl From<BadApiKeyId> for Problem {
    fn from(error: BadApiKeyId) -> Self {
        Problem::new(Kind::BadPath, error.to_string())
    }
}

pub(crate) async fn create(
    State(host): State<Host>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Answer<KeyCreated>), Problem> {
    let message = "creating a key takes no Idempotency-Key, because the host does not keep its \
                   secret: leave the header out; if an answer was lost, list the keys, and revoke \
                   the one that nobody has";
    idempotency::refuse(&headers, message)?;
    let read = body::unshared(&host, &headers, body, body::MAX_SETTINGS_BYTES);
    let CreateKey { label, role, namespaces, payloads, requests_per_second, expires_in_ms } =
        read.await?;
    let access = Access { role, namespaces, payloads };
    let request = KeyRequest { label, access, requests_per_second, expires_in_ms };
    let created = host.create_key(request).await?;
    let key = created.key.expose().to_owned();
    Ok((StatusCode::CREATED, Answer(KeyCreated { key, details: details(created.row) })))
}

pub(crate) async fn list(
    State(host): State<Host>,
    Query(KeyListQuery { after, limit }): Query<KeyListQuery>,
) -> Result<Answer<KeyList>, Problem> {
    let after = after.map(|id| id.parse()).transpose();
    let after = after
        .map_err(|error: BadApiKeyId| Problem::new(Kind::BadQuery, format!("after: {error}")))?;
    let page = host.keys(after, full_page_size(limit)).await?;
    let keys = page.items.into_iter().map(details).collect();
    Ok(Answer(KeyList { keys, next: page.next }))
}

pub(crate) async fn revoke(
    State(host): State<Host>,
    Path(id): Path<String>,
) -> Result<Answer<KeyDetails>, Problem> {
    let id: ApiKeyId = id.parse()?;
    Ok(Answer(details(host.revoke_key(id).await?)))
}

pub(crate) async fn audit(
    State(host): State<Host>,
    Query(query): Query<AuditQuery>,
) -> Result<Answer<AuditList>, Problem> {
    let AuditQuery { key, namespace, action, before, limit } = query;
    let filter = AuditFilter { before, key, namespace, action, limit: page_size(limit) };
    let page = host.audit(&filter).await?;
    let changes = page.items.into_iter().map(change).collect();
    Ok(Answer(AuditList { changes, next: page.next }))
}

fn details(row: ApiKeyRow) -> KeyDetails {
    KeyDetails {
        id: row.id.to_string(),
        label: row.label,
        role: row.access.role,
        namespaces: row.access.namespaces,
        payloads: row.access.payloads,
        requests_per_second: row.requests_per_second,
        created_at: row.created_at,
        expires_at: row.expires_at,
        used_at: row.used_at,
        revoked_at: row.revoked_at,
    }
}

fn change(row: AuditRow) -> AuditedChange {
    AuditedChange {
        at: row.at,
        key: row.key,
        address: row.address,
        action: row.action,
        namespace: row.namespace.map(String::from),
        object: row.object,
        before: row.before,
        after: row.after,
    }
}
