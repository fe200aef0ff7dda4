//! `/v1/operator/keys`: keys of the API, and `/v1/operator/audit`.

use exosphere_domain::access::NamespaceScope;
use exosphere_domain::ids::Name;
use exosphere_domain::json::Typed;
use exosphere_domain::role::Role;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A request for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// The purpose of the key, in 1 to 128 characters.
    pub label: String,
    /// The role of the key.
    pub role: Role,
    /// The namespaces that the key is valid for; `["*"]` for all of them.
    #[schema(value_type = Vec<String>)]
    pub namespaces: NamespaceScope,
    /// Set if the key may see payloads: inputs, outputs, logs and entries of stores
    /// [default: false].
    #[serde(default)]
    pub payloads: bool,
    /// The number of requests a second that a host takes with the key; null or absent for the
    /// host's default.
    #[serde(default)]
    pub requests_per_second: Option<u32>,
    /// The time after which the key expires, in milliseconds; null or absent if it does not.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyDetails {
    /// The id of the key: its part between `exo_` and the next `_`.
    pub id: String,
    /// The purpose of the key.
    pub label: String,
    /// The role of the key.
    pub role: Role,
    /// The namespaces that the key is valid for; `["*"]` for all of them.
    #[schema(value_type = Vec<String>)]
    pub namespaces: NamespaceScope,
    /// Set if the key may see payloads.
    pub payloads: bool,
    /// The number of requests a second that a host takes with the key; null for the host's
    /// default.
    #[serde(default)]
    pub requests_per_second: Option<u32>,
    /// The time at which the key was created, in milliseconds since 1970 (UTC).
    pub created_at: i64,
    /// The time from which the key is refused; null if it does not expire.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// The time of the last use, to the minute; null if there was none.
    #[serde(default)]
    pub used_at: Option<i64>,
    /// The time at which the key was revoked; null if it was not.
    #[serde(default)]
    pub revoked_at: Option<i64>,
}

/// A new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyCreated {
    /// The key itself. It is shown once: the host stores a digest.
    pub key: String,
    /// The key as lists show it.
    #[serde(flatten)]
    pub details: KeyDetails,
}

/// A page of the keys, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The keys of this page.
    pub keys: Vec<KeyDetails>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// The query parameters of the list of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeyListQuery {
    /// The cursor: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The query parameters of the audit log: filters and page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only changes with the key of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only changes in this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Only changes of this kind, for example `graph apply`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The cursor: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 50].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of the audit log, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The changes of this page.
    pub changes: Vec<AuditedChange>,
    /// The cursor of the next page, for `before`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A change that a caller made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditedChange {
    /// The time of the change, in milliseconds since 1970 (UTC).
    pub at: i64,
    /// The id of the caller's key; null if the host asked for none.
    #[serde(default)]
    pub key: Option<String>,
    /// The address of the caller.
    #[serde(default)]
    pub address: Option<String>,
    /// The change: `graph apply`, `run cancel`..
    pub action: String,
    /// The namespace of the changed object; null if it is in none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The changed object.
    pub object: String,
    /// The digest of the object before the change; null if there is none.
    #[serde(default)]
    pub before: Option<String>,
    /// The digest of the object after the change; null if there is none.
    #[serde(default)]
    pub after: Option<String>,
}

impl Typed for CreateKey {}
impl Typed for KeyDetails {}
impl Typed for KeyCreated {}
impl Typed for KeyList {}
impl Typed for AuditList {}
impl Typed for KeyListQuery {}
impl Typed for AuditQuery {}
