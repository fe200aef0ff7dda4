//! Entity tags (RFC 9110): the `ETag` of a response is the version of the setting that
//! it shows. A request with `If-Match` changes the setting only if that is still its
//! version, so a read-modify-write loses no concurrent change. `If-None-Match: *` makes a setting
//! only if it does not exist.

use std::fmt::Display;

use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Expected;
use exosphere_orchestrator::domain::ids::Digest;
use serde::Serialize;

use crate::answer::Answer;
use crate::problem::Problem;
use crate::problem_kind::Kind;

/// Returns a response with the version of the setting that it shows.
pub(crate) fn with_etag(version: Digest, answer: impl Serialize) -> Response {
    (etag(version), Answer(answer)).into_response()
}

/// Returns the header `ETag` of a version.
pub(crate) fn etag(version: impl Display) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// Reads the expected version from `If-Match` or `If-None-Match`.
pub(crate) fn expected_versions(headers: &HeaderMap) -> Result<Expected, BadIfMatch> {
    let mut versions = Vec::new();
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    let mut excluded = headers.get_all(header::IF_NONE_MATCH).iter();
    match (excluded.next(), excluded.next(), values.peek()) {
        (None, _, None) => return Ok(Expected::Anything),
        (None, _, Some(_)) => {}
        (Some(any), None, None) if any == ANY => return Ok(Expected::Absent),
        _ => return Err(BadIfMatch),
    }
    for value in values {
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == ANY {
                return Ok(Expected::Existing);
            }
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let quoted = quoted.ok_or(BadIfMatch)?;
            // A weak tag does not promise equal bytes; a tag that is not a digest is
            // not from this host.
            versions.extend(quoted.parse::<Digest>().ok().filter(|_| strong == tag));
        }
    }
    Ok(Expected::OneOf(versions))
}

/// The tag of every version.
const ANY: &str = "*";

/// An `If-Match` header that cannot be read.
#[derive(Debug)]
pub(crate) struct BadIfMatch;

impl From<BadIfMatch> for Problem {
    fn from(_: BadIfMatch) -> Self {
        let message = "cannot read If-Match: it takes the value of an ETag, in its quotation marks, \
                       or *; If-None-Match takes * alone, and not beside If-Match";
        Problem::new(Kind::BadHeader, message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn if_match_lists_the_expected_versions() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().unwrap());
            }
            expected_versions(&headers).ok()
        };
        let [a, b] = [b"a", b"b"].map(|bytes| Digest::from_content(bytes));
        let one_of = |versions: &[Digest]| Some(Expected::OneOf(versions.to_vec()));
        assert_eq!(read(&[]), Some(Expected::Anything));
        assert_eq!(read(&["*"]), Some(Expected::Existing));
        assert_eq!(read(&[&format!("\"{a}\"")]), one_of(&[a]));
        assert_eq!(read(&[&format!("\"{a}\", \"x\""), &format!("\"{b}\"")]), one_of(&[a, b]));
        assert_eq!(read(&[&format!("W/\"{a}\"")]), one_of(&[]), "weak tags match nothing");
        for invalid in ["", "x", "\"", &a.to_string(), "\"x\", y"] {
            assert_eq!(read(&[invalid]), None, "{invalid}");
        }
    }
    #[test]
    fn if_none_match_takes_every_version_alone() {
        let read = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            expected_versions(&headers).ok()
        };
        assert_eq!(read(&[("if-none-match", "*")]), Some(Expected::Absent));
        for invalid in [
            &[("if-none-match", "\"x\"")][..],
            &[("if-none-match", "*"), ("if-none-match", "*")],
            &[("if-none-match", "*"), ("if-match", "*")],
        ] {
            assert_eq!(read(invalid), None, "{invalid:?}");
        }
    }
}
