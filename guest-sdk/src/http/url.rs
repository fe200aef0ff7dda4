//! URLs: split into the parts that the host takes, and shown in errors.
//!
//! Not here: the rules for hosts and paths. The host has them, since it compares them
//! with the grants.

use std::fmt::Write;

/// Characters of a URL that an error shows.
const MAX_SHOWN_CHARS: usize = 200;

/// A URL in the parts that the host takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    /// The host, and the port if the URL names one.
    pub(crate) authority: String,
    pub(crate) path_with_query: String,
}

impl Url {
    /// Splits a URL, and adds a query that is already encoded. A fragment is dropped.
    ///
    /// # Errors
    /// The reason why the URL is not valid.
    pub(crate) fn parse(text: &str, query: &str) -> Result<Url, String> {
        if let Some(odd) = text.chars().find(|letter| !letter.is_ascii_graphic()) {
            return Err(format!("its URL contains {odd:?}, which must be percent-encoded"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return Err("its URL must begin with http:// or https://".into());
        }
        let rest = before(rest, &['#']);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("its URL names no host".into());
        }
        if authority.contains('@') {
            return Err("its URL has a user or password; send them in a header".into());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut path_with_query = format!("{slash}{path}");
        if !query.is_empty() {
            path_with_query.push(if path.contains('?') { '&' } else { '?' });
            path_with_query.push_str(query);
        }
        Ok(Url { is_https, authority: authority.into(), path_with_query })
    }

    /// Returns the URL as text.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn text(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path_with_query)
    }
}

/// Returns the part of a text before the first of some characters.
fn before<'a>(text: &'a str, ends: &[char]) -> &'a str {
    text.split(ends).next().unwrap_or_default()
}

/// Shows a URL in an error, without the parts that may be confidential: a user or
/// password, the query and the fragment.
pub(crate) fn shown(url: &str) -> String {
    let public_part = before(url, &['?', '#']);
    let (scheme, rest) = public_part.split_once("://").unwrap_or(("", public_part));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    let shown = format!("{scheme}{separator}{host}{path}");
    shown.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

/// Adds a parameter to a query, percent-encoded.
pub(crate) fn add_parameter(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    encode(query, name);
    query.push('=');
    encode(query, value);
}

/// Adds a text, percent-encoded but for the characters that RFC 3986 calls unreserved.
fn encode(to: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_url_is_split_into_parts() {
        for (text, query, expected) in [
            ("https://a.example", "", "https://a.example/"),
            ("HTTP://a.example:80/x/y?b=1#top", "", "http://a.example:80/x/y?b=1"),
            ("http://a.example?b", "c=2", "http://a.example/?b&c=2"),
            ("http://[::1]:8/x", "c=2&d=3", "http://[::1]:8/x?c=2&d=3"),
            ("http://a.example/x#?", "c=2", "http://a.example/x?c=2"),
            ("http://a.example/@", "", "http://a.example/@"),
        ] {
            assert_eq!(Url::parse(text, query).unwrap().text(), expected);
        }
    }

    #[test]
    fn an_invalid_url_names_its_fault() {
        for (text, words) in [
            ("", "begin with http://"),
            ("a.example/x", "begin with http://"),
            ("ftp://a.example/", "begin with http://"),
            ("https:///x", "names no host"),
            ("https://user:pw@a.example/", "a user or password"),
            ("https://a.example/a b", "contains ' ', which must be percent-encoded"),
            ("https://a.example/ä", "contains 'ä'"),
            ("https://a.example/\r\nx: y", "contains '\\r'"),
        ] {
            let error = Url::parse(text, "").unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn query_parameters_are_percent_encoded() {
        let mut query = String::new();
        add_parameter(&mut query, "q", "a b&c=d/ä");
        add_parameter(&mut query, "n~", "");
        assert_eq!(query, "q=a%20b%26c%3Dd%2F%C3%A4&n~=");
    }

    #[test]
    fn shown_urls_hide_confidential_parts() {
        assert_eq!(shown("https://u:p@a.example/x?token=t#f"), "https://a.example/x");
        assert_eq!(shown("https://u:p@a.example?token=t"), "https://a.example");
        assert_eq!(shown("u:p@a.example/x"), "a.example/x");
        assert_eq!(shown("x\ny"), "x\\ny");
        assert_eq!(shown(&"x".repeat(1_000)).len(), MAX_SHOWN_CHARS);
    }
}
