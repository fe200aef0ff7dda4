//! Leaves payloads out of an answer: for a caller who may not see them, the members that hold
//! them are absent, and `withheld` lists their names. The answer is filtered as text, so that a
//! member which is added to a type later cannot be forgotten.
//!
//! Not here: the routes whose answers hold payloads (`Route::shows_payloads`).

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use crate::problem::Problem;
use crate::problem_kind::Kind;

/// The members that hold payloads, wherever they are in the answer. A guest writes the message and
/// the details of a failure; those of the host may quote an input or an output.
const PAYLOAD_MEMBERS: [&str; 7] =
    ["data", "details", "inputs", "logs", "message", "outputs", "store"];

/// The largest depth of an answer outside of payloads. Payloads are skipped at any depth.
const MAX_DEPTH: u32 = 32;

/// Leaves the payloads out of an answer. One that is not JSON is refused whole.
pub(crate) async fn withhold(response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let is_json = response.headers().get(header::CONTENT_TYPE);
    let is_json = is_json.is_some_and(|kind| kind == "application/json");
    let (mut parts, body) = response.into_parts();
    let text = if is_json { body.collect().await.ok() } else { None };
    match text.and_then(|text| without_payloads(&text.to_bytes())) {
        Some(text) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(text))
        }
        None => {
            let message = "the answer is a payload, which this key may not see; ask an admin for \
                           another key: `exosphere key create --payloads`";
            Problem::new(Kind::Forbidden, message).into_response()
        }
    }
}

/// Returns a JSON text without the members that hold payloads. Returns `None` if it is not an
/// object that the host has written.
pub(crate) fn without_payloads(text: &[u8]) -> Option<Vec<u8>> {
    let mut filter = Filter { text, at: 0, kept: Vec::new(), withheld: BTreeSet::new() };
    filter.value(0)?;
    let rest = filter.kept.strip_prefix(b"{")?;
    let names: Vec<_> = filter.withheld.iter().map(|name| format!("\"{name}\"")).collect();
    let mut answer = format!("{{\"withheld\":[{}]", names.join(",")).into_bytes();
    if !rest.starts_with(b"}") {
        answer.push(b',');
    }
    answer.extend_from_slice(rest);
    Some(answer)
}

/// A text that is read once, and what is kept of it.
struct Filter<'t> {
    text: &'t [u8],
    at: usize,
    kept: Vec<u8>,
    withheld: BTreeSet<&'static str>,
}

impl<'t> Filter<'t> {
    /// Keeps a value, without the payloads in it.
    fn value(&mut self, depth: u32) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.members(depth),
            b'[' => self.items(depth),
            b'"' => {
                let text = self.string()?;
                self.kept.extend_from_slice(text);
                Some(())
            }
            _ => {
                let scalar = self.scalar();
                self.kept.extend_from_slice(scalar);
                Some(())
            }
        }
    }

    fn members(&mut self, depth: u32) -> Option<()> {
        self.at += 1;
        self.kept.push(b'{');
        let mut is_first = true;
        loop {
            match self.peek()? {
                b'}' => break,
                b',' => self.at += 1,
                _ => {
                    let key = self.string()?;
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.at += 1;
                    let name = &key[1..key.len() - 1];
                    let payload = PAYLOAD_MEMBERS.iter().find(|member| member.as_bytes() == name);
                    if let Some(member) = payload {
                        self.skip()?;
                        self.withheld.insert(member);
                        continue;
                    }
                    if !std::mem::take(&mut is_first) {
                        self.kept.push(b',');
                    }
                    self.kept.extend_from_slice(key);
                    self.kept.push(b':');
                    self.value(depth + 1)?;
                }
            }
        }
        self.at += 1;
        self.kept.push(b'}');
        Some(())
    }

    fn items(&mut self, depth: u32) -> Option<()> {
        self.at += 1;
        self.kept.push(b'[');
        loop {
            match self.peek()? {
                b']' => break,
                b',' => {
                    self.at += 1;
                    self.kept.push(b',');
                }
                _ => self.value(depth + 1)?,
            }
        }
        self.at += 1;
        self.kept.push(b']');
        Some(())
    }

    /// Skips a value, however deep it is.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0u64;
        loop {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b'"' => drop(self.string()?),
                _ => drop(self.scalar()),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Reads a string, with its quotation marks.
    fn string(&mut self) -> Option<&'t [u8]> {
        let begin = self.at;
        if self.text.get(begin) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(&self.text[begin..self.at])
    }

    /// Reads a number or a word. It takes at least one byte, so that the filter always ends.
    fn scalar(&mut self) -> &'t [u8] {
        let begin = self.at;
        self.at += 1;
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",:]}[{\"".contains(byte);
        while self.text.get(self.at).is_some_and(|byte| !is_end(byte)) {
            self.at += 1;
        }
        &self.text[begin..self.at]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn filtered(text: &str) -> Option<String> {
        without_payloads(text.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn payloads_are_absent_and_named() {
        let text = r#"{"run":"r", "store":{"k":"v"},"failures":[{"n":1,"failure":{"kind":"trap",
            "message":"s\"}","details":{"a":[1e400,{"b":"]"}]}}},{"n":-2.5e3}],"nodes":[]}"#;
        let expected = [
            r#"{"withheld":["details","message","store"],"run":"r","#,
            r#""failures":[{"n":1,"failure":{"kind":"trap"}},{"n":-2.5e3}],"nodes":[]}"#,
        ];
        assert_eq!(filtered(text).unwrap(), expected.concat());
        let text = r#"{"outputs":[{"x":"outputs"}],"data":null,"attempts":[{"logs":[]}],"a":true}"#;
        let expected = r#"{"withheld":["data","logs","outputs"],"attempts":[{}],"a":true}"#;
        assert_eq!(filtered(text).unwrap(), expected);
        assert_eq!(filtered(r#"{"inputs":7}"#).unwrap(), r#"{"withheld":["inputs"]}"#);
        assert_eq!(filtered("{}").unwrap(), r#"{"withheld":[]}"#);
    }

    #[test]
    fn deep_payloads_are_skipped() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(
            filtered(&format!(r#"{{"outputs":{deep}}}"#)).unwrap(),
            r#"{"withheld":["outputs"]}"#
        );
        assert_eq!(filtered(&format!(r#"{{"other":{deep}}}"#)), None, "not written by a host");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "[1]", "\"x\"", "{", "{\"a\"}", "{\"a\":", "{\"a\":\"", "{1:2}", "{\"data\":]}"]
        {
            assert_eq!(filtered(text), None, "{text}");
        }
    }
}
