//! Bodies of requests: refused by their announced length before a byte is
//! read, and by what really comes after that. Those of plugins are in `uploads`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

const MIB: u64 = 1024 * 1024;

/// The most bytes of the settings of a namespace.
pub(crate) const SETTINGS_BYTES: u64 = 64 * 1024;

/// The most bytes of a graph, or of grants.
pub(crate) const GRAPH_BYTES: u64 = 4 * MIB;

/// The most bytes of a start request: inputs up to their own limit, and what
/// JSON adds in escapes.
pub(crate) const START_BYTES: u64 = 40 * MIB;

/// The bytes of a body, if there are not too many.
pub(crate) async fn bytes(headers: &HeaderMap, body: Body, most: u64) -> Result<Vec<u8>, Problem> {
    if announced(headers).is_some_and(|length| length > most) {
        return Err(too_large(most, ""));
    }
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(all) => Ok(all.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(most, "")),
        Err(_) => Err(broken()),
    }
}

/// Says with the refusal of a long body that the connection ends: it may be that
/// the body was not read, and then nothing else can follow it.
pub(crate) async fn last_of_its_connection(request: Request, next: Next) -> Response {
    let long = announced(request.headers()).map_or_else(
        || request.headers().contains_key(header::TRANSFER_ENCODING),
        |length| length > SETTINGS_BYTES,
    );
    let mut answer = next.run(request).await;
    if long && answer.status().is_client_error() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// How long a body says it is.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The refusal of a body that is too long, with what can be done about it.
pub(crate) fn too_large(most: u64, remedy: &str) -> Problem {
    let words = format!("the body is larger than {most} bytes, the limit of this path{remedy}");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", words)
}

/// The refusal of a body that has no end.
pub(crate) fn broken() -> Problem {
    let words = "the body broke off before its end";
    Problem::new(StatusCode::BAD_REQUEST, "broken-body", words)
}

/// A body as a JSON object. An array is none, though it would be read by the order
/// of what a type is made of.
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    most: u64,
) -> Result<T, Problem> {
    let bytes = bytes(headers, body, most).await?;
    let bad = |words| Problem::new(StatusCode::BAD_REQUEST, "bad-json", words);
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("the body must be a JSON object, and begins with no '{'".to_owned()));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("the body is not the JSON that this path takes: {error}")))
}
