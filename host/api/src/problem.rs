//! Problem details (RFC 9457): the one shape of every error.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::domain::graph;
use exosphere_orchestrator::{AdmissionError, Error};
use serde::Serialize;

/// Seconds after which to retry an upload whose compilation the system killed.
const AFTER_KILLED_S: u64 = 30;

/// An error response, as the caller sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    /// The kind of refusal, where a status has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<graph::Problem>,
    /// Seconds until a retry, for the header `Retry-After`.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    /// Makes a problem of a kind, which is a stable word for programs.
    pub(crate) fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:exosphere:problem:{kind}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            reason: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// Sets the number of seconds after which to retry.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Problem { retry_after: Some(seconds), ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, kind) = match &error {
            Error::NotFound { .. } => (StatusCode::NOT_FOUND, "not-found"),
            Error::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Error::Plugin(AdmissionError::Killed { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "compiler-killed")
            }
            Error::Plugin(_) | Error::Description { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "plugin-refused")
            }
            Error::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Error::Changed { .. } => (StatusCode::PRECONDITION_FAILED, "changed"),
            Error::KeyReused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "key-reused"),
            Error::Unavailable | Error::Unanswered { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let retry_after = match &error {
            Error::Plugin(AdmissionError::Killed { .. }) => Some(AFTER_KILLED_S),
            // A restarted database is back within seconds.
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        };
        let (detail, reason) = (error.to_string(), error.reason());
        let errors = match error {
            Error::Invalid { problems, .. }
            | Error::Description { problems }
            | Error::KeyReused { problems, .. } => problems,
            _ => Vec::new(),
        };
        Problem { errors, reason, retry_after, ..Problem::new(status, kind, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
