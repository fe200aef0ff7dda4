//! The host of an HTTP request, parsed strictly: a text that two parsers could
//! take for two different hosts is not a valid host.
//!
//! Not here: resolving names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest host name, and the longest of its labels, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// A host by its name or its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HttpHost {
    /// A host name: labels of lower-case ASCII, without a trailing dot.
    Name(String),
    /// An IP address, written as one.
    Ip(IpAddr),
}

/// The reason why a text is not a valid host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// The host is empty.
    #[error("the host is empty")]
    Empty,
    /// A user or a password precedes the host.
    #[error("a user or password before the host is not allowed; send it in a header")]
    UserInfo,
    /// The host or one of its labels is too long.
    #[error("a host has at most {MAX_NAME_BYTES} bytes, and {MAX_LABEL_BYTES} between two dots")]
    TooLong,
    /// The host has non-ASCII letters, which must be encoded.
    #[error("the host has letters other than ASCII; write it as punycode (`xn--..`)")]
    NotAscii,
    /// The host has characters that no host name has.
    #[error("the host {0:?} is made of other characters than letters, digits, '-', '_' and '.'")]
    Characters(String),
    /// The host is a number, or ends in one, and is not a plain IPv4 address.
    #[error(
        "the host {0:?} is an address in an odd form; write four decimal numbers (`192.0.2.1`)"
    )]
    OddAddress(String),
    /// The text after the colon is not a valid port.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    /// The host is in brackets, and is not a plain IPv6 address.
    #[error(
        "the host {0:?} is not an IPv6 address; write it in brackets and without a zone (`[2001:db8::1]`)"
    )]
    OddIpv6(String),
}

impl HttpHost {
    /// Returns the IP address, if the host is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            HttpHost::Ip(ip) => Some(*ip),
            HttpHost::Name(_) => None,
        }
    }
}

impl FromStr for HttpHost {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<HttpHost, BadHost> {
        if text.contains('@') {
            return Err(BadHost::UserInfo);
        }
        if text.starts_with('[') {
            let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            let ip = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return ip.map(|ip| HttpHost::Ip(ip.into())).ok_or_else(|| BadHost::OddIpv6(cut(text)));
        }
        if !text.is_ascii() {
            return Err(BadHost::NotAscii);
        }
        // A trailing dot only says that the name is complete.
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let last = check_labels(&name)?;
        if !is_numeric(last) {
            return Ok(HttpHost::Name(name));
        }
        // Resolvers take a name that ends in a number for an IPv4 address, in
        // one of several forms. Only the plain form is unambiguous.
        let ip: Result<Ipv4Addr, _> = name.parse();
        ip.map(|ip| HttpHost::Ip(ip.into())).map_err(|_| BadHost::OddAddress(cut(text)))
    }
}

/// Splits an authority (`host` or `host:port`) into the host's text and the
/// port, if there is one.
///
/// # Errors
/// If a user precedes the host, or the text after the colon is not a valid
/// port.
pub fn split_port(authority: &str) -> Result<(&str, Option<u16>), BadHost> {
    if authority.contains('@') {
        return Err(BadHost::UserInfo);
    }
    // The colons of an IPv6 address are in brackets.
    let after = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority.rfind(':').filter(|colon| *colon >= after) else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at_checked(colon).unwrap_or((authority, ""));
    let digits = port.strip_prefix(':').unwrap_or_default();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| is_plain && *port > 0);
    port.map(|port| (host, Some(port))).ok_or_else(|| BadHost::Port(cut(digits)))
}

/// Checks the labels of a name, and returns the last.
pub(super) fn check_labels(name: &str) -> Result<&str, BadHost> {
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(BadHost::TooLong);
    }
    let mut last = "";
    for label in name.split('.') {
        if label.len() > MAX_LABEL_BYTES {
            return Err(BadHost::TooLong);
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = !label.is_empty()
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !is_label {
            return Err(BadHost::Characters(cut(name)));
        }
        last = label;
    }
    Ok(last)
}

/// Returns whether a label is a number in any of the forms of `inet_aton`.
pub(super) fn is_numeric(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Cuts an untrusted text to a length that can be shown.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpHost::Name(name) => f.write_str(name),
            HttpHost::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            HttpHost::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_are_read_in_one_form() {
        for (text, expected) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("localhost", "localhost"),
            ("_srv.a-b.example", "_srv.a-b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1.", "192.0.2.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("1.example", "1.example"),
            ("0x7f.example", "0x7f.example"),
        ] {
            let host: HttpHost = text.parse().unwrap();
            assert_eq!(host.to_string(), expected);
            assert_eq!(expected.parse(), Ok(host), "{text}");
        }
        assert!("192.0.2.1".parse::<HttpHost>().unwrap().ip().is_some());
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        let read = |text: &str| text.parse::<HttpHost>().unwrap_err();
        for (text, expected) in [
            ("a.example", Ok(("a.example", None))),
            ("a.example:80", Ok(("a.example", Some(80)))),
            ("[::1]", Ok(("[::1]", None))),
            ("[::1]:80", Ok(("[::1]", Some(80)))),
            ("u:p@a.example", Err(BadHost::UserInfo)),
            ("a.example:", Err(BadHost::Port(String::new()))),
            ("a.example:+80", Err(BadHost::Port("+80".into()))),
            ("a.example:65536", Err(BadHost::Port("65536".into()))),
        ] {
            assert_eq!(split_port(text), expected);
        }
        for text in ["", "."] {
            assert_eq!(read(text), BadHost::Empty);
        }
        for text in [
            "2130706433",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "127.0.0.01",
            "1.2.3.4.5",
            "127.0.0.0x1",
            "example.1",
            "0x",
            "256.1.1.1",
            "a.0X1F",
        ] {
            assert!(matches!(read(text), BadHost::OddAddress(_)), "{text}");
        }
        for text in ["[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1", "[]", "[127.0.0.1]", "[::1].x"] {
            assert!(matches!(read(text), BadHost::OddIpv6(_)), "{text}");
        }
        for text in ["a..b", ".a", "a..", "-a", "a-.b", "a b", "a\tb", "a/b", "a%2eb", "a*b", "::1"]
        {
            assert!(matches!(read(text), BadHost::Characters(_)), "{text}");
        }
        assert_eq!(read("user@example.com"), BadHost::UserInfo);
        assert_eq!(read("bücher.example"), BadHost::NotAscii);
        assert_eq!(read("①.②.③.④"), BadHost::NotAscii);
        assert_eq!(read(&"a".repeat(64)), BadHost::TooLong);
        assert_eq!(read(&"a.".repeat(200)), BadHost::TooLong);
    }
}
