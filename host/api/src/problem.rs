//! Problem details (RFC 9457): the one shape of every error, and the kinds of problems with
//! their statuses. `docs/reference/problems.md` describes each; a test holds it to the list.
//!
//! Not here: the reasons of refusals (`exosphere_domain::reason`).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::domain::graph;
use exosphere_orchestrator::domain::reason::Reason;
use exosphere_orchestrator::{AdmissionError, Error};
use serde::Serialize;

/// Seconds after which to retry an upload whose compilation the system killed.
const AFTER_KILLED_S: u64 = 30;

/// Declares the kinds of problems, each with its status and its name for programs.
macro_rules! kinds {
    ($($kind:ident $status:ident $name:literal;)*) => {
        /// The kind of a problem. Its name is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind, in the order of the list.
            #[cfg(test)]
            const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Returns the HTTP status.
            fn status(self) -> StatusCode {
                match self { $(Kind::$kind => StatusCode::$status,)* }
            }

            /// Returns the type of the problem document.
            fn urn(self) -> &'static str {
                match self { $(Kind::$kind => concat!("urn:exosphere:problem:", $name),)* }
            }
        }
    };
}

kinds! {
    BadPath BAD_REQUEST "bad-path";
    BadQuery BAD_REQUEST "bad-query";
    BadHeader BAD_REQUEST "bad-header";
    BadHost BAD_REQUEST "bad-host";
    BadJson BAD_REQUEST "bad-json";
    BrokenBody BAD_REQUEST "broken-body";
    OtherSite FORBIDDEN "other-site";
    NotFound NOT_FOUND "not-found";
    NoSuchRoute NOT_FOUND "no-such-route";
    NoSuchMethod METHOD_NOT_ALLOWED "no-such-method";
    TooSlow REQUEST_TIMEOUT "too-slow";
    Conflict CONFLICT "conflict";
    Changed PRECONDITION_FAILED "changed";
    TooLarge PAYLOAD_TOO_LARGE "too-large";
    TooManyValues PAYLOAD_TOO_LARGE "too-many-values";
    Invalid UNPROCESSABLE_ENTITY "invalid";
    KeyReused UNPROCESSABLE_ENTITY "key-reused";
    PluginRefused UNPROCESSABLE_ENTITY "plugin-refused";
    TooManyUploads TOO_MANY_REQUESTS "too-many-uploads";
    Internal INTERNAL_SERVER_ERROR "internal";
    CompilerKilled SERVICE_UNAVAILABLE "compiler-killed";
    Full SERVICE_UNAVAILABLE "full";
    Unavailable SERVICE_UNAVAILABLE "unavailable";
}

impl From<&Error> for Kind {
    fn from(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Kind::NotFound,
            Error::Invalid { .. } => Kind::Invalid,
            Error::Plugin(AdmissionError::Killed { .. }) => Kind::CompilerKilled,
            Error::Plugin(_) | Error::Description { .. } => Kind::PluginRefused,
            Error::Conflict(_) => Kind::Conflict,
            Error::Changed { .. } => Kind::Changed,
            Error::KeyReused { .. } => Kind::KeyReused,
            Error::Unavailable | Error::Unanswered { .. } => Kind::Unavailable,
            Error::Internal(_) => Kind::Internal,
        }
    }
}

/// An error response, as the caller sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    urn: &'static str,
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
            urn: kind.urn(),
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
        let kind = Kind::from(&error);
        let retry_after = match kind {
            Kind::CompilerKilled => Some(AFTER_KILLED_S),
            // A restarted database is back within seconds.
            Kind::Unavailable => Some(1),
            _ => None,
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
    fn every_kind_is_documented_with_its_status() {
        let documented = rows("## Kinds\n");
        let name = |kind: &Kind| kind.urn().rsplit(':').next().unwrap().to_owned();
        let kinds: Vec<_> =
            Kind::ALL.iter().map(|kind| (name(kind), kind.status().as_u16().to_string())).collect();
        assert_eq!(documented, kinds);
    }

    #[test]
    fn every_reason_is_documented_once() {
        let documented: Vec<_> = rows("## Reasons\n").into_iter().map(|(name, _)| name).collect();
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.to_string()).collect();
        assert_eq!(documented, reasons);
    }
}
