//! One HTTP rule of a grant: the requests that it allows. Written as `GET,POST
//! https://api.example.com:8443/v1/`; the methods, the port and the path may be
//! omitted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::host::{BadHost, HttpHost, check_labels, cut, is_numeric, split_port};
use super::path::{BadPath, check_path};

/// The longest text of a rule, in bytes.
const MAX_RULE_BYTES: usize = 2048;

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// Returns the scheme's name as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Returns the port that applies if a URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// Parses a scheme's name, in lower case.
    pub fn parse(text: &str) -> Option<Scheme> {
        [Scheme::Http, Scheme::Https].into_iter().find(|scheme| scheme.as_str() == text)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The hosts that a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(HttpHost),
    /// Every name that ends in a dot and this name, with any number of labels
    /// before: `*.example.com` does not match `example.com`. Never an address.
    Under(String),
}

impl HostPattern {
    fn matches(&self, host: &HttpHost) -> bool {
        match (self, host) {
            (HostPattern::Exact(exact), host) => exact == host,
            (HostPattern::Under(suffix), HttpHost::Name(name)) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            (HostPattern::Under(_), HttpHost::Ip(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => host.fmt(f),
            HostPattern::Under(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// An HTTP request, as far as rules check it.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The scheme of the request's URL.
    pub scheme: Scheme,
    /// The host of the request's URL.
    pub host: &'a HttpHost,
    /// The port, even if it is the scheme's default.
    pub port: u16,
    /// The path without its query; it has passed
    /// [`check_path`](super::check_path).
    pub path: &'a str,
}

/// An HTTP rule: a pattern of allowed requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpRule {
    methods: Vec<String>,
    scheme: Scheme,
    host: HostPattern,
    port: Option<u16>,
    path: String,
}

/// The reason why a text is not a valid rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a rule for HTTP, such as \"GET,POST https://api.example.com/v1/\": {cause}"
)]
pub struct BadRule {
    text: String,
    cause: Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    #[error("it has at most {MAX_RULE_BYTES} bytes")]
    TooLong,
    #[error(
        "{0:?} is not a method; write them in capitals with commas between them, without blanks"
    )]
    Method(String),
    #[error("CONNECT opens a tunnel and is not a request; it cannot be granted")]
    Connect,
    #[error("it needs `http://` or `https://`")]
    Scheme,
    #[error(
        "a query or a fragment (`?` or `#`) cannot be part of it; it names the beginning of a path"
    )]
    Query,
    #[error("a `*` stands for the first part of a host's name only, as in `*.example.com`")]
    Star,
    #[error(transparent)]
    Host(#[from] BadHost),
    #[error(transparent)]
    Path(#[from] BadPath),
}

impl HttpRule {
    /// Returns the methods; an empty list means any.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// Returns the scheme of the allowed requests.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the pattern of hosts.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// Returns the port: the named one, else the scheme's default.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Returns the path prefix.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the rule allows a request.
    pub fn allows(&self, request: &HttpRequest<'_>) -> bool {
        let HttpRequest { method, scheme, host, port, path } = *request;
        let has_method = self.methods.is_empty() || self.methods.iter().any(|m| m == method);
        has_method
            && method != "CONNECT"
            && self.scheme == scheme
            && self.port() == port
            && self.host.matches(host)
            && self.covers(path)
    }

    /// Returns whether a path equals the rule's path or lies below it. A rule's path that ends
    /// in `/` does not cover the path without it.
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.path.as_str()).is_some_and(|rest| {
            rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
        })
    }
}

impl FromStr for HttpRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<HttpRule, BadRule> {
        parse(text).map_err(|cause| BadRule { text: cut(text), cause })
    }
}

fn parse(text: &str) -> Result<HttpRule, Wrong> {
    if text.len() > MAX_RULE_BYTES {
        return Err(Wrong::TooLong);
    }
    let text = text.trim();
    let (methods, url) = match text.split_once(' ') {
        Some((methods, url)) => (parse_methods(methods)?, url.trim_start()),
        None => (Vec::new(), text),
    };
    let (scheme, rest) = url.split_once("://").ok_or(Wrong::Scheme)?;
    let scheme = Scheme::parse(&scheme.to_ascii_lowercase()).ok_or(Wrong::Scheme)?;
    if rest.contains(['?', '#']) {
        return Err(Wrong::Query);
    }
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(slash).unwrap_or((rest, ""));
    let path = if path.is_empty() { "/" } else { path };
    check_path(path)?;
    let (host, port) = split_port(authority)?;
    Ok(HttpRule { methods, scheme, host: parse_pattern(host)?, port, path: path.to_owned() })
}

fn parse_methods(text: &str) -> Result<Vec<String>, Wrong> {
    let mut methods: Vec<String> = Vec::new();
    for method in text.split(',') {
        let fits = (1..=32).contains(&method.len())
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        match method {
            "CONNECT" => return Err(Wrong::Connect),
            _ if !fits => return Err(Wrong::Method(cut(method))),
            _ if methods.iter().any(|known| known == method) => {}
            _ => methods.push(method.to_owned()),
        }
    }
    Ok(methods)
}

fn parse_pattern(host: &str) -> Result<HostPattern, Wrong> {
    let Some(suffix) = host.strip_prefix("*.") else {
        if host.contains('*') {
            return Err(Wrong::Star);
        }
        return Ok(HostPattern::Exact(host.parse()?));
    };
    if !suffix.is_ascii() {
        return Err(BadHost::NotAscii.into());
    }
    if suffix.contains('*') {
        return Err(Wrong::Star);
    }
    let suffix = suffix.strip_suffix('.').unwrap_or(suffix).to_ascii_lowercase();
    if is_numeric(check_labels(&suffix)?) {
        return Err(Wrong::Star);
    }
    Ok(HostPattern::Under(suffix))
}

impl TryFrom<String> for HttpRule {
    type Error = BadRule;

    fn try_from(text: String) -> Result<HttpRule, BadRule> {
        text.parse()
    }
}

impl From<HttpRule> for String {
    fn from(rule: HttpRule) -> String {
        rule.to_string()
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "{} ", self.methods.join(","))?;
        }
        write!(f, "{}://{}", self.scheme, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rules_are_formatted_as_they_are_read() {
        for (text, expected) in [
            (
                "GET,POST https://api.example.com:8443/v1/",
                "GET,POST https://api.example.com:8443/v1/",
            ),
            ("https://*.example.com/", "https://*.example.com/"),
            ("HTTPS://API.Example.com.", "https://api.example.com/"),
            (" GET,GET  http://a.example ", "GET http://a.example/"),
            ("http://127.0.0.1:80/x", "http://127.0.0.1:80/x"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]/"),
        ] {
            let rule: HttpRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), expected);
            assert_eq!(expected.parse(), Ok(rule));
        }
    }

    #[test]
    fn an_invalid_rule_is_refused_with_reason() {
        for (text, message) in [
            ("", "needs `http://`"),
            ("example.com", "needs `http://`"),
            ("ftp://example.com/", "needs `http://`"),
            ("get https://a.example/", "\"get\" is not a method"),
            ("GET, POST https://a.example/", "\"\" is not a method"),
            ("CONNECT https://a.example/", "CONNECT"),
            ("https://user:pw@a.example/", "a user or password"),
            ("https://a.example/?q=1", "a query or a fragment"),
            ("https://a.example#x", "a query or a fragment"),
            ("https:///x", "the host is empty"),
            ("https://*/", "a `*` stands for"),
            ("https://a.*.example/", "a `*` stands for"),
            ("https://*.*.example/", "a `*` stands for"),
            ("https://*.0.0.1/", "a `*` stands for"),
            ("https://*./", "the host is empty"),
            ("https://a.example:0/", "is not a port"),
            ("https://a.example:/", "is not a port"),
            ("https://a.example:+443/", "is not a port"),
            ("https://a.example:70000/", "is not a port"),
            ("https://127.1/", "an odd form"),
            ("https://::1/", "made of other characters"),
            ("https://bücher.example/", "punycode"),
            ("https://a.example//x", "empty or dot segments"),
            ("https://a.example/v1/%2e%2e/", "empty or dot segments"),
        ] {
            let error = text.parse::<HttpRule>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!("https://a.example/".repeat(200).parse::<HttpRule>().is_err());
    }

    #[test]
    fn a_rule_allows_only_named_requests() {
        let allows = |rule: &str, request: &str| {
            let rule: HttpRule = rule.parse().unwrap();
            // A request written as a rule, with a method and a host.
            let request: HttpRule = request.parse().unwrap();
            let HostPattern::Exact(host) = request.host() else { unreachable!() };
            rule.allows(&HttpRequest {
                method: &request.methods()[0],
                scheme: request.scheme(),
                host,
                port: request.port(),
                path: request.path(),
            })
        };
        for (rule, request, expected) in [
            ("https://a.example", "GET https://a.example/", true),
            ("https://a.example", "DELETE https://a.example/x/y", true),
            ("GET,POST https://a.example", "POST https://a.example/", true),
            ("GET,POST https://a.example", "PUT https://a.example/", false),
            ("https://a.example", "GET http://a.example/", false),
            ("https://a.example", "GET https://a.example:443/", true),
            ("https://a.example", "GET https://a.example:8443/", false),
            ("https://a.example:8443", "GET https://a.example:8443/", true),
            ("https://a.example:8443", "GET https://a.example/", false),
            ("https://a.example", "GET https://b.a.example/", false),
            ("https://a.example", "GET https://a.example.b/", false),
            ("https://*.a.example", "GET https://b.a.example/", true),
            ("https://*.a.example", "GET https://c.b.a.example/", true),
            ("https://*.a.example", "GET https://a.example/", false),
            ("https://*.a.example", "GET https://ba.example/", false),
            ("https://*.a.example", "GET https://192.0.2.1/", false),
            ("https://192.0.2.1", "GET https://192.0.2.1/", true),
            ("https://192.0.2.1", "GET https://192.0.2.2/", false),
            ("https://[::1]", "GET https://[0:0::1]/", true),
            ("https://a.example/v1", "GET https://a.example/v1", true),
            ("https://a.example/v1", "GET https://a.example/v1/", true),
            ("https://a.example/v1", "GET https://a.example/v1/x", true),
            ("https://a.example/v1", "GET https://a.example/v10", false),
            ("https://a.example/v1", "GET https://a.example/", false),
            ("https://a.example/v1/", "GET https://a.example/v1/x", true),
            ("https://a.example/v1/", "GET https://a.example/v1/", true),
            ("https://a.example/v1/", "GET https://a.example/v1", false),
            ("https://a.example/v1", "GET https://a.example/V1", false),
        ] {
            assert_eq!(allows(rule, request), expected, "{rule} for {request}");
        }
        let any: HttpRule = "https://a.example".parse().unwrap();
        let host = "a.example".parse().unwrap();
        let (scheme, host) = (Scheme::Https, &host);
        let tunnel = HttpRequest { method: "CONNECT", scheme, host, port: 443, path: "/" };
        assert!(!any.allows(&tunnel));
    }
}
