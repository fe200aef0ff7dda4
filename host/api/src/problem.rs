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

/// Seconds after which to retry what fails for another passing reason: a restarted database is
/// back within seconds.
const RETRY_AFTER_S: u64 = 1;

/// Seconds after which to ask a stopping host again: another may have taken its address.
const AFTER_STOPPING_S: u64 = 5;

/// An error response, as the caller sees it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    page: &'static str,
    title: &'static str,
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
    /// The methods that the path takes, for the header `Allow`.
    #[serde(skip)]
    allow: Option<&'static str>,
}

impl Problem {
    /// Creates a problem of a kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let status = kind.status();
        let is_passing =
            status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after = match kind {
            Kind::CompilerKilled => Some(AFTER_KILLED_S),
            Kind::Stopping => Some(AFTER_STOPPING_S),
            _ => is_passing.then_some(RETRY_AFTER_S),
        };
        Problem {
            page: kind.page(),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            reason: None,
            errors: Vec::new(),
            retry_after,
            allow: None,
        }
    }

    /// Creates the problem of a query with invalid parameters.
    pub(crate) fn bad_query(errors: Vec<graph::Problem>) -> Self {
        Problem::of_errors(Kind::BadQuery, "query", errors)
    }

    /// Creates the problem of a body with invalid members.
    pub(crate) fn bad_json(errors: Vec<graph::Problem>) -> Self {
        Problem::of_errors(Kind::BadJson, "body", errors)
    }

    fn of_errors(kind: Kind, subject: &str, errors: Vec<graph::Problem>) -> Self {
        let detail = match errors.as_slice() {
            [error] => format!("{}: {}", error.path, error.message),
            errors => format!("the {subject} cannot be accepted: {} problems", errors.len()),
        };
        Problem { errors, ..Problem::new(kind, detail) }
    }

    /// Returns the response with this body.
    fn respond(&self, body: &impl Serialize) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(body).unwrap_or_default();
        let media_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"exosphere\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }

    /// Sets the methods that the path takes.
    pub(crate) fn allow(self, methods: &'static str) -> Self {
        Problem { allow: Some(methods), ..self }
    }

    /// Sets the number of seconds after which to retry.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Problem { retry_after: Some(seconds), ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = Kind::from(&error);
        let (detail, reason) = (error.to_string(), error.reason());
        let quota_wait = match error {
            Error::Quota { retry_after, .. } => retry_after,
            _ => None,
        };
        let errors = match error {
            Error::Invalid { problems, .. }
            | Error::Description { problems }
            | Error::KeyReused { problems, .. } => problems,
            _ => Vec::new(),
        };
        let problem = Problem { errors, reason, ..Problem::new(kind, detail) };
        match quota_wait {
            Some(wait) => problem.retry_after(wait.as_secs() + 1),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.respond(&self);
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            response.extensions_mut().insert(InternalProblem(self));
        }
        response
    }
}

/// The problem of an internal error, as an extension of its response: the connection, which
/// knows the id of the request, adds that to the problem.
#[derive(Debug, Clone)]
struct InternalProblem(Problem);

/// A problem with the id of its request.
#[derive(Serialize)]
struct NamedProblem<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    request_id: &'a str,
}

/// Adds the id of the request to the problem of an internal error.
pub(crate) fn name_request(mut response: Response, id: &str) -> Response {
    match response.extensions_mut().remove::<InternalProblem>() {
        None => response,
        Some(InternalProblem(problem)) => {
            problem.respond(&NamedProblem { problem: &problem, request_id: id })
        }
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

    #[tokio::test]
    async fn internal_problems_name_their_request() {
        let internal = Problem::new(Kind::Internal, "x").into_response();
        let body = name_request(internal, "id-7").into_body();
        let text = axum::body::to_bytes(body, 1024).await.unwrap();
        assert!(text.ends_with(br#""request_id":"id-7"}"#), "{text:?}");
        let other = name_request(Problem::new(Kind::Conflict, "x").into_response(), "id-7");
        let text = axum::body::to_bytes(other.into_body(), 1024).await.unwrap();
        assert!(!text.windows(4).any(|part| part == b"id-7"), "{text:?}");
    }

    #[test]
    fn passing_problems_say_when_to_retry() {
        for kind in Kind::ALL {
            let response = Problem::new(*kind, "x").into_response();
            let is_passing = [429, 503].contains(&response.status().as_u16());
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                is_passing,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn every_reason_is_documented_once() {
        let documented: Vec<_> = rows("## Reasons\n").into_iter().map(|(name, _)| name).collect();
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.to_string()).collect();
        assert_eq!(documented, reasons);
    }
}
