//! Requests by `wasi:http`: one exchange, from the request to the end of the response's
//! body. A plugin that makes no request does not import it.
//!
//! Not here: which request is made, and the words for its response.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, HeaderError, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme, http_error_code,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::http::{Cause, ErrorKind, Incoming, Outgoing};

/// Bytes of a body that are read at a time.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The number of requests of this attempt. An instance of a plugin executes one attempt.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Returns the number of requests that this attempt has made so far, denied ones
/// included.
pub(crate) fn requests() -> u64 {
    REQUESTS.load(Relaxed)
}

/// Makes a request, and waits for the end of its response.
pub(crate) fn exchange(request: Outgoing) -> Result<Incoming, Cause> {
    let deadline = Deadline::new(request.timeout);
    let outgoing = prepare(&request)?;
    let body = match &request.body {
        Some(bytes) => Some((outgoing.body().map_err(|()| no_body())?, bytes)),
        None => None,
    };
    let future = handle(outgoing, None).map_err(|code| cause(&code))?;
    // The host counts a request from here on, too.
    REQUESTS.fetch_add(1, Relaxed);
    let mut exchange = Exchange { future, response: None, deadline };
    // Kept until the response is read: dropped, an unfinished body ends the exchange.
    let _unfinished = match body {
        Some((body, bytes)) => exchange.write(body, bytes)?,
        None => None,
    };
    let response = exchange.response()?;
    exchange.read(&response, request.max_bytes)
}

/// The time until the whole response must be there, if the node set one.
struct Deadline(Option<(Pollable, Duration)>);

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Deadline(timeout.map(|time| (subscribe_duration(nanos(time)), time)))
    }

    /// Waits for one of some events, or for the deadline.
    fn wait(&self, events: &[&Pollable]) -> Result<(), Cause> {
        let mut all = events.to_vec();
        all.extend(self.0.as_ref().map(|(clock, _)| clock));
        let ready = poll(&all);
        match &self.0 {
            // Ready are indices of the list, of which the clock is the last.
            Some((_, time)) if ready.iter().any(|at| *at as usize == events.len()) => {
                let cause = format!("no whole response within {time:?}");
                Err(Cause::failed(ErrorKind::Timeout, cause))
            }
            _ => Ok(()),
        }
    }
}

/// A request under way.
struct Exchange {
    future: FutureIncomingResponse,
    /// The response, if it came before the end of the request.
    response: Option<IncomingResponse>,
    deadline: Deadline,
}

impl Exchange {
    /// Writes the body of the request, and returns it if it is unfinished: if the server
    /// refuses the request or closes the connection before it has read everything. Its
    /// response then says why.
    fn write(&mut self, body: OutgoingBody, bytes: &[u8]) -> Result<Option<OutgoingBody>, Cause> {
        let stream = body.write().map_err(|()| no_body())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(writable_bytes) = self.wait_for_room(&stream)? else { return Ok(Some(body)) };
            let (chunk, remainder) = rest.split_at(writable_bytes.min(rest.len()));
            if stream.write(chunk).is_err() {
                return Ok(Some(body));
            }
            rest = remainder;
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(|code| cause(&code))?;
        Ok(None)
    }

    /// Waits until a part of the body can be written, and returns the bytes for which
    /// there is room, or `None` if the server reads no more.
    fn wait_for_room(&mut self, stream: &OutputStream) -> Result<Option<usize>, Cause> {
        let writable = stream.subscribe();
        while !writable.ready() {
            if self.response.is_some() {
                self.deadline.wait(&[&writable])?;
                continue;
            }
            let answered = self.future.subscribe();
            self.deadline.wait(&[&writable, &answered])?;
            if answered.ready() {
                let response = self.response()?;
                let is_success = (200..300).contains(&response.status());
                self.response = Some(response);
                if !is_success {
                    return Ok(None);
                }
            }
        }
        Ok(stream.check_write().ok().map(|room| usize::try_from(room).unwrap_or(usize::MAX)))
    }

    /// Waits for the response, and takes it.
    fn response(&mut self) -> Result<IncomingResponse, Cause> {
        if let Some(response) = self.response.take() {
            return Ok(response);
        }
        self.deadline.wait(&[&self.future.subscribe()])?;
        let response = self.future.get().and_then(Result::ok);
        let response = response.ok_or_else(|| broken("the host gave no response"))?;
        response.map_err(|code| cause(&code))
    }

    /// Reads the response with its body.
    fn read(&self, response: &IncomingResponse, max_bytes: usize) -> Result<Incoming, Cause> {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let headers = response.headers().entries().into_iter();
        let mut incoming = Incoming {
            status: response.status(),
            headers: headers.map(|(name, value)| (name, text(value))).collect(),
            body: Vec::new(),
        };
        let body = response.consume().map_err(|()| no_body())?;
        let stream = body.stream().map_err(|()| no_body())?;
        loop {
            self.deadline.wait(&[&stream.subscribe()])?;
            match stream.read(CHUNK_BYTES) {
                Ok(chunk) => incoming.body.extend(chunk),
                Err(StreamError::Closed) => return Ok(incoming),
                Err(StreamError::LastOperationFailed(error)) => {
                    let code = http_error_code(&error);
                    let unknown = || broken("the response broke off");
                    return Err(code.map_or_else(unknown, |code| cause(&code)));
                }
            }
            if incoming.body.len() > max_bytes {
                return Err(Cause::too_large(max_bytes));
            }
        }
    }
}

fn prepare(request: &Outgoing) -> Result<OutgoingRequest, Cause> {
    let fields = Fields::new();
    for (name, value) in &request.headers {
        fields.append(name, value.as_bytes()).map_err(|error| refused_header(name, &error))?;
    }
    if let Some(key) = &request.idempotency_key {
        match fields.append("idempotency-key", key.as_bytes()) {
            // The host sends the header itself.
            Ok(()) | Err(HeaderError::Forbidden) => {}
            Err(error) => return Err(refused_header("idempotency-key", &error)),
        }
    }
    let method = match request.method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        other => Method::Other(other.to_owned()),
    };
    let scheme = if request.url.is_https { Scheme::Https } else { Scheme::Http };
    let refused = |part: &str| Cause::invalid(format!("the host refuses its {part}"));
    let outgoing = OutgoingRequest::new(fields);
    outgoing.set_method(&method).map_err(|()| refused("method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| refused("scheme"))?;
    let authority = outgoing.set_authority(Some(&request.url.authority));
    authority.map_err(|()| refused("host name or port"))?;
    let path = outgoing.set_path_with_query(Some(&request.url.path_with_query));
    path.map_err(|()| refused("path or query, of which it takes 8 KiB"))?;
    Ok(outgoing)
}

fn refused_header(name: &str, error: &HeaderError) -> Cause {
    Cause::invalid(match error {
        HeaderError::Forbidden => format!(
            "its header {name} is not for a node to set: the host sets it, or a server may \
             take the request for another one"
        ),
        HeaderError::InvalidSyntax | HeaderError::Immutable => {
            format!("the host refuses its header {name}")
        }
    })
}

/// Returns the cause of a message whose body the host does not give, which it always does.
fn no_body() -> Cause {
    broken("the host gave no body")
}

fn broken(cause: &str) -> Cause {
    Cause::failed(ErrorKind::Broken, cause)
}

/// Translates an error of the host.
fn cause(code: &ErrorCode) -> Cause {
    use ErrorCode as Code;
    let (kind, cause) = match code {
        Code::HttpRequestDenied => return Cause::denied(),
        Code::DestinationIpProhibited => {
            return Cause::new(
                ErrorKind::Denied,
                "was denied: its host has no address on the public internet; the operator can \
                 allow its network: `exosphere serve --http-allow-net NETWORK`",
            );
        }
        Code::HttpRequestUriInvalid => {
            return Cause::invalid("the host refuses its URL; the log of this attempt says why");
        }
        Code::HttpRequestBodySize(_) => {
            return Cause::invalid("its body is not as long as its content-length says");
        }
        Code::HttpRequestHeaderSectionSize(_) | Code::HttpRequestHeaderSize(_) => {
            return Cause::invalid("its headers are too many or too large");
        }
        Code::HttpRequestLengthRequired
        | Code::HttpRequestMethodInvalid
        | Code::HttpRequestUriTooLong
        | Code::HttpRequestTrailerSectionSize(_)
        | Code::HttpRequestTrailerSize(_) => return Cause::invalid(words(code)),
        Code::DnsError(_) => (ErrorKind::Unreachable, "its host name was not found".into()),
        Code::DestinationNotFound
        | Code::DestinationUnavailable
        | Code::DestinationIpUnroutable => {
            (ErrorKind::Unreachable, "its host cannot be reached".into())
        }
        Code::ConnectionRefused => (ErrorKind::Unreachable, "connection refused".into()),
        Code::DnsTimeout
        | Code::ConnectionTimeout
        | Code::ConnectionReadTimeout
        | Code::ConnectionWriteTimeout
        | Code::HttpResponseTimeout => (ErrorKind::Timeout, words(code)),
        Code::TlsCertificateError => {
            (ErrorKind::Broken, "the certificate of its host is not trusted".into())
        }
        Code::HttpResponseIncomplete | Code::ConnectionTerminated => {
            (ErrorKind::Broken, "the server closed the connection before the end".into())
        }
        Code::HttpProtocolError => (ErrorKind::Broken, "the response is not valid HTTP".into()),
        Code::HttpResponseHeaderSectionSize(_) => {
            (ErrorKind::Broken, "the headers of the response are too large".into())
        }
        Code::ConfigurationError => (
            ErrorKind::Broken,
            "https cannot be used on this host; the log of the host says why".into(),
        ),
        _ => (ErrorKind::Broken, words(code)),
    };
    Cause::failed(kind, cause)
}

/// Returns the name of an error as words: `HttpUpgradeFailed` is `http upgrade failed`.
fn words(code: &ErrorCode) -> String {
    let name = format!("{code:?}");
    let name = name.trim_start_matches("ErrorCode::");
    let name = name.split(['(', ' ']).next().unwrap_or_default();
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}
