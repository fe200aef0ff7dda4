//! The headers of a request: the guest's, without those that would change the request. Such
//! headers frame messages, name the host, or turn the request into a different one than was
//! compared with the grant.

use exosphere_domain::trace::is_traceparent;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use wasmtime_wasi_http::Error;

/// The header by which an outside system recognizes repeated work.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The headers of a trace (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The maximum number of headers in a request, and in a response.
pub(super) const MAX_HEADERS: usize = 100;

/// Maximum bytes of all headers that a guest puts together, with their overhead in memory. A
/// guest may hold as many header lists as it has handles.
pub(super) const MAX_FIELDS_BYTES: usize = 16 * 1024;

/// The message to a guest whose headers are larger than [`MAX_FIELDS_BYTES`].
pub(crate) const HEADERS_TOO_LARGE: &str = "the node's headers of one request are larger than \
    16 KiB together, which is the same for every node and cannot be changed; send less in \
    headers, or send it in the body";

/// Hop-by-hop headers, and headers that the host sets. `Content-Length` is the guest's
/// own: the engine compares it with the body that the guest writes.
const HOST_HEADERS: [HeaderName; 9] = [
    CONNECTION,
    EXPECT,
    HOST,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that make a proxy, a server or a framework treat a request as a different one: with
/// another path, method, host or sender. With them, a grant of one path or method would grant
/// any other.
const OVERRIDE_HEADERS: &[&str] = &[
    // Override the path.
    "x-http-destinationurl",
    "x-proxy-url",
    "x-mashape-proxy-url",
    "x-url",
    "x-target-url",
    "x-path",
    "x-route",
    "x-script-name",
    "x-amzn-request-path",
    "base-url",
    "destination",
    // Override the method.
    "x-method",
    "x-verb",
    "x-original-method",
    "x-requested-method",
    "-method",
    // Override the host.
    "x-host",
    "x-backend-host",
    // Override the sender and the route.
    "forwarded",
    "forwarded-for",
    "via",
    "client-ip",
    "true-client-ip",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-originating-ip",
    "x-proxyuser-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    // Override the scheme.
    "x-scheme",
    "x-url-scheme",
    "x-forward-proto",
    "front-end-https",
];

/// Prefixes of the names of further headers that override the request.
const OVERRIDE_PREFIXES: &[&str] = &["proxy-", "x-forwarded", "x-envoy-", "x-middleware-"];

/// Parts of the names of further such headers.
const OVERRIDE_PARTS: &[&str] = &[
    "override",
    "rewrite",
    "original-ur",
    "original-path",
    "original-host",
    "http-method",
    "http-verb",
    "http-url",
    "request-ur",
];

/// Returns whether a guest may neither set nor read a header. The idempotency key is
/// forbidden if the host sends it.
pub(super) fn is_forbidden(name: &HeaderName, has_key: bool) -> bool {
    // CGI and its successors do not distinguish an underscore (or dot) from a hyphen.
    let normalized: String = name.as_str().chars().map(hyphen).collect();
    let is_key = has_key && normalized == IDEMPOTENCY_KEY.as_str();
    let is_length = normalized == CONTENT_LENGTH.as_str() && *name != CONTENT_LENGTH;
    is_key
        || is_length
        || HOST_HEADERS.iter().any(|header| normalized == header.as_str())
        || OVERRIDE_HEADERS.contains(&normalized.as_str())
        || OVERRIDE_PREFIXES.iter().any(|beginning| normalized.starts_with(beginning))
        || OVERRIDE_PARTS.iter().any(|part| normalized.contains(part))
}

fn hyphen(letter: char) -> char {
    if letter.is_ascii_alphanumeric() { letter } else { '-' }
}

/// Replaces the guest's trace context by the host's, if there is one. Without it, the guest's own
/// stays if it is valid, as W3C Trace Context demands of those who pass it on.
fn set_trace(guest: &mut HeaderMap, traceparent: Option<HeaderValue>) {
    if let Some(traceparent) = traceparent {
        guest.remove(TRACESTATE);
        guest.insert(TRACEPARENT, traceparent);
        return;
    }
    let mut own = guest.get_all(TRACEPARENT).iter();
    let is_valid =
        own.next().is_some_and(|it| is_traceparent(it.as_bytes())) && own.next().is_none();
    if !is_valid {
        guest.remove(TRACEPARENT);
        guest.remove(TRACESTATE);
    }
}

/// The headers that the host adds to a request.
pub(super) struct HostHeaders {
    pub(super) host: HeaderValue,
    pub(super) idempotency_key: Option<HeaderValue>,
    pub(super) traceparent: Option<HeaderValue>,
}

/// Merges the guest's headers and the host's into those that are sent.
///
/// # Errors
/// If there are too many headers, or if a guest's header is reserved for the host.
pub(super) fn outgoing(mut guest: HeaderMap, of_host: HostHeaders) -> Result<HeaderMap, Error> {
    let HostHeaders { host, idempotency_key, traceparent } = of_host;
    if guest.len() > MAX_HEADERS {
        return Err(Error::HttpRequestHeaderSectionSize(u32::try_from(guest.len()).ok()));
    }
    let is_host_header = |name: &HeaderName| is_forbidden(name, idempotency_key.is_some());
    if guest.keys().any(is_host_header) {
        return Err(Error::HttpRequestDenied);
    }
    set_trace(&mut guest, traceparent);
    let mut headers = HeaderMap::with_capacity(guest.len() + 3);
    headers.insert(HOST, host);
    // Connections are not reused, so the server need not wait for another request.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.extend(guest);
    if let Some(key) = idempotency_key {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of_host(idempotency_key: Option<&'static str>) -> HostHeaders {
        let idempotency_key = idempotency_key.map(HeaderValue::from_static);
        HostHeaders {
            host: HeaderValue::from_static("a.example"),
            idempotency_key,
            traceparent: None,
        }
    }

    fn headers(names: &[&'static str]) -> HeaderMap {
        let value = HeaderValue::from_static("x");
        names.iter().map(|name| (name.parse().unwrap(), value.clone())).collect()
    }

    #[test]
    fn oversized_headers_name_the_limit() {
        assert!(
            HEADERS_TOO_LARGE.contains(&format!(" {} KiB ", MAX_FIELDS_BYTES / 1024)),
            "{HEADERS_TOO_LARGE}"
        );
    }

    #[test]
    fn host_headers_never_come_from_the_guest() {
        let sent = outgoing(headers(&["accept", "x-a"]), of_host(Some("k/1"))).unwrap();
        assert_eq!(sent.len(), 5);
        assert!(sent["host"] == "a.example" && sent["idempotency-key"] == "k/1", "{sent:?}");
        assert!(outgoing(headers(&["idempotency-key"]), of_host(Some("k/1"))).is_err());
        assert!(outgoing(headers(&["idempotency-key"]), of_host(None)).is_ok());
        for name in [
            "connection",
            "transfer-encoding",
            "upgrade",
            "te",
            "trailer",
            "keep-alive",
            "host",
            "proxy-authorization",
            "proxy-connection",
            "proxy-anything",
            "expect",
            "http2-settings",
            "transfer_encoding",
            "content_length",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "method-override",
            "x-override-method",
            "x-http-verb",
            "x-url",
            "x-ms-original-url",
            "x-request-url",
            "_method",
            "x-url-scheme",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded",
            "x_forwarded_prefix",
            "x.original.url",
            "forwarded",
            "x-real-ip",
            "x-host",
        ] {
            assert!(outgoing(headers(&[name]), of_host(None)).is_err(), "{name}");
        }
    }

    #[test]
    fn ordinary_headers_pass() {
        for name in [
            "accept",
            "authorization",
            "content-length",
            "cookie",
            "if-match",
            "referer",
            "user-agent",
            "x-api-key",
            "x-request-id",
            "x-correlation-id",
            "origin",
            "range",
        ] {
            assert!(outgoing(headers(&[name]), of_host(None)).is_ok(), "{name}");
        }
    }

    #[test]
    fn too_many_headers_are_refused() {
        let headers_of = |count: usize| {
            (0..count)
                .map(|n| (format!("x-{n}").parse().unwrap(), HeaderValue::from_static("x")))
                .collect::<HeaderMap>()
        };
        assert!(outgoing(headers_of(MAX_HEADERS), of_host(None)).is_ok());
        assert!(outgoing(headers_of(MAX_HEADERS + 1), of_host(None)).is_err());
    }

    #[test]
    fn the_trace_of_the_host_replaces_another() {
        let own = "00-11111111111111111111111111111111-2222222222222222-01";
        let with = |values: &[&'static str]| {
            let mut guest = headers(&["tracestate"]);
            for value in values {
                guest.append(TRACEPARENT, HeaderValue::from_static(value));
            }
            guest
        };
        let sent = |guest, of_host| {
            let sent = outgoing(guest, of_host).unwrap();
            let all: Vec<_> = sent.get_all(TRACEPARENT).iter().cloned().collect();
            (all, sent.contains_key(TRACESTATE))
        };
        let traceparent = HeaderValue::from_static("of the host");
        for guest in [with(&[]), with(&[own]), with(&[own, own]), with(&["x"])] {
            let of_host = HostHeaders { traceparent: Some(traceparent.clone()), ..of_host(None) };
            assert_eq!(sent(guest, of_host), (vec![traceparent.clone()], false));
        }
        assert_eq!(sent(with(&[own]), of_host(None)), (vec![HeaderValue::from_static(own)], true));
        for invalid in [with(&[]), with(&[own, own]), with(&["x"]), with(&[own, "x"])] {
            assert_eq!(sent(invalid, of_host(None)), (Vec::new(), false));
        }
    }
}
