//! Request bodies and their limits: announced length, bytes received, rate of arrival,
//! and memory as parsed JSON. An announced length over the limit is refused before a
//! byte is read. Not here: the number of concurrent uploads (`uploads`).

use std::fmt::Display;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::domain::json::{self, JsonError, Typed, from_value};
use exosphere_orchestrator::{Error, FairPermit, Host};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::problem::{Kind, Problem};

const MIB: u64 = 1024 * 1024;

/// The largest body with the settings of a namespace, in bytes.
pub(crate) const SETTINGS_BYTES: u64 = 64 * 1024;

/// The largest body with a graph or with grants, in bytes.
pub(crate) const GRAPH_BYTES: u64 = 4 * MIB;

/// The largest body of a start request, in bytes: inputs up to their own limit, and the
/// escapes that JSON adds.
pub(crate) const START_BYTES: u64 = 40 * MIB;

/// The longest time for a whole body, and the longest pause between two of its pieces.
const IN_TIME: Duration = Duration::from_secs(60);
const NO_PROGRESS: Duration = Duration::from_secs(10);

/// The slowest accepted rate of a body, in bytes a second: a slow sender would hold an
/// upload permit almost for free.
const LEAST_RATE: u64 = 16 * 1024;

/// The size above which a body is large, in bytes. Large bodies are received and parsed
/// under a fair semaphore, with one turn per namespace.
pub(crate) const LARGE: u64 = 256 * 1024;

/// Reads a body, up to a size limit and within its deadlines.
pub(crate) async fn read(
    body: &mut Body,
    most: u64,
    too_large: impl Fn() -> Problem,
) -> Result<Vec<u8>, Problem> {
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let wait = longest_wait(begun, Instant::now(), bytes.len());
        let frame = timeout_at(wait, body.frame()).await.map_err(|_| too_slow())?;
        let Some(frame) = frame else { return Ok(bytes) };
        let data: Bytes = frame.map_err(|_| broken())?.into_data().unwrap_or_default();
        if (bytes.len() as u64).saturating_add(data.len() as u64) > most {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Returns the deadline for the next piece of a body that has sent or received `bytes`
/// so far.
pub(crate) fn longest_wait(begun: Instant, now: Instant, bytes: usize) -> Instant {
    let paid_for = Duration::from_secs(bytes as u64 / LEAST_RATE);
    let at_this_rate = begun + NO_PROGRESS.saturating_add(paid_for).min(IN_TIME);
    at_this_rate.min(now + NO_PROGRESS)
}

fn too_slow() -> Problem {
    let words = format!(
        "the body comes too slowly: it may take {} s in all, {} s without progress, and no less \
         than {LEAST_RATE} bytes a second after that",
        IN_TIME.as_secs(),
        NO_PROGRESS.as_secs()
    );
    Problem::new(Kind::TooSlow, words)
}

/// Tells whether a body is long, or may be because it announces no length.
pub(crate) fn is_long(headers: &HeaderMap) -> bool {
    announced(headers).map_or_else(
        || headers.contains_key(header::TRANSFER_ENCODING),
        |length| length > SETTINGS_BYTES,
    )
}

/// Returns the announced length of a body, in bytes.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the problem for a body over the limit, with a remedy.
pub(crate) fn too_large(most: u64, remedy: &str) -> Problem {
    let words = format!("the body is larger than {most} bytes, the limit of this path{remedy}");
    Problem::new(Kind::TooLarge, words)
}

/// Returns the problem for a body that broke off.
pub(crate) fn broken() -> Problem {
    let words = "the body broke off before its end";
    Problem::new(Kind::BrokenBody, words)
}

/// A body that was parsed as a JSON object.
pub(crate) struct Read {
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
    most: u64,
) -> Result<Read, Problem> {
    let length = announced(headers).unwrap_or(most);
    if length > most {
        return Err(too_large(most, ""));
    }
    let is_large = length > LARGE;
    let place = if is_large { host.large_body(namespace).await } else { None };
    let bytes = read(&mut body, most, || too_large(most, "")).await?;
    let turn = if is_large { host.large(namespace).await } else { None };
    drop(place);
    let json_bytes = host.json_bytes();
    let value = match is_large {
        false => object(&bytes, json_bytes),
        true => {
            let read = tokio::task::spawn_blocking(move || object(&bytes, json_bytes));
            read.await.map_err(|_| broken())?
        }
    };
    Ok(Read { value: value.map_err(|problem| *problem)?, turn })
}

/// Reads a body as an object of a type, which refuses unknown members.
pub(crate) async fn typed<T: Typed>(
    host: &Host,
    namespace: &Name,
    headers: &HeaderMap,
    body: Body,
    most: u64,
) -> Result<T, Problem> {
    let read = json(host, namespace, headers, body, most).await?;
    from_value(Value::Object(read.value)).map_err(|error| bad(&error))
}

/// Parses a body as an object, within `json_bytes` of memory.
fn object(bytes: &[u8], mut json_bytes: u64) -> Result<Map<String, Value>, Box<Problem>> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let words = "the body must be a JSON object, and begins with no '{'";
        return Err(refused(words.to_owned()).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Box::new(bad(&error)))?;
    let most = json_bytes;
    match json::read(text, &mut json_bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(refused("the body must be a JSON object".to_owned()).into()),
        Err(JsonError::TooHeavy) => Err(too_heavy(most).into()),
        Err(error @ JsonError::Malformed(_)) => Err(bad(&error).into()),
        Err(JsonError::Unfit { problems, .. }) => {
            let error = Error::Invalid { what: "the body".to_owned(), problems };
            Err(Problem::from(error).into())
        }
    }
}

fn refused(words: String) -> Problem {
    Problem::new(Kind::BadJson, words)
}

fn bad(error: &dyn Display) -> Problem {
    refused(format!("the body is not the JSON that this path takes: {error}"))
}

/// Returns the problem for a short body with too many values.
fn too_heavy(most: u64) -> Problem {
    let words = format!(
        "the body would take more than {most} bytes of memory once it is read: it has too many \
         values; the operator of the host can raise that: `exosphere serve --limit json_bytes=..`"
    );
    Problem::new(Kind::TooManyValues, words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_drip_is_given_no_more_time_than_nothing() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let rate = LEAST_RATE as usize;
        for (now, bytes, until) in
            [(0, 0, 10), (9, 9, 10), (9, 5 * rate, 15), (9, 1000 * rate, 19), (55, 1000 * rate, 60)]
        {
            assert_eq!(longest_wait(begun, at(now), bytes), at(until), "{bytes} after {now} s");
        }
    }
}
