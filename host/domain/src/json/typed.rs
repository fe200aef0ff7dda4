//! From JSON to types that derive `Deserialize`. Only types that hand no value of
//! a stranger to serde_json's own `Value` may be read: they say so by [`Typed`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Number, Value};

use super::read_stored;

/// A type that is safe to read: it holds no `serde_json::Value`, or reads each
/// one by [`verbatim`].
pub trait Typed: DeserializeOwned {}

macro_rules! typed {
    ($($type:ty),*) => { $(impl Typed for $type {})* };
}
typed!(u32, u64, i64, String, (u32, i64), (u32, i64, u32));

impl<T: Typed> Typed for Vec<T> {}
impl<T: Typed> Typed for Option<T> {}
impl<T: Typed> Typed for Arc<T> where Arc<T>: DeserializeOwned {}
impl<T: Typed> Typed for BTreeMap<String, T> {}

/// Reads a text of the host's own.
///
/// # Errors
/// The reason why it is no such text.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_text<T: Typed>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text)
}

/// Reads bytes of the host's own.
///
/// # Errors
/// The reason why they are no such text.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_bytes<T: Typed>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
}

/// Reads a value that came through the reader of this module.
///
/// # Errors
/// The reason why it is no such value.
#[expect(clippy::disallowed_methods, reason = "the type is `Typed`")]
pub fn from_value<T: Typed>(value: Value) -> serde_json::Result<T> {
    serde_json::from_value(value)
}

/// Reads a stored text whose type has values in it, by the reader of this module:
/// numbers in them keep their value.
///
/// # Errors
/// The reason why it is no such text.
pub fn from_stored<T: Typed>(text: &str) -> Result<T, String> {
    let value = read_stored(text).map_err(|error| error.to_string())?;
    from_value(value).map_err(|error| error.to_string())
}

/// Reads a value as it is, whatever its keys: for fields of type `Value`, by
/// `#[serde(deserialize_with = "..")]`.
///
/// # Errors
/// Those of the deserializer.
pub fn verbatim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_any(Verbatim)
}

/// Builds a value of whatever comes.
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

/// Reads a value that may be missing or null.
///
/// # Errors
/// Those of the deserializer.
pub fn maybe_verbatim<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    Ok(Some(verbatim(deserializer)?).filter(|value| !value.is_null()))
}

/// Reads a list of values.
///
/// # Errors
/// Those of the deserializer.
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
