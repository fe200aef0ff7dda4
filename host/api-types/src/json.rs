//! Untrusted JSON inside answers. A host holds it as text and passes it on unparsed, because
//! values take up to a hundred times the memory of their text. A client parses it.

use std::fmt;
use std::io;

use exosphere_domain::json::verbatim;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::Formatter;

/// A JSON value of any shape.
///
/// Every key is data. (serde_json's own reader of a `Value` parses the text under one key.)
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AnyJson(pub Value);

impl<'de> Deserialize<'de> for AnyJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        verbatim(deserializer).map(AnyJson)
    }
}

impl fmt::Display for AnyJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// JSON of the shape `T` inside an answer: a text that the host has stored, or the value that
/// a client has read.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<T = AnyJson> {
    /// Valid JSON text. Only [`to_text`] writes it as JSON.
    Text(String),
    /// The value that was parsed.
    Parsed(T),
}

impl<T> Json<T> {
    /// Returns the value, if it was parsed. The JSON of an answer from a host always is.
    pub fn parsed(&self) -> Option<&T> {
        match self {
            Json::Text(_) => None,
            Json::Parsed(value) => Some(value),
        }
    }
}

impl<T: Default> Default for Json<T> {
    fn default() -> Self {
        Json::Parsed(T::default())
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // No other type of this crate serializes as bytes, so `Passthrough` knows that bytes
            // are JSON.
            Json::Text(text) => serializer.serialize_bytes(text.as_bytes()),
            Json::Parsed(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Json::Parsed)
    }
}

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Text(text) => f.write_str(text),
            Json::Parsed(value) => value.fmt(f),
        }
    }
}

/// The initial capacity of a text, in bytes.
const SHORT_TEXT_BYTES: usize = 1024;

/// Writes a request or an answer as JSON, with each [`Json::Text`] as it is.
///
/// # Errors
/// If the type cannot be written as JSON. Every type of this crate can.
pub fn to_text(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(SHORT_TEXT_BYTES);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Passthrough))?;
    Ok(text)
}

/// Compact JSON, in which bytes are JSON text.
struct Passthrough;

impl Formatter for Passthrough {
    fn write_byte_array<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        text: &[u8],
    ) -> io::Result<()> {
        writer.write_all(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use exosphere_domain::json::from_stored;

    use super::*;

    #[derive(Serialize)]
    struct Outer {
        #[serde(flatten)]
        inner: BTreeMap<&'static str, Json>,
        list: Vec<Json>,
    }

    #[test]
    fn stored_texts_are_written_unchanged() {
        let text = |text: &str| Json::Text(text.to_owned());
        let odd = r#"{ "$serde_json::private::RawValue" : "[1", "a":1.50, "a":1e400 }"#;
        let inner = [("big", text("18446744073709551616")), ("odd", text(odd))].into();
        let outer = Outer { inner, list: vec![text("2"), Json::Parsed(AnyJson(Value::Null))] };
        let written = String::from_utf8(to_text(&outer).unwrap()).unwrap();
        let expected = format!(r#"{{"big":18446744073709551616,"odd":{odd},"list":[2,null]}}"#);
        assert_eq!(written, expected);
    }

    #[test]
    fn private_keys_of_serde_stay_text() {
        let text = r#"[{"$serde_json::private::RawValue":"[1"}]"#;
        let read: Vec<Json> = from_stored::<Documents>(text).unwrap().0;
        let value = &read[0].parsed().unwrap().0;
        assert_eq!(value["$serde_json::private::RawValue"], "[1");
        assert_eq!(read[0].to_string(), &text[1..text.len() - 1]);
    }

    #[derive(Deserialize)]
    struct Documents(Vec<Json>);
    impl exosphere_domain::json::Typed for Documents {}
}
