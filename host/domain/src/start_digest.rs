//! Digest of a start request, for its idempotency key. A repeat under the same
//! key is compared with it part by part, so that a refusal can name the parts
//! that differ.
//!
//! Not here: the name of the graph, which the run itself has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

/// Bytes of each part's hash that are stored. A client that finds two requests with the same 16
/// bytes learns only about its own run.
const KEPT_BYTES: usize = 16;

/// The digest of a start request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartDigest {
    inputs: String,
    store: String,
    delay_ms: u64,
    /// The hashes of the further parts that were given, by their names in a request. A part that
    /// was not given has none, so that digests stored before the part existed stay equal.
    further: BTreeMap<String, String>,
}

/// A text that is not a valid start digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the digest of a start is two hashes, a decimal number, and NAME=HASH for further parts")]
pub struct BadStartDigest;

impl StartDigest {
    /// Computes the digest of a request. A missing part counts as empty. JSON
    /// is compared by its values: the order of keys and the form of a number do
    /// not matter.
    pub fn new(inputs: Option<&Value>, store: Option<&Value>, delay_ms: Option<u64>) -> Self {
        StartDigest {
            inputs: hash(inputs),
            store: hash(store),
            delay_ms: delay_ms.unwrap_or(0),
            further: BTreeMap::new(),
        }
    }

    /// Adds a further part, if it was given. Its name has neither spaces nor `=`.
    pub fn with(mut self, name: &str, part: Option<&Value>) -> Self {
        if let Some(part) = part.filter(|part| is_given(part)) {
            self.further.insert(name.to_owned(), hash(Some(part)));
        }
        self
    }

    /// Returns the parts in which two requests differ, by their names in a
    /// request.
    pub fn differences<'a>(&'a self, other: &'a StartDigest) -> Vec<&'a str> {
        let mut names = vec![
            ("inputs", self.inputs != other.inputs),
            ("store", self.store != other.store),
            ("delay_ms", self.delay_ms != other.delay_ms),
        ];
        let further: BTreeSet<_> = self.further.keys().chain(other.further.keys()).collect();
        let differs = |name: &String| self.further.get(name) != other.further.get(name);
        names.extend(further.into_iter().map(|name| (name.as_str(), differs(name))));
        names.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

impl fmt::Display for StartDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inputs, self.store, self.delay_ms)?;
        self.further.iter().try_for_each(|(name, hash)| write!(f, " {name}={hash}"))
    }
}

impl FromStr for StartDigest {
    type Err = BadStartDigest;

    fn from_str(text: &str) -> Result<Self, BadStartDigest> {
        let mut parts = text.split(' ');
        let is_hash = |text: &&str| {
            text.len() == 2 * KEPT_BYTES && text.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        let mut hash = || parts.next().filter(is_hash).map(str::to_owned).ok_or(BadStartDigest);
        let (inputs, store) = (hash()?, hash()?);
        let delay_ms = parts.next().and_then(|delay| delay.parse().ok()).ok_or(BadStartDigest)?;
        let further = parts.map(|part| {
            let (name, hash) = part.split_once('=').filter(|(_, hash)| is_hash(hash))?;
            Some((name.to_owned(), hash.to_owned()))
        });
        let further = further.collect::<Option<_>>().ok_or(BadStartDigest)?;
        Ok(StartDigest { inputs, store, delay_ms, further })
    }
}

/// Returns whether a part is there: null and an empty object count as missing.
fn is_given(part: &Value) -> bool {
    !part.is_null() && part.as_object().is_none_or(|it| !it.is_empty())
}

/// Hashes a part. A missing part, null and an empty object hash alike.
fn hash(part: Option<&Value>) -> String {
    let mut hash = Hash(Sha256::new());
    if let Some(part) = part.filter(|part| is_given(part)) {
        // Writing to a hash cannot fail.
        let _ = write(part, &mut hash);
    }
    hex::encode(&hash.0.finalize()[..KEPT_BYTES])
}

/// A hash as a writer, so that the whole text is never built.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes JSON in its canonical form.
fn write(value: &Value, to: &mut Hash) -> io::Result<()> {
    match value {
        Value::Number(number) => to.write_all(decimal_text(number).as_bytes()),
        Value::Array(items) => {
            to.write_all(b"[")?;
            for item in items {
                write(item, to)?;
                to.write_all(b",")?;
            }
            to.write_all(b"]")
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            to.write_all(b"{")?;
            for (key, value) in fields {
                serde_json::to_writer(&mut *to, key)?;
                to.write_all(b":")?;
                write(value, to)?;
                to.write_all(b",")?;
            }
            to.write_all(b"}")
        }
        scalar => Ok(serde_json::to_writer(to, scalar)?),
    }
}

/// Returns the canonical form of a number: `1`, `1.0` and `1e0` are the same.
fn decimal_text(number: &Number) -> String {
    match number.as_f64() {
        // Up to here a double holds every whole number exactly.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            format!("{}", float as i64)
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn inputs(text: &str) -> StartDigest {
        StartDigest::new(Some(&crate::json::read_stored(text).unwrap()), None, None)
    }

    #[test]
    fn equal_values_have_equal_digests() {
        for (one, other) in [
            (r#"{"a": 1, "b": [true, null]}"#, r#"{"b":[true,null],"a":1.0}"#),
            (r#"{"a": {"x": "\u00e4", "y": 2e0}}"#, r#"{"a": {"y": 2, "x": "ä"}}"#),
            (r#"{"a": -0.0}"#, r#"{"a": 0}"#),
            (r#"{"a": 1.50}"#, r#"{"a": 15e-1}"#),
            ("{}", "null"),
        ] {
            assert_eq!(inputs(one), inputs(other), "{one} {other}");
        }
        assert_eq!(
            StartDigest::new(None, None, None),
            StartDigest::new(Some(&json!({})), None, Some(0))
        );
    }

    #[test]
    fn different_values_have_different_digests() {
        for (one, other) in [
            (r#"{"a": 1}"#, r#"{"a": "1"}"#),
            (r#"{"a": 1}"#, r#"{"b": 1}"#),
            (r#"{"a": [1, 2]}"#, r#"{"a": [2, 1]}"#),
            (r#"{"a": [[1], 2]}"#, r#"{"a": [[1, 2]]}"#),
            (r#"{"a": ["x,y"]}"#, r#"{"a": ["x", "y"]}"#),
            (r#"{"a": null}"#, "{}"),
            (r#"{"a": 9007199254740993}"#, r#"{"a": 9007199254740992}"#),
            (r#"{"a": 1e300}"#, r#"{"a": 1e301}"#),
        ] {
            assert_ne!(inputs(one), inputs(other), "{one} {other}");
        }
    }

    #[test]
    fn differences_are_named_by_part() {
        let one = StartDigest::new(Some(&json!({"a": 1})), Some(&json!({"k": "v"})), Some(5));
        assert_eq!(one.differences(&one), Vec::<&str>::new());
        let other = StartDigest::new(Some(&json!({"a": 2})), Some(&json!({"k": "v"})), None);
        assert_eq!(one.differences(&other), ["inputs", "delay_ms"]);
        assert_eq!(one.differences(&StartDigest::new(None, None, Some(5))), ["inputs", "store"]);
        let labelled = one.clone().with("labels", Some(&json!({"team": "a"})));
        assert_eq!(labelled.differences(&one), ["labels"]);
        assert_eq!(one.differences(&labelled), ["labels"]);
        assert_eq!(one.clone().with("labels", Some(&json!({}))), one);
    }

    #[test]
    fn invalid_digests_are_refused() {
        let hash = "0".repeat(32);
        let digest = format!("{hash} {hash} 1");
        assert!(digest.parse::<StartDigest>().is_ok());
        for text in [
            "",
            "a b 1",
            "00 00 1",
            &format!("{hash} {hash}"),
            &format!("{hash} {hash} 1 "),
            &format!("{digest} labels"),
            &format!("{digest} labels=00"),
        ] {
            assert_eq!(text.parse::<StartDigest>(), Err(BadStartDigest), "{text}");
        }
    }

    proptest! {
        #[test]
        fn digests_are_read_as_written(key in ".{0,5}", value in ".{0,9}", delay in any::<u64>()) {
            let part = json!({key: value});
            let digest = StartDigest::new(Some(&part), Some(&part), Some(delay));
            let digest = digest.with("labels", Some(&part)).with("other", None);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }
}
