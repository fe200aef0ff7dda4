//! Compression of answers: gzip, for callers that accept it. Answers are compressed whole, after
//! their handler has made them. Requests are never decompressed: a small body could become a
//! large one.
//!
//! Not here: which routes make large answers, and the memory that these hold (`answer`).

use std::io::Write;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::sync::Semaphore;

use crate::held_body::HeldBody;

/// The smallest answer that is compressed, in bytes: a shorter one fits into one packet.
const MIN_BYTES: u64 = 1024;

/// The largest answer that is compressed on the thread that serves the request, in bytes: that
/// takes less than a millisecond.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// The number of large answers that are compressed at a time. Further ones are sent as they are,
/// so that no answer waits for another.
const MAX_COMPRESSIONS: usize = 2;

static COMPRESSIONS: Semaphore = Semaphore::const_new(MAX_COMPRESSIONS);

/// Returns whether a caller accepts gzip.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        // A weight of zero forbids a coding.
        let is_forbidden = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        };
        is_gzip && !parts.any(is_forbidden)
    })
}

/// Compresses the body of an answer, if that is worth it.
pub(crate) async fn compress(response: Response<Body>) -> Response<Body> {
    if !is_compressible(&response) {
        return response;
    }
    // The body keeps its memory permit until the other has been sent.
    let (mut parts, mut body) = response.into_parts();
    let Ok(plain) = (&mut body).collect().await.map(|collected| collected.to_bytes()) else {
        return Response::from_parts(parts, body);
    };
    let packed = if plain.len() <= MAX_INLINE_BYTES {
        gzip(&plain)
    } else {
        gzip_elsewhere(plain.clone()).await
    };
    let Some(packed) = packed.filter(|packed| packed.len() < plain.len()) else {
        return Response::from_parts(parts, Body::new(HeldBody::new(plain.into(), body)));
    };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::new(HeldBody::new(packed.into(), body)))
}

/// Returns whether an answer is whole, long enough, and text. One with an entity tag is not: the
/// tag names its exact bytes.
fn is_compressible(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let length = HttpBody::size_hint(response.body()).exact();
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_text = [&b"application/json"[..], b"application/problem+json", b"text/"];
    length.is_some_and(|length| length >= MIN_BYTES)
        && is_text.iter().any(|text| media_type.starts_with(text))
        && !headers.contains_key(ETAG)
        && !headers.contains_key(CONTENT_ENCODING)
}

/// Compresses a large text on a thread that may block; returns nothing if too many texts are
/// being compressed.
async fn gzip_elsewhere(plain: Bytes) -> Option<Vec<u8>> {
    let permit = COMPRESSIONS.try_acquire().ok()?;
    let packed = tokio::task::spawn_blocking(move || {
        let packed = gzip(&plain);
        drop(permit);
        packed
    });
    packed.await.ok().flatten()
}

fn gzip(plain: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn gzip_is_accepted_unless_its_weight_is_zero() {
        let accepts = |value: &'static str| {
            is_accepted(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        for value in ["gzip", "br, GZIP", "deflate;q=1, gzip;q=0.5", "gzip; q=1"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "identity", "gzip;q=0", "gzip; q=0.0", "x-gzip2", "*"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    fn answer(media_type: &'static str, text: &str) -> Response<Body> {
        let response = Response::builder().header(CONTENT_TYPE, media_type);
        response.body(Body::from(text.to_owned())).unwrap()
    }

    async fn read(response: Response<Body>) -> (bool, Vec<u8>) {
        let is_packed = response.headers().contains_key(CONTENT_ENCODING);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (is_packed, bytes.to_vec())
    }

    #[tokio::test]
    async fn long_texts_are_compressed_and_short_ones_not() {
        for (length, is_long) in [(20, false), (2_000, true), (300_000, true)] {
            let text = "0123456789".repeat(length / 10);
            let (is_packed, bytes) = read(compress(answer("application/json", &text)).await).await;
            assert_eq!(is_packed, is_long, "{length}");
            let mut unpacked = String::new();
            if is_packed {
                assert!(bytes.len() < text.len() / 10);
                GzDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap();
            } else {
                unpacked = String::from_utf8(bytes).unwrap();
            }
            assert_eq!(unpacked, text);
        }
        let text = "0123456789".repeat(30_000);
        let _busy = COMPRESSIONS.acquire_many(MAX_COMPRESSIONS as u32).await.unwrap();
        let (is_packed, bytes) = read(compress(answer("application/json", &text)).await).await;
        assert!(!is_packed && bytes == text.as_bytes(), "too many at a time");
    }

    #[tokio::test]
    async fn binary_and_tagged_answers_pass_plainly() {
        let text = "0123456789".repeat(300);
        assert!(!read(compress(answer("application/wasm", &text)).await).await.0);
        let mut tagged = answer("application/json", &text);
        tagged.headers_mut().insert(ETAG, HeaderValue::from_static("\"a\""));
        assert!(!read(compress(tagged).await).await.0);
    }
}
