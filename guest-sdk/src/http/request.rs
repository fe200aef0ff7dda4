//! Requests: the builder, and the checks before one is sent.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::message::header;
use super::url::{self, Url};
use super::{Cause, Error, Outgoing, Response};
use crate::context;
use crate::imports::http as host;

/// The header by which a server recognizes a repeated request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request that is being put together. [`send`](Request::send) makes it.
#[must_use = "a request does nothing until it is sent"]
#[derive(Clone)]
pub struct Request {
    method: String,
    url: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Option<Body>,
    is_idempotent: bool,
    takes_any_status: bool,
    timeout: Option<Duration>,
    max_bytes: usize,
}

/// The body of a request.
#[derive(Clone)]
struct Body {
    /// The bytes, or the reason why there are none.
    bytes: Result<Vec<u8>, String>,
    content_type: Option<&'static str>,
}

impl Request {
    pub(crate) fn new(method: String, url: String) -> Self {
        Request {
            method,
            url,
            query: String::new(),
            headers: Vec::new(),
            body: None,
            is_idempotent: false,
            takes_any_status: false,
            timeout: None,
            max_bytes: usize::MAX,
        }
    }

    /// Adds a parameter to the query of the URL. Name and value are percent-encoded.
    pub fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        url::add_parameter(&mut self.query, name, &value.to_string());
        self
    }

    /// Adds a header. The host sets `Host` and the headers of the connection itself, and
    /// refuses headers by which a server takes the request for another one.
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Sets the body to bytes, without a `Content-Type`.
    pub fn body(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.with_body(Ok(bytes.into()), None)
    }

    /// Sets the body to text. `Content-Type` is `text/plain; charset=utf-8`, unless a
    /// header gives another.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.with_body(Ok(text.into().into_bytes()), Some("text/plain; charset=utf-8"))
    }

    /// Sets the body to a value as JSON. `Content-Type` is `application/json`, unless a
    /// header gives another. If the value cannot be written as JSON,
    /// [`send`](Request::send) fails.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string());
        self.with_body(bytes, Some("application/json"))
    }

    fn with_body(self, bytes: Result<Vec<u8>, String>, content_type: Option<&'static str>) -> Self {
        Request { body: Some(Body { bytes, content_type }), ..self }
    }

    /// Sends the header `Idempotency-Key: RUN/STATE/REQUEUE/N`, unless a header of this
    /// name was added: the [key](crate::context::idempotency_key) of the work, and the
    /// number of this request among those of the attempt.
    ///
    /// It is the same in each attempt of the same work if the node makes its requests in
    /// the same order. So leave repetitions to the retry policy, and do not repeat a
    /// request in the same attempt.
    ///
    /// An operator can let the host send this header with each request of a plugin
    /// (`exosphere grant add PLUGIN --idempotency-header`). The value is the same.
    pub fn idempotent(self) -> Self {
        Request { is_idempotent: true, ..self }
    }

    /// Sets the time until the whole response must be there. The host's limit
    /// `http_call_ms` applies too, and ends the attempt.
    pub fn timeout(self, time: Duration) -> Self {
        Request { timeout: Some(time), ..self }
    }

    /// Sets the most bytes that the body of the response may have. The host's limit
    /// `http_response_bytes` applies too, and ends the attempt.
    pub fn max_bytes(self, bytes: usize) -> Self {
        Request { max_bytes: bytes, ..self }
    }

    /// Makes [`send`](Request::send) return the response whatever its status is.
    pub fn any_status(self) -> Self {
        Request { takes_any_status: true, ..self }
    }

    /// Makes the request, and waits for the response with its whole body.
    ///
    /// # Errors
    /// If there is no response, or if its status is not one of 200 to 299. See
    /// [`ErrorKind`](super::ErrorKind).
    pub fn send(self) -> Result<Response, Error> {
        let shown = format!("{} {}", self.method, url::shown(&self.url));
        let takes_any_status = self.takes_any_status;
        let answer = self.outgoing().map_err(Cause::invalid).and_then(host::exchange);
        match answer {
            Ok(message) => {
                let response = Response::new(shown, message);
                if takes_any_status || response.is_success() {
                    Ok(response)
                } else {
                    Err(Error::from_response(response))
                }
            }
            Err(cause) => Err(Error::new(&shown, cause)),
        }
    }

    /// Returns the request with everything that is sent.
    ///
    /// # Errors
    /// The reason why the request is not valid.
    fn outgoing(mut self) -> Result<Outgoing, String> {
        if !is_token(&self.method) {
            return Err(format!("{:?} is not a method", self.method));
        }
        let url = Url::parse(&self.url, &self.query)?;
        let body = self.take_body()?;
        for (name, value) in &self.headers {
            if !is_token(name) {
                return Err(format!("{name:?} is not the name of a header"));
            }
            if !is_value(value) {
                return Err(format!("the value of its header {name} has control characters"));
            }
        }
        let has_key = header(&self.headers, IDEMPOTENCY_KEY).is_some();
        // Requests count as the host counts them, so both make the same key.
        let key = || format!("{}/{}", context::idempotency_key(), host::requests() + 1);
        Ok(Outgoing {
            idempotency_key: (self.is_idempotent && !has_key).then(key),
            method: self.method,
            url,
            headers: self.headers,
            body,
            timeout: self.timeout,
            max_bytes: self.max_bytes,
        })
    }

    /// Takes the body out of the request, and adds the headers that describe it.
    fn take_body(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some(Body { bytes, content_type }) = self.body.take() else {
            // RFC 9110, 8.6: with these methods, servers expect a length in any case.
            if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
                self.set_default("content-length", "0");
            }
            return Ok(None);
        };
        if let Some(content_type) = content_type {
            self.set_default("content-type", content_type);
        }
        let bytes =
            bytes.map_err(|cause| format!("its body cannot be written as JSON: {cause}"))?;
        // Many servers refuse a body of unknown length.
        let length = bytes.len().to_string();
        self.set_default("content-length", &length);
        match header(&self.headers, "content-length") {
            Some(declared) if declared != length => {
                Err(format!("its content-length is {declared}, but its body has {length} bytes"))
            }
            _ => Ok(Some(bytes)),
        }
    }

    /// Adds a header, unless there is one with this name.
    fn set_default(&mut self, name: &str, value: &str) {
        if header(&self.headers, name).is_none() {
            self.headers.push((name.into(), value.into()));
        }
    }
}

/// Shows the method and the URL without its query. Headers may hold secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {})", self.method, url::shown(&self.url))
    }
}

/// Returns whether a text is a token of HTTP (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_token)
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::http::{self, ErrorKind};
    use crate::testing::{Answer, Host, SentRequest};

    const URL: &str = "https://a.example/x";

    fn host() -> Host {
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "REPORT"];
        let answered =
            |host: Host, method| host.answer(&format!("{method} {URL}"), Answer::bytes("hello"));
        methods.into_iter().fold(Host::new().run_id("r"), answered)
    }

    fn sent(request: Request) -> SentRequest {
        let mut host = host();
        host.within(|| Ok(request.send()?)).unwrap();
        host.requests()[0].clone()
    }

    fn error(request: Request) -> Error {
        let mut error = None;
        let _ = host().within(|| {
            error = request.send().err();
            Ok(())
        });
        error.unwrap()
    }

    #[test]
    fn a_request_has_its_parts() {
        let headers = |sent: &SentRequest| sent.headers.clone();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let request = sent(http::get(URL).query("n", 3).header("x-a", 4));
        assert_eq!((request.method.as_str(), request.body.len()), ("GET", 0));
        assert_eq!(request.url, format!("{URL}?n=3"));
        assert_eq!(headers(&request), [owned(("x-a", "4"))]);
        let request = sent(http::put(URL).json(&json!({"n": 1})));
        let described = [("content-type", "application/json"), ("content-length", "7")];
        assert_eq!(headers(&request), described.map(owned));
        assert_eq!(request.json(), json!({"n": 1}));
        let request = sent(http::patch(URL).header("Content-Type", "text/csv").text("a,b"));
        let described = [("Content-Type", "text/csv"), ("content-length", "3")];
        assert_eq!(headers(&request), described.map(owned));
        let request = sent(http::request("REPORT", URL).body([0, 255]));
        assert_eq!((request.method.as_str(), &request.body[..]), ("REPORT", &[0, 255][..]));
        assert_eq!(sent(http::post(URL)).header("content-length"), Some("0"));
        assert_eq!(sent(http::delete(URL)).headers, []);
    }

    #[test]
    fn an_invalid_request_fails_permanently_unsent() {
        let composite_keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        for (request, words) in [
            (http::get("a.example"), "GET a.example cannot be made: its URL must begin with"),
            (http::request("G T", URL), "\"G T\" is not a method"),
            (http::get(URL).header("x y", "z"), "\"x y\" is not the name of a header"),
            (http::get(URL).header("x", "a\r\nb: c"), "the value of its header x has control"),
            (http::post(URL).json(&composite_keys), "its body cannot be written as JSON: "),
            (http::post(URL).text("abc").header("content-length", 2), "its body has 3 bytes"),
        ] {
            let error = error(request);
            assert!(error.message().contains(words), "{error}");
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Invalid, false));
        }
    }

    #[test]
    fn each_request_of_an_attempt_has_its_key() {
        let mut host = host();
        let mut attempt = || {
            let done = host.within(|| {
                // Requests that are not sent do not count, denied ones do.
                assert!(http::get("a.example").send().is_err());
                assert!(http::get("https://b.example/").send().is_err());
                http::post(URL).idempotent().send()?;
                http::post(URL).send()?;
                http::post(URL).idempotent().send()?;
                http::post(URL).header("Idempotency-Key", "mine").idempotent().send()?;
                Ok(())
            });
            done.unwrap();
            let key = |sent: &SentRequest| sent.header("idempotency-key").map(str::to_owned);
            host.requests().iter().map(key).collect::<Vec<_>>()
        };
        let keys = [Some("r/1/0/2"), None, Some("r/1/0/4"), Some("mine")];
        assert_eq!(attempt(), keys.map(|key| key.map(str::to_owned)));
        assert_eq!(attempt(), keys.map(|key| key.map(str::to_owned)));
    }

    #[test]
    fn shown_requests_hide_their_headers() {
        let request = http::get("https://a.example/x?q=hush").header("authorization", "hush");
        assert_eq!(format!("{request:?}"), "Request(GET https://a.example/x)");
    }
}
