//! Bodies of requests: refused by their announced length before a byte is
//! read, and by what really comes after that.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

const MIB: u64 = 1024 * 1024;

/// The most bytes of an uploaded plugin.
pub(crate) const PLUGIN_BYTES: u64 = 32 * MIB;

/// The most bytes of the settings of a namespace.
pub(crate) const SETTINGS_BYTES: u64 = 64 * 1024;

/// The most bytes of a graph, or of grants.
pub(crate) const GRAPH_BYTES: u64 = 4 * MIB;

/// The most bytes of a start request: inputs up to their own limit, and what
/// JSON adds in escapes.
pub(crate) const START_BYTES: u64 = 40 * MIB;

/// The bytes of a body, if there are not too many.
pub(crate) async fn bytes(headers: &HeaderMap, body: Body, most: u64) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let words = format!("the body is larger than {most} bytes, the limit of this path");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", words)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|value| value.parse().ok()).is_some_and(|length: u64| length > most) {
        return Err(too_large());
    }
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(all) => Ok(all.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => {
            let words = "the body broke off before its end";
            Err(Problem::new(StatusCode::BAD_REQUEST, "broken-body", words))
        }
    }
}

/// A body as JSON.
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    most: u64,
) -> Result<T, Problem> {
    let bytes = bytes(headers, body, most).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let words = format!("the body is not the JSON that this path takes: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "bad-json", words)
    })
}
