//! `/secrets`: set, list, remove. Values are sent and never answered.

use std::fmt;

use exosphere_domain::ids::Name;
use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The value of a secret, as a caller sends it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The value, at most 65,536 bytes.
    pub value: String,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue")
    }
}

/// The query parameters of a list of secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SecretListQuery {
    /// The cursor: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of the secrets of a namespace, by graph and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// The secrets of this page.
    pub secrets: Vec<SecretEntry>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretEntry {
    /// The graph that the secret belongs to.
    #[schema(value_type = String)]
    pub graph: Name,
    /// The name of the secret.
    #[schema(value_type = String)]
    pub name: Name,
}

impl Typed for SecretValue {}
impl Typed for SecretList {}
impl Typed for SecretEntry {}
impl Typed for SecretListQuery {}
