//! The target of a request, parsed strictly from the guest's fields: the request that
//! is compared with the grant is the one that is sent and connected to.

use exosphere_domain::grant::{
    BadHost, BadPath, Grants, HttpHost, HttpRequest, MAX_PATH_BYTES, Scheme, check_path, split_port,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};

/// The method and the destination of a request.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) method: Method,
    pub(super) scheme: Scheme,
    pub(super) host: HttpHost,
    pub(super) port: u16,
    /// The path with its query.
    pub(super) path: PathAndQuery,
}

/// The reason why a request has no valid target.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum BadTarget {
    #[error("the scheme must be http or https")]
    Scheme,
    #[error("CONNECT opens a tunnel and is not a request")]
    Connect,
    #[error(transparent)]
    Host(#[from] BadHost),
    #[error(transparent)]
    Path(#[from] BadPath),
    #[error("the query has characters that must be percent-encoded")]
    Query,
}

impl Target {
    /// Parses a method and a URI.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Target, BadTarget> {
        if method == Method::CONNECT {
            return Err(BadTarget::Connect);
        }
        let scheme = uri.scheme_str().and_then(Scheme::parse).ok_or(BadTarget::Scheme)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (host, port) = split_port(authority)?;
        let slash = PathAndQuery::from_static("/");
        let path = uri.path_and_query().cloned().unwrap_or(slash);
        if path.as_str().len() > MAX_PATH_BYTES {
            return Err(BadPath::TooLong.into());
        }
        check_path(path.path())?;
        if path.query().is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(BadTarget::Query);
        }
        Ok(Target {
            method: method.clone(),
            scheme,
            host: host.parse()?,
            port: port.unwrap_or(scheme.default_port()),
            path,
        })
    }

    /// Returns whether the grants allow the request.
    pub(super) fn is_granted(&self, grants: &Grants) -> bool {
        grants.allows_http(&HttpRequest {
            method: self.method.as_str(),
            scheme: self.scheme,
            host: &self.host,
            port: self.port,
            path: self.path.path(),
        })
    }

    /// Returns the host, with the port unless it is the scheme's default.
    pub(super) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Returns the authority as a header value. Every character of a host is valid in a
    /// header.
    pub(super) fn host_header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.authority()).ok()
    }

    /// Formats the request for people to read. The query is left out, since it may hold
    /// confidential values.
    pub(super) fn shown(&self) -> String {
        format!("{} {}://{}{}", self.method, self.scheme, self.authority(), self.path.path())
    }

    /// Returns the grant rule that would allow the request.
    pub(super) fn rule(&self) -> String {
        format!("{} {}://{}/", self.method, self.scheme, self.authority())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(uri: &str) -> Result<String, String> {
        let uri: Uri = uri.parse().unwrap();
        match Target::parse(&Method::GET, &uri) {
            Ok(target) => Ok(format!("{} port {} {}", target.shown(), target.port, target.path)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn an_address_has_one_form() {
        for (uri, expected) in [
            ("https://A.Example", "GET https://a.example/ port 443 /"),
            ("http://a.example.:80/x?y=//..", "GET http://a.example/x port 80 /x?y=//.."),
            ("https://a.example:8443/x", "GET https://a.example:8443/x port 8443 /x"),
            ("http://[::1]:80", "GET http://[::1]/ port 80 /"),
            ("http://127.0.0.1:1/", "GET http://127.0.0.1:1/ port 1 /"),
        ] {
            assert_eq!(read(uri).unwrap(), expected);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for (uri, message) in [
            ("/path", "the scheme must be"),
            ("ftp://a.example/", "the scheme must be"),
            ("http://user:pw@a.example/", "a user or password"),
            ("http://a.example@127.0.0.1/", "a user or password"),
            ("http://2130706433/", "an odd form"),
            ("http://0x7f.1/", "an odd form"),
            ("http://127.1/", "an odd form"),
            ("http://0177.0.0.1/", "an odd form"),
            ("http://a.example:0/", "is not a port"),
            ("http://a.example:99999/", "is not a port"),
            ("http://a.example//b", "empty or dot segments"),
            ("http://a.example/%2e%2e/b", "empty or dot segments"),
            ("http://a.example/\u{e4}", "must be percent-encoded"),
            ("http://a.example/?\u{e4}", "must be percent-encoded"),
        ] {
            let error = read(uri).unwrap_err();
            assert!(error.contains(message), "{uri}: {error}");
        }
        let long_url = format!("http://a.example/?{}", "x".repeat(MAX_PATH_BYTES));
        assert!(read(&long_url).unwrap_err().contains("at most"));
        let uri = "http://a.example/".parse().unwrap();
        assert_eq!(Target::parse(&Method::CONNECT, &uri).unwrap_err(), BadTarget::Connect);
    }
}
