//! `/health`, `/healthz` and `/readyz`.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::known::or_default;

/// The answer of a healthy host. An unhealthy one answers with a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or `stopping` while the host lets its running nodes end: it answers reads, and starts
    /// no runs.
    pub status: String,
    /// The version of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
}

impl Typed for Health {}

/// The answer to a probe that succeeds. Another one is answered with a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeAnswer {
    /// `ok` or `ready`.
    pub status: String,
}
