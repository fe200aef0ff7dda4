//! Keeps browsers out of an API for programs. Pages of other sites cannot reach a host
//! on the user's own machine, and responses, which contain untrusted text, are not
//! rendered as pages. It also enforces one spelling of paths, because a proxy
//! authorizes requests by the path.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use crate::problem::Problem;

/// Default headers of every response: no sniffing of its type, no caching, no scripts
/// and no resources.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Adds the default headers to a response.
pub(crate) fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(value);
    }
}

/// Refuses a namespace path with percent-encoding: no name needs it, and a proxy
/// authorizes by the path as written. Also refuses a request that does not name its
/// host exactly once, and a request from a page of another site. If the host listens on
/// the loopback only (`local`), it refuses other DNS names that point there.
pub(crate) fn reject(uri: &Uri, headers: &HeaderMap, local: bool) -> Option<Problem> {
    if has_encoded_namespace(uri.path()) {
        let words = "a namespace, and what stands before it in the path, is written without \
                     percent-encoding";
        return Some(Problem::new(StatusCode::BAD_REQUEST, "bad-path", words));
    }
    reject_cross_site(uri, headers, local)
}

/// Tells whether a leading `/v1/namespaces/NAME` or `/v1/operator/namespaces/NAME` is
/// percent-encoded.
fn has_encoded_namespace(path: &str) -> bool {
    let place = if path.starts_with("/v1/operator/") { 4 } else { 3 };
    path.split('/').skip(1).take(place).any(|segment| segment.contains('%'))
}

fn reject_cross_site(uri: &Uri, headers: &HeaderMap, local: bool) -> Option<Problem> {
    let Some(authority) = authority(uri, headers) else {
        let words = "a request names its host once, in the header `Host` as HTTP/1.1 has it, and \
                     nowhere another one";
        return Some(Problem::new(StatusCode::BAD_REQUEST, "bad-host", words));
    };
    let of_others = |words| Some(Problem::new(StatusCode::FORBIDDEN, "other-site", words));
    if local && !is_loopback(authority.host()) {
        return of_others("this host listens on the loopback only and answers to no other name");
    }
    let own = match only(headers, &header::ORIGIN) {
        Given::Nothing => None,
        Given::Text(origin) => Some(is_origin(origin, &authority)),
        Given::Unclear => Some(false),
    };
    let is_ours = match only(headers, &SEC_FETCH_SITE) {
        // Not a browser, or an old one, which sends `Origin` where it matters.
        Given::Nothing => own.unwrap_or(true),
        Given::Text("same-origin" | "none") => own.unwrap_or(true),
        // Another page of the same site is trusted only if its origin matches.
        Given::Text("same-site") => own.unwrap_or(false),
        Given::Text(_) | Given::Unclear => false,
    };
    if is_ours { None } else { of_others("requests from pages of other sites are refused") }
}

/// The header by which browsers tell the origin of a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A header that may occur once.
enum Given<'a> {
    Nothing,
    Text(&'a str),
    /// It occurs twice, or is not text.
    Unclear,
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Given<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Given::Nothing,
        (Some(Ok(text)), None) => Given::Text(text),
        _ => Given::Unclear,
    }
}

/// Returns the authority that a request names, if it names exactly one. A request line
/// with a whole URL must name the same host.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let Given::Text(host) = only(headers, &header::HOST) else { return None };
    let authority: Authority = host.parse().ok()?;
    let is_plain = !authority.host().is_empty() && !authority.as_str().contains('@');
    let is_same = uri.authority().is_none_or(|line| *line == authority);
    (is_plain && is_same).then_some(authority)
}

fn is_origin(origin: &str, authority: &Authority) -> bool {
    origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(authority.as_str()))
}

fn is_loopback(name: &str) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::response::IntoResponse;

    use super::*;

    fn refused(host: &str, origin: Option<&str>, local: bool) -> bool {
        let origin = origin.map(|origin| ("origin", origin));
        let headers: Vec<_> = [("host", host)].into_iter().chain(origin).collect();
        status("/health", &headers, local) == Some(403)
    }

    fn status(uri: &str, given: &[(&'static str, &str)], local: bool) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let problem = reject(&uri.parse().unwrap(), &headers, local)?;
        Some(problem.into_response().status().as_u16())
    }

    #[test]
    fn an_unclear_host_is_refused() {
        let own = ("host", "localhost:7070");
        assert_eq!(status("/health", &[own], true), None);
        assert_eq!(status("http://LOCALHOST:7070/health", &[own], true), None);
        for bad in ["", " ", "a b", "user@localhost:7070", "\u{fc}", ":7070", "localhost:7070, x"] {
            assert_eq!(status("/health", &[("host", bad)], true), Some(400), "{bad:?}");
            assert_eq!(status("/health", &[("host", bad)], false), Some(400), "{bad:?}");
        }
        assert_eq!(status("/health", &[], true), Some(400), "none");
        assert_eq!(status("/health", &[own, own], true), Some(400), "two");
        assert_eq!(status("http://evil.example/health", &[own], true), Some(400));
        let evil = [("host", "evil.example")];
        assert_eq!(status("http://evil.example/health", &evil, true), Some(403));
    }

    #[test]
    fn fetches_of_other_sites_are_refused() {
        let from = |site, origin: Option<&'static str>| {
            let mut given = vec![("host", "localhost:7070"), ("sec-fetch-site", site)];
            given.extend(origin.map(|origin| ("origin", origin)));
            status("/v1/namespaces/default/runs", &given, true)
        };
        let own = Some("http://localhost:7070");
        assert_eq!(from("none", None), None);
        assert_eq!(from("same-origin", None), None);
        assert_eq!(from("same-origin", own), None);
        assert_eq!(from("same-site", own), None);
        for site in ["same-site", "cross-site", "", "other", "\u{fc}"] {
            assert_eq!(from(site, None), Some(403), "{site}");
        }
        assert_eq!(from("cross-site", own), Some(403));
        assert_eq!(from("same-origin", Some("http://localhost:8080")), Some(403));
    }

    #[test]
    fn whose_a_path_is_stands_there_as_it_is() {
        for path in ["/v1/namespaces/%64efault/runs", "/v1/%6fperator/namespaces", "/%761/x"] {
            assert!(has_encoded_namespace(path), "{path}");
        }
        assert!(has_encoded_namespace("/v1/operator/namespaces/%64efault"));
        for path in
            ["/health", "/v1/namespaces/a/graphs/%67", "/v1/operator/namespaces/a/grants/%67"]
        {
            assert!(!has_encoded_namespace(path), "{path}");
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
