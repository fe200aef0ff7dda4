//! Canned answers to the requests of a node under test, and the requests that it made.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{RunningAttempt, json};
use crate::http::{Cause, ErrorKind, Incoming, Outgoing};
use crate::log::Level;

/// A canned answer to a request: a response, or a failure of the exchange.
///
/// ```
/// use exosphere_sdk::http::ErrorKind;
/// use exosphere_sdk::prelude::*;
/// use exosphere_sdk::testing::{Answer, Host};
///
/// let url = "https://api.example.com/v1/users";
/// let mut host = Host::new()
///     .answer("GET https://api.example.com/v1/users", Answer::failure(ErrorKind::Timeout))
///     .answer("GET https://api.example.com/v1/users", Answer::status(503))
///     .answer("GET https://api.example.com/v1/users", Answer::json(json!(["Ann"])));
/// let mut attempt = || host.within(|| Ok(http::get(url).send()?.text()?));
/// assert!(attempt().is_err());
/// assert!(attempt().is_err());
/// assert_eq!(attempt(), Ok(r#"["Ann"]"#.to_owned()));
/// ```
#[derive(Debug, Clone)]
pub struct Answer(Result<Incoming, Cause>);

impl Answer {
    /// Creates an empty response with this status.
    pub fn status(status: u16) -> Self {
        Answer(Ok(Incoming { status, ..Incoming::default() }))
    }

    /// Creates a response with status 200 and a body.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Answer(Ok(Incoming { status: 200, body: body.into(), ..Incoming::default() }))
    }

    /// Creates a response with status 200 and a value as JSON.
    pub fn json(value: impl Serialize) -> Self {
        let text = serde_json::to_string(&value)
            .unwrap_or_else(|error| panic!("the answer of the test is not JSON: {error}"));
        Answer::bytes(text).with_header("content-type", "application/json")
    }

    /// Creates a failure of the exchange: there is no response.
    pub fn failure(kind: ErrorKind) -> Self {
        Answer(Err(match kind {
            ErrorKind::Denied => Cause::denied(),
            kind => Cause::failed(kind, format!("{kind:?}, as the test says")),
        }))
    }

    /// Sets the status of a response.
    pub fn with_status(mut self, status: u16) -> Self {
        if let Answer(Ok(message)) = &mut self {
            message.status = status;
        }
        self
    }

    /// Adds a header to a response.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Answer(Ok(message)) = &mut self {
            message.headers.push((name.into(), value.into()));
        }
        self
    }
}

/// A request that a node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentRequest {
    /// The method.
    pub method: String,
    /// The URL with its query.
    pub url: String,
    /// The names and values of the headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The time until the whole response must be there. The mock does not enforce it.
    pub timeout: Option<Duration>,
}

impl SentRequest {
    /// Returns the value of the first header with this name, in whichever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        json(&String::from_utf8_lossy(&self.body))
    }
}

/// The canned answers of a mock host.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Vec<(String, VecDeque<Answer>)>);

impl Answers {
    /// Adds an answer to a request, written as `METHOD URL`.
    pub(super) fn add(&mut self, request: &str, answer: Answer) {
        let known = self.0.iter_mut().find(|(known, _)| known == request);
        match known {
            Some((_, answers)) => answers.push_back(answer),
            None => self.0.push((request.into(), [answer].into())),
        }
    }

    /// Takes the next answer to a request, of which the last one stays.
    fn next(&mut self, method: &str, url: &str) -> Option<Answer> {
        let whole = format!("{method} {url}");
        let without_query = whole.split('?').next().unwrap_or_default();
        let mut matches = [whole.as_str(), without_query].into_iter();
        let at = matches.find_map(|text| self.0.iter().position(|(known, _)| known == text))?;
        let answers = &mut self.0[at].1;
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    }
}

/// Makes a request in the attempt that runs on this thread.
pub(super) fn exchange(attempt: &mut RunningAttempt, request: Outgoing) -> Result<Incoming, Cause> {
    attempt.requests_made += 1;
    let (method, url) = (request.method, request.url.text());
    let Some(Answer(answer)) = attempt.answers.next(&method, &url) else {
        let words = format!(
            "{method} {url} is not granted: the test gives no answer to it, by \
             `Host::answer(\"{method} {url}\", ..)`"
        );
        attempt.log.push((Level::Warn, words));
        return Err(Cause::denied());
    };
    let mut headers = request.headers;
    headers.extend(request.idempotency_key.map(|key| ("idempotency-key".to_owned(), key)));
    let body = request.body.unwrap_or_default();
    let timeout = request.timeout;
    attempt.sent.push(SentRequest { method, url, headers, body, timeout });
    match answer {
        Ok(message) if message.body.len() > request.max_bytes => {
            Err(Cause::too_large(request.max_bytes))
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http;
    use crate::testing::Host;

    #[test]
    fn answers_match_the_most_exact_request() {
        let mut host = Host::new()
            .answer("GET https://a.example/", Answer::bytes("any"))
            .answer("GET https://a.example/?n=1", Answer::bytes("one"));
        let read = |url: &str| -> crate::Result<String> { Ok(http::get(url).send()?.text()?) };
        let texts =
            host.within(|| Ok([read("https://a.example?n=2")?, read("https://a.example?n=1")?]));
        assert_eq!(texts, Ok(["any", "one"].map(str::to_owned)));
        assert_eq!(host.requests().len(), 2);
    }

    #[test]
    fn answers_go_on_over_failed_attempts() {
        let url = "https://a.example/";
        let mut host = Host::new()
            .answer("GET https://a.example/", Answer::status(500))
            .answer("GET https://a.example/", Answer::status(204));
        let mut status = || host.within(|| Ok(http::get(url).send()?.status()));
        assert!(status().is_err());
        assert_eq!([status(), status()], [Ok(204), Ok(204)]);
    }

    #[test]
    fn unanswered_requests_are_denied_and_logged() {
        let mut host = Host::new();
        let error = host.within(|| Ok(http::post("https://a.example/").send()?.status()));
        assert!(error.unwrap_err().message().contains("was denied"));
        assert_eq!(host.requests(), []);
        let (level, line) = &host.log()[0];
        assert_eq!(*level, Level::Warn);
        assert!(line.contains("`Host::answer(\"POST https://a.example/\", ..)`"), "{line}");
    }

    #[test]
    fn any_status_is_returned_on_request() {
        let mut host = Host::new().answer("GET https://a.example/", Answer::status(404));
        let response = host.within(|| Ok(http::get("https://a.example").any_status().send()?));
        let response = response.unwrap();
        assert_eq!((response.status(), response.is_success()), (404, false));
    }
}
