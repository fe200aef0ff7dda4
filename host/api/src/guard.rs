//! Keeps browsers out of what is meant for programs: web pages of others away
//! from a host on someone's own machine, to which they would carry requests; and
//! answers, in which strangers' words stand, from being shown as a page. And holds
//! paths to one way of writing them, by which others decide who may do what.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// What every answer says of itself, unless it says otherwise: it is what it says
/// it is, nobody keeps it, and nothing in it is to be executed or loaded.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Marks an answer as one that is for programs alone.
pub(crate) async fn for_programs_alone(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().entry(name).or_insert(value);
    }
    answer
}

/// Refuses what a page of another site sends, and, if the host listens on the
/// loopback only (`local`), names that were made to point there.
pub(crate) async fn same_site(State(local): State<bool>, request: Request, next: Next) -> Response {
    match refusal(request.headers(), local) {
        None => next.run(request).await,
        Some(words) => Problem::new(StatusCode::FORBIDDEN, "other-site", words).into_response(),
    }
}

/// Refuses a path that writes in escapes whose it is. No name needs them, and what
/// stands in front of a host decides by the path as it is written.
pub(crate) async fn as_it_is_written(request: Request, next: Next) -> Response {
    if !hides_its_place(request.uri().path()) {
        return next.run(request).await;
    }
    let words =
        "a namespace, and what stands before it in the path, is written without percent-encoding";
    Problem::new(StatusCode::BAD_REQUEST, "bad-path", words).into_response()
}

/// Whether anything is escaped in `/v1/namespaces/NAME` or
/// `/v1/operator/namespaces/NAME`, with which a path begins.
fn hides_its_place(path: &str) -> bool {
    let place = if path.starts_with("/v1/operator/") { 4 } else { 3 };
    path.split('/').skip(1).take(place).any(|segment| segment.contains('%'))
}

fn refusal(headers: &HeaderMap, local: bool) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let authority = text(header::HOST).unwrap_or_default();
    if local && !authority.is_empty() && !is_loopback(authority) {
        return Some("this host listens on the loopback only and answers to no other name");
    }
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, from)| from == authority);
    (!own).then_some("requests from pages of other sites are refused")
}

fn is_loopback(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused(host: &str, origin: Option<&str>, local: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        refusal(&headers, local).is_some()
    }

    #[test]
    fn whose_a_path_is_stands_there_as_it_is() {
        for path in ["/v1/namespaces/%64efault/runs", "/v1/%6fperator/namespaces", "/%761/x"] {
            assert!(hides_its_place(path), "{path}");
        }
        assert!(hides_its_place("/v1/operator/namespaces/%64efault"));
        for path in
            ["/health", "/v1/namespaces/a/graphs/%67", "/v1/operator/namespaces/a/grants/%67"]
        {
            assert!(!hides_its_place(path), "{path}");
        }
    }

    #[test]
    fn pages_of_others_are_refused() {
        assert!(!refused("127.0.0.1:7070", None, true));
        assert!(!refused("[::1]:7070", None, true));
        assert!(!refused("localhost", Some("http://localhost"), true));
        assert!(refused("localhost:7070", Some("https://evil.example"), true));
        assert!(refused("localhost:7070", Some("null"), true));
        assert!(refused("evil.example:7070", None, true), "a name made to point here");
        assert!(!refused("exosphere.example", None, false));
        assert!(refused("exosphere.example", Some("https://evil.example"), false));
    }
}
