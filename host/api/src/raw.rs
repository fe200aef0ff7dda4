//! Answers with JSON texts that the host has stored: they are sent as they are,
//! since their values would take many times the memory of the texts.
//!
//! Not here: everything else of an answer, which is made of values.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::domain::json::check_stored;
use serde_json::Value;

/// A member of an answer whose value is JSON text.
pub(crate) struct RawMember {
    /// Its key, which needs no escapes.
    pub key: &'static str,
    /// Its value.
    pub text: String,
}

impl RawMember {
    /// A member with one stored text; null if there is none.
    pub(crate) fn one(key: &'static str, text: Option<&str>) -> Self {
        RawMember { key, text: intact(text.unwrap_or("null")).to_owned() }
    }

    /// A member with a list of stored texts.
    pub(crate) fn list(key: &'static str, texts: &[String]) -> Self {
        let texts: Vec<&str> = texts.iter().map(|text| intact(text)).collect();
        RawMember { key, text: format!("[{}]", texts.join(",")) }
    }
}

/// Replaces a text that something has damaged: it would damage the whole answer.
fn intact(text: &str) -> &str {
    if check_stored(text).is_ok() { text } else { "null" }
}

/// Answers with an object that has at least one member, and these.
pub(crate) fn answer(object: &Value, members: &[RawMember]) -> Response {
    let mut body = object.to_string();
    body.pop();
    for RawMember { key, text } in members {
        body.extend([",\"", key, "\":", text]);
    }
    body.push('}');
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn stored_texts_are_sent_as_they_are() {
        let members = [
            RawMember::list("outputs", &[r#"{"a":1.50}"#.to_owned(), "{".to_owned()]),
            RawMember::one("data", Some("[18446744073709551616]")),
            RawMember::one("none", None),
        ];
        let body = answer(&json!({"x": 1}), &members).into_body().collect().await.unwrap();
        let expected =
            r#"{"x":1,"outputs":[{"a":1.50},null],"data":[18446744073709551616],"none":null}"#;
        assert_eq!(body.to_bytes(), expected);
    }
}
