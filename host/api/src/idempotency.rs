//! The header `Idempotency-Key` of requests that create something.
//!
//! Not here: what a key stands for, and the comparison of two requests with one key
//! (`exosphere_domain::start_digest`). Uploads, graphs and settings need no key: the same content
//! changes nothing the second time.

use axum::http::{HeaderMap, HeaderName};
use exosphere_orchestrator::Error;
use exosphere_orchestrator::domain::graph;

use crate::problem::Problem;
use crate::problem_kind::Kind;

/// The header of a key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns the key of a request, from its header or from its body. Both may name the same.
pub(crate) fn key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(in_body) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && values.next().is_none());
    let key = key.ok_or_else(|| {
        let message = "cannot read Idempotency-Key: give it once, as visible ASCII characters";
        Problem::new(Kind::BadHeader, message)
    })?;
    match in_body {
        Some(other) if other != key => Err(two_keys().into()),
        _ => Ok(Some(key.to_owned())),
    }
}

/// Refuses a key where a repeated request cannot have the answer to the first.
pub(crate) fn refuse(headers: &HeaderMap, message: &str) -> Result<(), Problem> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::new(Kind::BadHeader, message));
    }
    Ok(())
}

fn two_keys() -> Error {
    let message = "the header Idempotency-Key has another key; give the key once".to_owned();
    let problem = graph::Problem { path: "$.idempotency_key".to_owned(), message };
    Error::Invalid { subject: "the request".to_owned(), problems: vec![problem] }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_key_is_read_once_from_header_or_body() {
        let read = |in_headers: &[&'static str], in_body: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in in_headers {
                headers.append(IDEMPOTENCY_KEY, value.parse().unwrap());
            }
            let read = key(&headers, in_body.map(str::to_owned));
            read.map_err(|problem| problem.into_response().status().as_u16())
        };
        let found = |key: &str| Ok(Some(key.to_owned()));
        assert_eq!(read(&[], None), Ok(None));
        assert_eq!(read(&[], Some("a")), found("a"));
        assert_eq!(read(&["a"], None), found("a"));
        assert_eq!(read(&["a"], Some("a")), found("a"));
        assert_eq!(read(&["a"], Some("b")), Err(422));
        for invalid in [&["a", "a"][..], &[""], &["\u{fc}"]] {
            assert_eq!(read(invalid, None), Err(400), "{invalid:?}");
        }
    }
}
