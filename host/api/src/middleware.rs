//! Checks of every request before routing, and the security headers of every response.
//! They keep browsers out of an API for programs: pages of other sites cannot reach a host
//! on the user's own machine, and responses, which contain untrusted text, are not
//! rendered as pages. Paths have one spelling, because access control reads the namespace from the
//! path.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::problem::Problem;
use crate::problem_kind::Kind;

/// Security headers of every response: no sniffing of its type, no caching, no scripts
/// and no resources.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Adds the security headers to a response, unless it has its own.
pub(crate) fn add_security_headers(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(value);
    }
}

/// Returns the problem of a request that is rejected before routing, if any. It is rejected if
/// its path encodes the namespace, if it does not name exactly one host, or if it comes from a
/// page of another site. If the host listens only on the loopback (`local`), it must be named
/// by a loopback address or `localhost`, because any DNS name may resolve to it.
pub(crate) fn reject(uri: &Uri, headers: &HeaderMap, local: bool) -> Option<Problem> {
    reject_encoded_namespace(uri).or_else(|| reject_cross_site(uri, headers, local))
}

/// Rejects a namespace that is percent-encoded: no name needs it, and access is decided by
/// the path as written.
fn reject_encoded_namespace(uri: &Uri) -> Option<Problem> {
    let message = "the path is percent-encoded up to its namespace; write it plainly";
    has_encoded_namespace(uri.path()).then(|| Problem::new(Kind::BadPath, message))
}

/// Returns whether a leading `/v1/namespaces/NAME` or `/v1/operator/namespaces/NAME` is
/// percent-encoded.
fn has_encoded_namespace(path: &str) -> bool {
    let segments = if path.starts_with("/v1/operator/") { 4 } else { 3 };
    path.split('/').skip(1).take(segments).any(|segment| segment.contains('%'))
}

/// Rejects a request that comes from a page of another site, or names another host.
fn reject_cross_site(uri: &Uri, headers: &HeaderMap, local: bool) -> Option<Problem> {
    let Some(authority) = authority(uri, headers) else {
        let message = "the request does not name its host exactly once; send one header `Host`, \
                     and no other host in the request line";
        return Some(Problem::new(Kind::BadHost, message));
    };
    let forbidden = |message| Some(Problem::new(Kind::OtherSite, message));
    if local && !is_loopback(authority.host()) {
        return forbidden(
            "this host listens on the loopback only; name it 127.0.0.1, [::1] or localhost",
        );
    }
    let is_same_origin = match single(headers, &header::ORIGIN) {
        SingleHeader::Absent => None,
        SingleHeader::Text(origin) => Some(is_origin(origin, &authority)),
        SingleHeader::Unclear => Some(false),
    };
    let is_same_site = match single(headers, &SEC_FETCH_SITE) {
        // The client is not a browser, or it is an old one, which sends `Origin` where it
        // matters.
        SingleHeader::Absent => is_same_origin.unwrap_or(true),
        SingleHeader::Text("same-origin" | "none") => is_same_origin.unwrap_or(true),
        // Another page of the same site is trusted only if its origin matches.
        SingleHeader::Text("same-site") => is_same_origin.unwrap_or(false),
        SingleHeader::Text(_) | SingleHeader::Unclear => false,
    };
    if is_same_site { None } else { forbidden("requests from pages of other sites are refused") }
}

/// The header in which browsers say which site a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A header that may occur once.
enum SingleHeader<'a> {
    Absent,
    Text(&'a str),
    /// The header occurs twice, or is not text.
    Unclear,
}

/// Returns the value of a header that may occur once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> SingleHeader<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => SingleHeader::Absent,
        (Some(Ok(text)), None) => SingleHeader::Text(text),
        _ => SingleHeader::Unclear,
    }
}

/// Returns the authority that a request names, if it names exactly one. A request line
/// with a whole URL must name the same host.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let SingleHeader::Text(host) = single(headers, &header::HOST) else { return None };
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

    fn status(uri: &str, request_headers: &[(&'static str, &str)], local: bool) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in request_headers {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let problem = reject(&uri.parse().unwrap(), &headers, local)?;
        Some(problem.into_response().status().as_u16())
    }

    #[test]
    fn an_unclear_host_is_rejected() {
        let host_header = ("host", "localhost:7070");
        assert_eq!(status("/health", &[host_header], true), None);
        assert_eq!(status("http://LOCALHOST:7070/health", &[host_header], true), None);
        for invalid in
            ["", " ", "a b", "user@localhost:7070", "\u{fc}", ":7070", "localhost:7070, x"]
        {
            assert_eq!(status("/health", &[("host", invalid)], true), Some(400), "{invalid:?}");
            assert_eq!(status("/health", &[("host", invalid)], false), Some(400), "{invalid:?}");
        }
        assert_eq!(status("/health", &[], true), Some(400), "none");
        assert_eq!(status("/health", &[host_header, host_header], true), Some(400), "two");
        assert_eq!(status("http://evil.example/health", &[host_header], true), Some(400));
        let foreign_host = [("host", "evil.example")];
        assert_eq!(status("http://evil.example/health", &foreign_host, true), Some(403));
    }

    #[test]
    fn fetches_of_other_sites_are_rejected() {
        let from = |site, origin: Option<&'static str>| {
            let mut headers = vec![("host", "localhost:7070"), ("sec-fetch-site", site)];
            headers.extend(origin.map(|origin| ("origin", origin)));
            status("/v1/namespaces/default/runs", &headers, true)
        };
        let own_origin = Some("http://localhost:7070");
        assert_eq!(from("none", None), None);
        assert_eq!(from("same-origin", None), None);
        assert_eq!(from("same-origin", own_origin), None);
        assert_eq!(from("same-site", own_origin), None);
        for site in ["same-site", "cross-site", "", "other", "\u{fc}"] {
            assert_eq!(from(site, None), Some(403), "{site}");
        }
        assert_eq!(from("cross-site", own_origin), Some(403));
        assert_eq!(from("same-origin", Some("http://localhost:8080")), Some(403));
    }

    #[test]
    fn percent_encoded_namespaces_are_rejected() {
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
    fn pages_of_other_sites_are_rejected() {
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
