//! Responses that may be large: assembled from JSON texts without parsing them again,
//! and holding their memory permit until they have been sent. Not here: their content.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::AnswerPermit;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;

/// Returns the JSON text of an object, with `texts` as further members that are JSON
/// text already. Parsing and writing those again would take many times their length in
/// memory.
pub(crate) fn with_texts(object: &Value, texts: &[(&str, &str)]) -> String {
    let mut json = object.to_string();
    json.reserve(texts.iter().map(|(name, text)| name.len() + text.len() + 8).sum());
    json.pop();
    for (name, text) in texts {
        if !json.ends_with('{') {
            json.push(',');
        }
        json.push('"');
        json.push_str(name);
        json.push_str("\":");
        json.push_str(text);
    }
    json.push('}');
    json
}

/// Returns the JSON text of a list of JSON texts.
pub(crate) fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let bytes: usize = texts.iter().map(|text| text.as_ref().len() + 1).sum();
    let mut json = String::with_capacity(bytes + 2);
    json.push('[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        json.push_str(text.as_ref());
    }
    json.push(']');
    json
}

/// Returns a JSON response. It releases its memory permit, if it has one, after it has
/// been sent.
pub(crate) fn json(text: String, place: Option<AnswerPermit>) -> Response {
    let body = match place {
        None => Body::from(text),
        Some(place) => Body::new(Held { body: Body::from(text), _place: place }),
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A body with its memory permit.
struct Held {
    body: Body,
    _place: AnswerPermit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_members_as_they_are() {
        let texts = [("big", "18446744073709551615"), ("list", &*list(&["{\"a\":1}", "2"]))];
        let made = with_texts(&json!({"a": "x"}), &texts);
        assert_eq!(made, r#"{"a":"x","big":18446744073709551615,"list":[{"a":1},2]}"#);
        assert_eq!(with_texts(&json!({}), &[("a", "null")]), r#"{"a":null}"#);
        assert_eq!(list::<&str>(&[]), "[]");
    }
}
