//! The headers of a request: the guest's, without any by which it could say
//! where one message ends and the next begins, to whom it is, or that it is
//! another request than the one that was compared with the grant.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use wasmtime_wasi_http::Error;

/// How an outside system knows work that is done again.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The most headers of a request, and of a response.
pub(super) const MAX_HEADERS: usize = 100;

/// Bytes of all headers that a guest puts together, with what they cost in
/// memory. A guest may hold as many of them as it has handles.
pub(super) const FIELD_BYTES: usize = 16 * 1024;

/// What a guest is told whose headers are larger.
pub(crate) const TOO_LARGE: &str = "the node's headers of one request are larger than 16 KiB together, which is the same for every node and cannot be changed; send less in headers, or send it in the body";

/// Those that are between us and the next machine on the way, or ours to say.
/// `Content-Length` is the guest's own: the engine holds it to what it then
/// writes.
const OURS: [HeaderName; 9] = [
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

/// Headers by which a proxy, a server or a framework takes a request for another
/// one: of another path, method, host or sender. A grant of a path or a method
/// would be one of any.
const OVERRIDES: &[&str] = &[
    // The path.
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
    // The method.
    "x-method",
    "x-verb",
    "x-original-method",
    "x-requested-method",
    "-method",
    // The host.
    "x-host",
    "x-backend-host",
    // Who sends it, and by which way.
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
    // And over which scheme.
    "x-scheme",
    "x-url-scheme",
    "x-forward-proto",
    "front-end-https",
];

/// Beginnings of such headers, of which there are many.
const OVERRIDING: &[&str] = &["proxy-", "x-forwarded", "x-envoy-", "x-middleware-"];

/// Parts of such headers.
const REWRITING: &[&str] = &[
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

/// Whether a guest may neither set a header nor see it. Where we send the key
/// of its work, that is not its own to say.
pub(super) fn is_forbidden(name: &HeaderName, has_key: bool) -> bool {
    // CGI and its heirs tell no underscore (or dot) from a hyphen.
    let plain: String = name.as_str().chars().map(hyphen).collect();
    let is_key = has_key && plain == IDEMPOTENCY_KEY.as_str();
    let is_length = plain == CONTENT_LENGTH.as_str() && *name != CONTENT_LENGTH;
    is_key
        || is_length
        || OURS.iter().any(|ours| plain == ours.as_str())
        || OVERRIDES.contains(&plain.as_str())
        || OVERRIDING.iter().any(|beginning| plain.starts_with(beginning))
        || REWRITING.iter().any(|part| plain.contains(part))
}

fn hyphen(letter: char) -> char {
    if letter.is_ascii_alphanumeric() { letter } else { '-' }
}

/// The headers that are sent: the guest's and ours.
///
/// # Errors
/// If there are too many, or the guest got hold of one that is ours.
pub(super) fn outgoing(
    guest: HeaderMap,
    host: HeaderValue,
    idempotency_key: Option<HeaderValue>,
) -> Result<HeaderMap, Error> {
    if guest.len() > MAX_HEADERS {
        return Err(Error::HttpRequestHeaderSectionSize(u32::try_from(guest.len()).ok()));
    }
    let is_ours = |name: &HeaderName| is_forbidden(name, idempotency_key.is_some());
    if guest.keys().any(is_ours) {
        return Err(Error::HttpRequestDenied);
    }
    let mut headers = HeaderMap::with_capacity(guest.len() + 3);
    headers.insert(HOST, host);
    // No connection is used twice, so the server need not wait for more.
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

    fn headers(names: &[&'static str]) -> HeaderMap {
        let value = HeaderValue::from_static("x");
        names.iter().map(|name| (name.parse().unwrap(), value.clone())).collect()
    }

    #[test]
    fn who_has_too_large_headers_is_told_how_large_they_may_be() {
        assert!(TOO_LARGE.contains(&format!(" {} KiB ", FIELD_BYTES / 1024)), "{TOO_LARGE}");
    }

    #[test]
    fn ours_are_added_and_never_the_guests() {
        let host = HeaderValue::from_static("a.example");
        let key = HeaderValue::from_static("k/1");
        let sent = outgoing(headers(&["accept", "x-a"]), host.clone(), Some(key.clone())).unwrap();
        assert_eq!((sent.len(), &sent["host"], &sent["idempotency-key"]), (5, &host, &key));
        assert!(outgoing(headers(&["idempotency-key"]), host.clone(), Some(key)).is_err());
        assert!(outgoing(headers(&["idempotency-key"]), host.clone(), None).is_ok());
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
            assert!(outgoing(headers(&[name]), host.clone(), None).is_err(), "{name}");
        }
    }

    #[test]
    fn ordinary_headers_pass() {
        let host = HeaderValue::from_static("a.example");
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
            assert!(outgoing(headers(&[name]), host.clone(), None).is_ok(), "{name}");
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let many = |count: usize| {
            (0..count)
                .map(|n| (format!("x-{n}").parse().unwrap(), HeaderValue::from_static("x")))
                .collect::<HeaderMap>()
        };
        let host = HeaderValue::from_static("a.example");
        assert!(outgoing(many(MAX_HEADERS), host.clone(), None).is_ok());
        assert!(outgoing(many(MAX_HEADERS + 1), host, None).is_err());
    }
}
