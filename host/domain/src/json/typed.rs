//! Deserialization from JSON into types that derive `Deserialize`. A type may
//! be read only if it passes no untrusted value to serde_json's own `Value`; it
//! declares that by [`Typed`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Number, Value};

use super::read_stored;

/// A type that is safe to deserialize: it holds no `serde_json::Value`, or
/// reads each such field by [`verbatim`].
pub trait Typed: DeserializeOwned {}

macro_rules! typed {
    ($($type:ty),*) => { $(impl Typed for $type {})* };
}
typed!(u32, u64, i64, String, (u32, i64), (u32, i64, u32));

impl<T: Typed> Typed for Vec<T> {}
impl<T: Typed> Typed for Option<T> {}
impl<T: Typed> Typed for Arc<T> where Arc<T>: DeserializeOwned {}
impl<T: Typed> Typed for BTreeMap<String, T> {}

/// Deserializes a text that the host wrote.
///
/// # Errors
/// The reason why the text is not valid.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_text<T: Typed>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// Deserializes bytes that the host wrote.
///
/// # Errors
/// The reason why the bytes are not valid.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_bytes<T: Typed>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
}

/// Deserializes a value that this module's parser built.
///
/// # Errors
/// The reason why the value is not valid.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_value<T: Typed>(value: Value) -> serde_json::Result<T> {
    serde_json::from_value(value)
}

/// Deserializes a stored text whose type holds JSON values, using this module's
/// parser, so that numbers keep their value.
///
/// # Errors
/// The reason why the text is not valid.
pub fn from_stored<T: Typed>(text: &str) -> Result<T, String> {
    let value = read_stored(text).map_err(|error| error.to_string())?;
    from_value(value).map_err(|error| error.to_string())
}

/// Deserializes a value as it is, whatever its keys: for fields of type
/// `Value`, by `#[serde(deserialize_with = "..")]`.
///
/// # Errors
/// The errors of the deserializer.
pub fn verbatim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_any(Verbatim)
}

/// A visitor that builds a `Value` from any input.
#[derive(Clone, Copy)]
struct Verbatim;

impl<'de> DeserializeSeed<'de> for Verbatim {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        verbatim(deserializer)
    }
}

impl<'de> Visitor<'de> for Verbatim {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        verbatim(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Verbatim)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Verbatim)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Deserializes a value that may be missing or null.
///
/// # Errors
/// The errors of the deserializer.
pub fn maybe_verbatim<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    Ok(Some(verbatim(deserializer)?).filter(|value| !value.is_null()))
}

/// Deserializes a list of values.
///
/// # Errors
/// The errors of the deserializer.
pub fn verbatim_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    struct One(Value);
    impl<'de> Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            verbatim(deserializer).map(One)
        }
    }
    let list = Vec::<One>::deserialize(deserializer)?;
    Ok(list.into_iter().map(|One(value)| value).collect())
}
