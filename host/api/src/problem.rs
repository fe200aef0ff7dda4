//! Problem details (RFC 9457): the one shape of every error.
//!
//! Not here: the kinds of problems with their statuses (`problem_kind`), and the reasons of
//! refusals (`exosphere_domain::reason`).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Error;
use exosphere_orchestrator::domain::graph;
use exosphere_orchestrator::domain::reason::Reason;

use serde::Serialize;

use crate::problem_kind::Kind;

/// Seconds after which to retry an upload whose compilation the system killed.
const AFTER_KILLED_S: u64 = 30;

/// An error response, as the caller sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    page: &'static str,
    title: String,
    status: u16,
    detail: String,
    /// The reason, where a kind has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<graph::Problem>,
    /// Seconds until a retry, for the header `Retry-After`.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    /// Creates a problem of a kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let status = kind.status();
        Problem {
            page: kind.page(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            reason: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// Creates the problem of a query with invalid parameters.
    pub(crate) fn bad_query(errors: Vec<graph::Problem>) -> Self {
        let detail = match errors.as_slice() {
            [error] => format!("{}: {}", error.path, error.message),
            errors => format!("the query cannot be accepted: {} problems", errors.len()),
        };
        Problem { errors, ..Problem::new(Kind::BadQuery, detail) }
    }

    /// Sets the number of seconds after which to retry.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Problem { retry_after: Some(seconds), ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = Kind::from(&error);
        let retry_after = match kind {
            Kind::CompilerKilled => Some(AFTER_KILLED_S),
            // A restarted database is back within seconds.
            Kind::Unavailable => Some(1),
            _ => None,
        };
        let retry_after = match &error {
            Error::Quota { retry_after, .. } => retry_after.map(|wait| wait.as_secs() + 1),
            _ => retry_after,
        };
        let (detail, reason) = (error.to_string(), error.reason());
        let errors = match error {
            Error::Invalid { problems, .. }
            | Error::Description { problems }
            | Error::KeyReused { problems, .. } => problems,
            _ => Vec::new(),
        };
        Problem { errors, reason, retry_after, ..Problem::new(kind, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let media_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"exosphere\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PAGE: &str = include_str!("../../../docs/reference/problems.md");

    /// Returns the first two cells of each row of a section's table.
    fn rows(title: &str) -> Vec<(String, String)> {
        let (_, rest) = PAGE.split_once(title).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        cells.map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())).collect()
    }

    #[test]
    fn every_kind_is_documented_as_it_is() {
        for kind in Kind::ALL {
            let (name, status) = (kind.name(), kind.status().as_u16());
            let row = format!("| `{name}` | {status} | {} | {} |", kind.meaning(), kind.remedy());
            assert!(PAGE.contains(&row), "missing in problems.md: {row}");
        }
        assert_eq!(rows("## Kinds\n").len(), Kind::ALL.len());
    }

    #[test]
    fn every_reason_is_documented_once() {
        let documented: Vec<_> = rows("## Reasons\n").into_iter().map(|(name, _)| name).collect();
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.to_string()).collect();
        assert_eq!(documented, reasons);
    }
}
