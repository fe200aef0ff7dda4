//! Errors of requests, in words, and whether another attempt may succeed.

use std::fmt;

use super::Response;

/// The end of a message about a denied request. The host adds the command to the failure
/// of the attempt, since a node does not know the name of its plugin.
const DENIED_MESSAGE: &str = "was denied: it is not granted to this plugin; \
    the log of this attempt has the command that grants it";

/// The reason why a request has no response that the node can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is not valid: its URL, a header or its body. Permanent.
    Invalid,
    /// The host refused the request: no grant allows it, or its host name leads to an
    /// address that plugins may not reach. Permanent.
    Denied,
    /// The host name was not found, or nothing answers at its address. Retryable.
    Unreachable,
    /// The response did not arrive in time. Retryable.
    Timeout,
    /// The exchange broke off, or the response is not HTTP. Retryable.
    Broken,
    /// The response has a status other than 200 to 299. Permanent, except for the
    /// statuses that ask for another attempt: 408, 425, 429, and those from 500 on but 501
    /// and 505.
    Status,
    /// The response has more bytes than [`max_bytes`](super::Request::max_bytes).
    /// Permanent.
    TooLarge,
    /// The body of the response is not the expected text or JSON. Retryable, since the
    /// server may answer otherwise.
    Content,
}

/// The error of a request.
///
/// `?` converts it to an [`Error`](crate::Error) of a node, permanent or retryable as
/// [`is_retryable`](Error::is_retryable) says. For this reason it is not a
/// [`std::error::Error`]: each of those is converted to a retryable error.
///
/// ```
/// use exosphere_sdk::prelude::*;
///
/// fn exists(url: &str) -> Result<bool> {
///     match http::get(url).send() {
///         Err(error) if error.status() == Some(404) => Ok(false),
///         response => Ok(response.map(|_| true)?),
///     }
/// }
/// # use exosphere_sdk::testing::{Answer, Host};
/// # let mut host = Host::new().answer("GET https://a.example/x", Answer::status(404));
/// # assert_eq!(host.within(|| exists("https://a.example/x")), Ok(false));
/// # assert!(!host.within(|| exists("https://b.example/x")).unwrap_err().is_retryable());
/// ```
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    response: Option<Box<Response>>,
}

impl Error {
    /// Creates the error of a request, from the request as it is shown.
    pub(crate) fn new(request: &str, cause: Cause) -> Self {
        let message = format!("{request} {}", cause.words);
        Error { kind: cause.kind, message, response: None }
    }

    /// Creates the error of a response whose status is not a success.
    pub(crate) fn from_response(response: Response) -> Self {
        let cause = Cause::new(ErrorKind::Status, response.refusal());
        let error = Error::new(response.request(), cause);
        Error { response: Some(Box::new(response)), ..error }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the error message, for people: the request without its query, and the
    /// cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the response, if the error is its status.
    pub fn response(&self) -> Option<&Response> {
        self.response.as_deref()
    }

    /// Returns the status of the response, if the error is this status.
    pub fn status(&self) -> Option<u16> {
        self.response().map(Response::status)
    }

    /// Returns whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::TooLarge => false,
            ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Broken
            | ErrorKind::Content => true,
            ErrorKind::Status => self.status().is_some_and(is_retryable),
        }
    }
}

/// Returns whether a status asks for another attempt. 501 and 505 do not: the server
/// does not know the method, or the version of HTTP.
fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429) || status >= 500 && !matches!(status, 501 | 505)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        if error.is_retryable() {
            crate::Error::new(error.message)
        } else {
            crate::Error::permanent(error.message)
        }
    }
}

/// The cause of an error, before the request is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) kind: ErrorKind,
    /// The end of the message, after the request: `failed: connection refused`.
    pub(crate) words: String,
}

impl Cause {
    pub(crate) fn new(kind: ErrorKind, words: impl Into<String>) -> Self {
        Cause { kind, words: words.into() }
    }

    /// Creates the cause of a request that is not valid.
    pub(crate) fn invalid(cause: impl fmt::Display) -> Self {
        Cause::new(ErrorKind::Invalid, format!("cannot be made: {cause}"))
    }

    /// Creates the cause of an exchange that failed.
    pub(crate) fn failed(kind: ErrorKind, cause: impl fmt::Display) -> Self {
        Cause::new(kind, format!("failed: {cause}"))
    }

    /// Creates the cause of a request that no grant allows.
    pub(crate) fn denied() -> Self {
        Cause::new(ErrorKind::Denied, DENIED_MESSAGE)
    }

    /// Creates the cause of a response that is larger than the node accepts.
    pub(crate) fn too_large(max_bytes: usize) -> Self {
        let cause = format!("the response has more than the {max_bytes} bytes of max_bytes");
        Cause::failed(ErrorKind::TooLarge, cause)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http;
    use crate::testing::{Answer, Host};

    const URL: &str = "https://a.example/x?token=hush";

    fn error(answer: Answer) -> Error {
        let mut host = Host::new().answer("GET https://a.example/x", answer);
        let mut error = None;
        let _ = host.within(|| {
            error = http::get(URL).max_bytes(4).send().err();
            Ok(())
        });
        error.unwrap()
    }

    #[test]
    fn permanent_errors_stay_permanent_by_conversion() {
        for (kind, is_retryable) in [
            (ErrorKind::Invalid, false),
            (ErrorKind::Denied, false),
            (ErrorKind::TooLarge, false),
            (ErrorKind::Unreachable, true),
            (ErrorKind::Timeout, true),
            (ErrorKind::Broken, true),
            (ErrorKind::Content, true),
        ] {
            let error = error(Answer::failure(kind));
            assert_eq!((error.kind(), error.status()), (kind, None));
            let converted = crate::Error::from(error.clone());
            assert_eq!(
                (converted.is_retryable(), converted.message()),
                (is_retryable, error.message())
            );
        }
    }

    #[test]
    fn temporary_statuses_are_retryable() {
        for (status, is_retryable) in [
            (304, false),
            (400, false),
            (404, false),
            (408, true),
            (425, true),
            (429, true),
            (500, true),
            (501, false),
            (503, true),
            (505, false),
            (599, true),
        ] {
            let error = error(Answer::status(status));
            assert_eq!((error.kind(), error.status()), (ErrorKind::Status, Some(status)));
            assert_eq!(crate::Error::from(error).is_retryable(), is_retryable, "{status}");
        }
    }

    #[test]
    fn errors_name_the_request_and_cause() {
        let refused = Answer::bytes("no\r\n").with_status(403).with_header("x-a", "b");
        let refused = error(refused);
        assert_eq!(refused.to_string(), "GET https://a.example/x was answered with status 403: no");
        assert_eq!(refused.response().unwrap().header("X-A"), Some("b"));
        let denied = error(Answer::failure(ErrorKind::Denied));
        let words = "GET https://a.example/x was denied: it is not granted to this plugin; the log \
                     of this attempt has the command that grants it";
        assert_eq!(denied.message(), words);
        let words =
            "GET https://a.example/x failed: the response has more than the 4 bytes of max_bytes";
        assert_eq!(error(Answer::bytes("12345")).message(), words);
        let redirect =
            Answer::status(302).with_header("location", "https://b.example/y?token=hush");
        let words = "GET https://a.example/x was redirected to https://b.example/y (status 302)";
        assert!(error(redirect).message().starts_with(words));
        let long_body = error(Answer::bytes("é".repeat(2)).with_status(500));
        assert!(long_body.message().ends_with("status 500: éé"), "{long_body}");
    }
}
