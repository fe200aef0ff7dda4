//! Request ids: every answer has one (`x-request-id`), and every line that is logged for a
//! request names it. A caller may choose it, so that its own log and the host's can be joined.
//!
//! Not here: the incident ids of internal errors, of which one request may have several.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use exosphere_orchestrator::random_id;

/// The header of a request id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that a caller can choose, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Returns the id of a request: that of the caller if it is well formed, else a new one.
pub(crate) fn of_request(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_well_formed(id.as_bytes()) => id.clone(),
        _ => generate(),
    }
}

/// Returns the text of an id.
pub(crate) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// Returns whether an id is short and has no characters that a log or a shell would interpret.
fn is_well_formed(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(is_plain)
}

fn generate() -> HeaderValue {
    // Hexadecimal digits are a valid value.
    HeaderValue::try_from(random_id().simple().to_string())
        .unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_well_formed_ids_are_taken() {
        let id_of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            text(&of_request(&headers)).to_owned()
        };
        let longest = "a".repeat(MAX_ID_BYTES);
        for taken in ["a", "9f:4-b_c.d", &longest] {
            assert_eq!(id_of(&[taken]), taken);
        }
        let too_long = "a".repeat(MAX_ID_BYTES + 1);
        for given in [&[][..], &[""], &["a b"], &["a\u{fc}"], &["x;y"], &[&too_long], &["a", "b"]] {
            let made = id_of(given);
            assert!(!given.contains(&made.as_str()) && made.len() == 32, "{given:?}: {made}");
            assert_ne!(made, id_of(given), "each request has an id of its own");
        }
    }
}
