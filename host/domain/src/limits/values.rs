//! Limits with values, as the operator, a namespace, a graph or a node sets
//! them: a JSON object, or `name=value`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Limit, Unit};
use crate::graph::problems::{nearest_or_all, quoted};

/// A set of limits, each with a value within its range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitValues(BTreeMap<Limit, u64>);

/// The reason why a text or number is not a valid value of a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotALimit(String);

impl LimitValues {
    /// Adds a limit with its value.
    ///
    /// # Errors
    /// If the value lies outside the limit's range.
    pub fn add(&mut self, limit: Limit, value: u64) -> Result<(), NotALimit> {
        let range = limit.range();
        if !range.contains(&value) {
            let (min, max) = (range.start(), range.end());
            return Err(NotALimit(format!("`{limit}` can be from {min} to {max}, not {value}")));
        }
        self.0.insert(limit, value);
        Ok(())
    }

    /// Returns the value of a limit, if the set has one.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0.get(&limit).copied()
    }

    /// Iterates over the limits with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        self.0.iter().map(|(limit, value)| (*limit, *value))
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl crate::json::Typed for LimitValues {}

impl FromIterator<(Limit, u64)> for LimitValues {
    fn from_iter<I: IntoIterator<Item = (Limit, u64)>>(values: I) -> Self {
        LimitValues(values.into_iter().collect())
    }
}

impl Serialize for LimitValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(limit, value)| (limit.name(), value)))
    }
}

impl<'de> Deserialize<'de> for LimitValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = LimitValues::default();
        for (name, value) in BTreeMap::<String, u64>::deserialize(deserializer)? {
            let limit = name.parse().map_err(de::Error::custom)?;
            values.add(limit, value).map_err(de::Error::custom)?;
        }
        Ok(values)
    }
}

/// Parses one limit with its value from `name=value`. Bytes may be written
/// `64MiB`, times `500ms` or `10s`.
impl FromStr for LimitValues {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| NotALimit(format!("{text:?} is not of the form NAME=VALUE")))?;
        let limit = name.trim().parse()?;
        let mut values = LimitValues::default();
        values.add(limit, number(value.trim(), limit)?)?;
        Ok(values)
    }
}

impl fmt::Display for LimitValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (limit, value)) in self.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{limit}={value}")?;
        }
        Ok(())
    }
}

/// Parses the name of a limit; the error lists the names of all limits.
impl FromStr for Limit {
    type Err = NotALimit;

    fn from_str(name: &str) -> Result<Self, NotALimit> {
        Limit::parse(name).ok_or_else(|| {
            let names: Vec<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
            let hint = nearest_or_all(name, &names);
            NotALimit(format!("there is no limit {}; {hint}", quoted(name)))
        })
    }
}

fn number(text: &str, limit: Limit) -> Result<u64, NotALimit> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = text.get(digits.len()..).unwrap_or_default();
    let factor = match (limit.unit(), suffix) {
        (_, "") => Some(1),
        (Unit::Bytes, "KiB") => Some(1 << 10),
        (Unit::Bytes, "MiB") => Some(1 << 20),
        (Unit::Bytes, "GiB") => Some(1 << 30),
        (Unit::Millis, "ms") => Some(1),
        (Unit::Millis, "s") => Some(1_000),
        _ => None,
    };
    let number: Option<u64> = digits.trim_end().parse().ok();
    number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or_else(|| {
        let form = match limit.unit() {
            Unit::Bytes => "a number of bytes, such as 65536, 64KiB or 64MiB",
            Unit::Millis => "a number of milliseconds, such as 500, 500ms or 10s",
            Unit::Count => "a number",
        };
        NotALimit(format!("{text:?} is not a value for `{limit}`: give {form}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json::from_text;

    #[test]
    fn limit_values_are_read_with_units() {
        let read = |text: &str| text.parse::<LimitValues>().map(|values| values.to_string());
        assert_eq!(read("memory_bytes=64MiB").unwrap(), "memory_bytes=67108864");
        assert_eq!(read("timeout_ms = 10s").unwrap(), "timeout_ms=10000");
        assert_eq!(read("outputs=7").unwrap(), "outputs=7");
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert!(refused("memory=1").contains("there are memory_bytes, "));
        assert!(refused("outputs=7s").contains("give a number"));
        assert!(refused("memory_bytes=99999999999999999999").contains("64MiB"));
        assert!(refused("memory_bytes=5GiB").contains("from 0 to 4294967296"));
        assert!(refused("outputs").contains("NAME=VALUE"));
    }

    #[test]
    fn json_is_read_as_it_is_written() {
        let json = r#"{"memory_bytes":1024,"cpu_ms":20}"#;
        let values: LimitValues = from_text(json).unwrap();
        assert_eq!(serde_json::to_string(&values).unwrap(), json);
        assert!(from_text::<LimitValues>(r#"{"cpu":20}"#).is_err());
        assert!(from_text::<LimitValues>(r#"{"cpu_ms":0}"#).is_err());
    }
}
