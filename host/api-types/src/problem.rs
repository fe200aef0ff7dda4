//! Problem details (RFC 9457): the one shape of every error.

use std::fmt;

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document: the reason why a request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Problem {
    /// The kind of the problem, a stable word for programs: `/problems/KIND`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of the status code.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// The problem and its remedy, for people.
    pub detail: String,
    /// The reason, a stable word for programs. Absent if the kind has only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every mistake in the content of the request. Absent for a problem of another kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemItem>,
    /// The id of the request. Absent unless the error is internal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Typed for Problem {}

/// One of several mistakes in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProblemItem {
    /// The JSON path of the mistake: `$.nodes[2].inputs.text`.
    pub path: String,
    /// The mistake and its remedy.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.detail.is_empty() { &self.title } else { &self.detail })?;
        for ProblemItem { path, message } in &self.errors {
            write!(f, "\n  {path}: {message}")?;
        }
        Ok(())
    }
}
