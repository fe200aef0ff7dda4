//! Responses, with their whole bodies, and the typed reading of these.

use std::fmt;

use serde::de::DeserializeOwned;

use super::message::header;
use super::{Cause, Error, ErrorKind, Incoming, url};

/// Characters of a response's body that an error shows.
const MAX_EXCERPT_CHARS: usize = 200;

/// The response to a request, with its whole body.
#[derive(Clone)]
pub struct Response {
    /// The request, as errors show it.
    request: String,
    message: Incoming,
}

impl Response {
    pub(crate) fn new(request: String, message: Incoming) -> Self {
        Response { request, message }
    }

    /// Returns the request, as errors show it.
    pub(crate) fn request(&self) -> &str {
        &self.request
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.message.status
    }

    /// Returns whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status())
    }

    /// Returns the value of the first header with this name, in whichever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.message.headers, name)
    }

    /// Returns the names and values of all headers. Bytes of a value that are not UTF-8
    /// are replaced.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the body, without taking it out of the response.
    pub fn body(&self) -> &[u8] {
        &self.message.body
    }

    /// Returns the body as bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.message.body
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(self) -> Result<String, Error> {
        let Response { request, message } = self;
        let status = message.status;
        String::from_utf8(message.body)
            .map_err(|error| unexpected(&request, status, &format!("is not UTF-8: {error}")))
    }

    /// Returns the body, read as JSON.
    ///
    /// # Errors
    /// If it is not the JSON of a `T`. The message names the place.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let mut reader = serde_json::Deserializer::from_slice(self.body());
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { String::new() } else { format!(" at `{path}`") };
            format!("is not the expected JSON{place}: {}", error.inner())
        });
        let read = read.and_then(|value| match reader.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(format!("is not the expected JSON: {error}")),
        });
        read.map_err(|cause| unexpected(&self.request, self.status(), &cause))
    }

    /// Describes a status that is not a success, as the end of an error message.
    pub(crate) fn refusal(&self) -> String {
        let status = self.status();
        if let Some(location) = self.header("location").filter(|_| (300..400).contains(&status)) {
            return format!(
                "was redirected to {} (status {status}); redirects are not followed: \
                 request that URL, for which the plugin needs a grant too",
                url::shown(location)
            );
        }
        let excerpt = excerpt(self.body());
        let separator = if excerpt.is_empty() { "" } else { ": " };
        format!("was answered with status {status}{separator}{excerpt}")
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("request", &self.request)
            .field("status", &self.status())
            .field("headers", &self.message.headers)
            .field("body", &excerpt(self.body()))
            .finish()
    }
}

fn unexpected(request: &str, status: u16, cause: &str) -> Error {
    let words = format!("was answered with status {status}, but the body {cause}");
    Error::new(request, Cause::new(ErrorKind::Content, words))
}

/// Returns the beginning of a body on one line, for people. It is empty if the body is
/// not text.
fn excerpt(body: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(body) else { return String::new() };
    let letter = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut line: String = text.trim().chars().take(MAX_EXCERPT_CHARS).map(letter).collect();
    if text.trim().chars().nth(MAX_EXCERPT_CHARS).is_some() {
        line.push_str("..");
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn response(body: &[u8]) -> Response {
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())];
        let message = Incoming { status: 200, headers, body: body.to_vec() };
        Response::new("GET https://a.example/".to_owned(), message)
    }

    #[test]
    fn a_response_is_read_as_its_type() {
        let answer = response(b"[1, 2]");
        assert_eq!(
            (answer.status(), answer.is_success(), answer.body()),
            (200, true, &b"[1, 2]"[..])
        );
        assert_eq!(answer.header("x-A"), Some("1"));
        assert_eq!(answer.headers().collect::<Vec<_>>(), [("X-A", "1"), ("x-a", "2")]);
        assert_eq!(answer.clone().json::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(answer.clone().text().unwrap(), "[1, 2]");
        assert_eq!(answer.bytes(), b"[1, 2]");
    }

    #[test]
    fn unexpected_bodies_are_named() {
        let beginning = "GET https://a.example/ was answered with status 200, but the body ";
        for (error, words) in [
            (
                response(b"[1, -2]").json::<Vec<u8>>().unwrap_err(),
                "is not the expected JSON at `[1]`: ",
            ),
            (
                response(b"<html>").json::<Vec<u8>>().unwrap_err(),
                "is not the expected JSON: expected value",
            ),
            (
                response(b"[1] 2").json::<Vec<u8>>().unwrap_err(),
                "is not the expected JSON: trailing",
            ),
            (response(b"\xff").text().unwrap_err(), "is not UTF-8: "),
        ] {
            let expected = format!("{beginning}{words}");
            assert!(error.message().starts_with(&expected), "{error}");
            assert_eq!(error.kind(), ErrorKind::Content);
        }
    }

    #[test]
    fn excerpts_are_short_plain_lines() {
        assert_eq!(excerpt(b" a\r\n\x1b[31mb\n"), "a   [31mb");
        assert_eq!(excerpt(b"\xff"), "");
        let long_excerpt = excerpt(&[b'x'; 1_000]);
        assert_eq!(long_excerpt, format!("{}..", "x".repeat(MAX_EXCERPT_CHARS)));
        assert!(format!("{:?}", response(b"abc")).contains("body: \"abc\""));
    }
}
