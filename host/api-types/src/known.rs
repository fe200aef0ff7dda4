//! Values of answers that come from a fixed list, read so that a newer host may use a longer one.

use std::fmt;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{Deserializer, IntoDeserializer};
use serde::{Deserialize, Serialize};

/// A value of the list `T`, or the text of a value that this client does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Known<T> {
    /// A value of the list.
    Known(T),
    /// The value of a newer host, as the host wrote it.
    Unknown(String),
}

impl<T: Copy> Known<T> {
    /// Returns the value, if this client knows it.
    pub fn known(&self) -> Option<T> {
        match self {
            Known::Known(value) => Some(*value),
            Known::Unknown(_) => None,
        }
    }
}

impl<T> From<T> for Known<T> {
    fn from(value: T) -> Self {
        Known::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Known<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Known::Known(value) if value == other)
    }
}

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Known::Known(value) => value.fmt(f),
            Known::Unknown(text) => text.fmt(f),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Null stands for a value that the host does not have.
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        let value: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
        Ok(T::deserialize(value).map_or_else(|_| Known::Unknown(text.clone()), Known::Known))
    }
}

/// Reads a value, or the default for null: a newer host may send null for a member that this
/// host always fills.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
