//! Request bodies and their limits: announced length, bytes received, rate of arrival,
//! and memory as parsed JSON. An announced length over the limit is refused before a
//! byte is read. Not here: the number of concurrent uploads (`uploads`).

use std::fmt::Display;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use exosphere_orchestrator::domain::graph::problems::Problems;
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::json::{self, JsonError, Spelling, Typed, read_checked};
use exosphere_orchestrator::{Error, FairPermit, Host};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::problem::Problem;
use crate::problem_kind::Kind;

const MIB: u64 = 1024 * 1024;

/// The largest body with the settings of a namespace, in bytes.
pub(crate) const MAX_SETTINGS_BYTES: u64 = 64 * 1024;

/// The largest body with a secret, in bytes: a secret of 64 KiB, and the escapes that JSON adds.
pub(crate) const MAX_SECRET_BODY_BYTES: u64 = 512 * 1024;

/// The largest body with a graph or with grants, in bytes.
pub(crate) const MAX_GRAPH_BYTES: u64 = 4 * MIB;

/// The largest body of a start request, in bytes: inputs up to their own limit, and the
/// escapes that JSON adds.
pub(crate) const MAX_START_BYTES: u64 = 40 * MIB;

/// The longest time for a whole body, and the longest pause between two of its pieces.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest accepted rate of a body, in bytes a second: a slow sender would hold an
/// upload permit almost for free.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;

/// The size above which a body is large, in bytes. Large bodies are received and parsed
/// under a fair semaphore, with one turn per namespace.
pub(crate) const LARGE_BODY_BYTES: u64 = 256 * 1024;

/// Reads a body, up to a size limit and within its deadlines.
pub(crate) async fn read(
    body: &mut Body,
    max_bytes: u64,
    too_large: impl Fn() -> Problem,
) -> Result<Vec<u8>, Problem> {
    let (started, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let wait = progress_deadline(started, Instant::now(), bytes.len());
        let frame = timeout_at(wait, body.frame()).await.map_err(|_| too_slow())?;
        let Some(frame) = frame else { return Ok(bytes) };
        let data: Bytes = frame.map_err(|_| broken())?.into_data().unwrap_or_default();
        if (bytes.len() as u64).saturating_add(data.len() as u64) > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Returns the deadline for the next piece of a body of which `bytes` bytes have been sent
/// or received so far. Each byte earns time, up to the limit for a whole body.
pub(crate) fn progress_deadline(started: Instant, now: Instant, bytes: usize) -> Instant {
    let earned_time = Duration::from_secs(bytes as u64 / MIN_BYTES_PER_SECOND);
    let rate_deadline = started + PROGRESS_TIMEOUT.saturating_add(earned_time).min(BODY_TIMEOUT);
    rate_deadline.min(now + PROGRESS_TIMEOUT)
}

fn too_slow() -> Problem {
    let message = format!(
        "the body arrives too slowly: it may take {} s in all and {} s without progress; send at \
         least {MIN_BYTES_PER_SECOND} bytes a second",
        BODY_TIMEOUT.as_secs(),
        PROGRESS_TIMEOUT.as_secs()
    );
    Problem::new(Kind::TooSlow, message)
}

/// Returns whether a body is long, or may be because it announces no length.
pub(crate) fn is_long(headers: &HeaderMap) -> bool {
    announced(headers).map_or_else(
        || headers.contains_key(header::TRANSFER_ENCODING),
        |length| length > MAX_SETTINGS_BYTES,
    )
}

/// Refuses an encoded body: its bytes are not those that its announced length bounds.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    let message = "the body has a content encoding, and bodies of requests are sent as they are; leave \
                   `Content-Encoding` out";
    Err(Problem::new(Kind::EncodedBody, message))
}

/// Returns the announced length of a body, in bytes.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the problem for a body over the limit, with a remedy.
pub(crate) fn too_large(max_bytes: u64, remedy: &str) -> Problem {
    let message =
        format!("the body is larger than {max_bytes} bytes, the limit of this path{remedy}");
    Problem::new(Kind::TooLarge, message)
}

/// Returns the problem for a body that ended early.
pub(crate) fn broken() -> Problem {
    let message = "the body ended before its announced length; send the request again";
    Problem::new(Kind::BrokenBody, message)
}

/// A body that was parsed as a JSON object.
pub(crate) struct JsonBody {
    pub value: Map<String, Value>,
    /// The fair semaphore permit of a large body; to be held for as long as the value.
    pub turn: Option<FairPermit<Name>>,
}

/// Reads a body as a JSON object. A large body takes one turn of its namespace to
/// arrive and another to be parsed, so that a slow sender does not block parsing. Large
/// bodies are parsed on a blocking thread, away from the threads that serve requests.
pub(crate) async fn json(
    host: &Host,
    namespace: &Name,
    headers: &HeaderMap,
    mut body: Body,
    max_bytes: u64,
) -> Result<JsonBody, Problem> {
    check_encoding(headers)?;
    let length = announced(headers).unwrap_or(max_bytes);
    if length > max_bytes {
        return Err(too_large(max_bytes, ""));
    }
    let is_large = length > LARGE_BODY_BYTES;
    let permit = if is_large { host.large_body(namespace).await } else { None };
    let bytes = read(&mut body, max_bytes, || too_large(max_bytes, "")).await?;
    let turn = if is_large { host.large(namespace).await } else { None };
    drop(permit);
    let json_bytes = host.json_bytes();
    let value = if is_large {
        let read = tokio::task::spawn_blocking(move || object(&bytes, json_bytes));
        read.await.map_err(|_| broken())?
    } else {
        object(&bytes, json_bytes)
    };
    Ok(JsonBody { value: value.map_err(|problem| *problem)?, turn })
}

/// Reads a body as an object of a type, which refuses unknown members.
pub(crate) async fn typed<T: Typed>(
    host: &Host,
    namespace: &Name,
    headers: &HeaderMap,
    body: Body,
    max_bytes: u64,
) -> Result<T, Problem> {
    let read = json(host, namespace, headers, body, max_bytes).await?;
    from_object(read.value)
}

/// Reads a small body as an object of a type, which belongs to no namespace.
pub(crate) async fn unshared<T: Typed>(
    host: &Host,
    headers: &HeaderMap,
    mut body: Body,
    max_bytes: u64,
) -> Result<T, Problem> {
    check_encoding(headers)?;
    if announced(headers).is_some_and(|length| length > max_bytes) {
        return Err(too_large(max_bytes, ""));
    }
    let bytes = read(&mut body, max_bytes, || too_large(max_bytes, "")).await?;
    let value = object(&bytes, host.json_bytes()).map_err(|problem| *problem)?;
    from_object(value)
}

/// Reads an object as a type, or returns every problem with its path.
fn from_object<T: Typed>(object: Map<String, Value>) -> Result<T, Problem> {
    let mut problems = Problems::default();
    let read = read_checked(object, "$", Spelling::Json, &mut problems);
    problems.or(read).map_err(Problem::bad_json)
}

/// Parses a body as an object, within `json_bytes` of memory.
fn object(bytes: &[u8], mut json_bytes: u64) -> Result<Map<String, Value>, Box<Problem>> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let message = "the body is not a JSON object: it does not begin with '{'";
        return Err(refused(message.to_owned()).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Box::new(bad_body(&error)))?;
    let max_bytes = json_bytes;
    match json::read(text, &mut json_bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(refused("the body is not a JSON object".to_owned()).into()),
        Err(JsonError::TooLargeInMemory) => Err(too_many_values(max_bytes).into()),
        Err(error @ JsonError::Malformed(_)) => Err(bad_body(&error).into()),
        Err(JsonError::Unfit { problems, .. }) => {
            let error = Error::Invalid { subject: "the body".to_owned(), problems };
            Err(Problem::from(error).into())
        }
    }
}

fn refused(message: String) -> Problem {
    Problem::new(Kind::BadJson, message)
}

fn bad_body(error: &dyn Display) -> Problem {
    refused(format!("the body is not valid for this path: {error}"))
}

/// Returns the problem for a short body with too many values.
fn too_many_values(max_bytes: u64) -> Problem {
    let message = format!(
        "the body has too many values: parsed, it would take more than {max_bytes} bytes of memory; \
         send fewer, or ask the operator to raise the limit with \
         `exosphere serve --limit json_bytes=..`"
    );
    Problem::new(Kind::TooManyValues, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slow_bodies_get_no_extra_time() {
        let started = Instant::now();
        let at = |seconds| started + Duration::from_secs(seconds);
        let rate = MIN_BYTES_PER_SECOND as usize;
        for (now, bytes, until) in
            [(0, 0, 10), (9, 9, 10), (9, 5 * rate, 15), (9, 1000 * rate, 19), (55, 1000 * rate, 60)]
        {
            assert_eq!(
                progress_deadline(started, at(now), bytes),
                at(until),
                "{bytes} after {now} s"
            );
        }
    }
}
