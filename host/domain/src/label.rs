//! Labels of runs: a key and a value, by which people find runs again.
//!
//! Not here: how runs are found by a label (`filter`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::problems::{Problems, kind, member, quoted, string};

/// The largest number of labels of a run. Each label is a row and an index entry of its own.
pub const MAX_LABELS: usize = 16;

/// The longest key of a label, in bytes.
pub const MAX_LABEL_KEY_BYTES: usize = 64;

/// The longest value of a label, in bytes. Namespace, key and value fit into an index entry of
/// Postgres, which has 2,704 bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 256;

/// The reason why a text is not a valid [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// The text has no colon.
    #[error("{0} is not a label: give KEY:VALUE")]
    NoValue(String),
    /// The key is not valid.
    #[error(
        "{0} is not a valid key of a label: use 1 to {MAX_LABEL_KEY_BYTES} letters, digits, '_', \
         '-', '.' or '/', beginning with a letter or digit"
    )]
    Key(String),
    /// There are too many labels.
    #[error("{0} labels are too many; give at most {MAX_LABELS}")]
    TooMany(usize),
    /// The value is not valid.
    #[error(
        "{0} is not a valid value of a label: use at most {MAX_LABEL_VALUE_BYTES} bytes without \
         control characters"
    )]
    Value(String),
}

/// A label of a run. Its text is `KEY:VALUE`; a key has no colon, so that a value may have some.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// Creates a label.
    ///
    /// # Errors
    /// The reason why the key or the value is not valid.
    pub fn new(key: &str, value: &str) -> Result<Self, BadLabel> {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let has_valid_key = key.len() <= MAX_LABEL_KEY_BYTES
            && key.starts_with(is_word)
            && key.chars().all(|c| is_word(c) || "_-./".contains(c));
        if !has_valid_key {
            return Err(BadLabel::Key(quoted(key)));
        }
        if value.len() > MAX_LABEL_VALUE_BYTES || value.chars().any(char::is_control) {
            return Err(BadLabel::Value(quoted(value)));
        }
        Ok(Label { key: key.to_owned(), value: value.to_owned() })
    }

    /// Returns the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Label {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let (key, value) = text.split_once(':').ok_or_else(|| BadLabel::NoValue(quoted(text)))?;
        Label::new(key, value)
    }
}

impl TryFrom<String> for Label {
    type Error = BadLabel;

    fn try_from(text: String) -> Result<Self, BadLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.to_string()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.value)
    }
}

/// The labels of a run: valid ones, at most [`MAX_LABELS`], each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Reads the labels of a start request, an object of strings, and records each invalid one.
    pub fn read(value: &Value, path: &str, problems: &mut Problems) -> Self {
        let mut labels = BTreeMap::new();
        let Value::Object(given) = value else {
            let message = format!("this is {}, and must be an object of strings", kind(value));
            problems.add(path, message);
            return Labels::default();
        };
        if given.len() > MAX_LABELS {
            problems.add(path, BadLabel::TooMany(given.len()).to_string());
            return Labels::default();
        }
        for (key, value) in given {
            let label = string(value)
                .and_then(|value| Label::new(key, value).map_err(|error| error.to_string()));
            match label {
                Ok(Label { key, value }) => drop(labels.insert(key, value)),
                Err(message) => problems.add(member(path, key), message),
            }
        }
        Labels(labels)
    }

    /// Returns whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the labels as JSON, for the digest of a start.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect()
    }
}

impl FromIterator<Label> for Labels {
    /// Collects labels that were checked before, as those of a stored run.
    fn from_iter<T: IntoIterator<Item = Label>>(labels: T) -> Self {
        Labels(labels.into_iter().map(|Label { key, value }| (key, value)).collect())
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = BadLabel;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, BadLabel> {
        if labels.len() > MAX_LABELS {
            return Err(BadLabel::TooMany(labels.len()));
        }
        labels.iter().map(|(key, value)| Label::new(key, value)).collect()
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_label_is_read_as_written() {
        for (text, key, value) in [
            ("team:a", "team", "a"),
            ("example.org/job:https://x:1", "example.org/job", "https://x:1"),
            ("empty:", "empty", ""),
            ("x:ä ö", "x", "ä ö"),
        ] {
            let label: Label = text.parse().unwrap();
            assert_eq!((label.key(), label.value()), (key, value));
            assert_eq!(label.to_string(), text);
        }
    }

    #[test]
    fn invalid_labels_are_refused() {
        let long_key = format!("{}:v", "k".repeat(MAX_LABEL_KEY_BYTES + 1));
        let long_value = format!("k:{}", "v".repeat(MAX_LABEL_VALUE_BYTES + 1));
        for text in
            ["", "team", ":v", "-a:v", "a b:v", "ä:v", "k:\0", "k:a\nb", &long_key, &long_value]
        {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_invalid_label_has_its_path() {
        let mut problems = Problems::default();
        let given = json!({"good": "1", "a b": "2", "n": 3, "c": "\u{7}"});
        let labels = Labels::read(&given, "$.labels", &mut problems);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("good", "1")]);
        assert_eq!(labels.to_json(), json!({"good": "1"}));
        let paths: Vec<_> = problems.into_list().into_iter().map(|it| it.path).collect();
        assert_eq!(paths, [r#"$.labels["a b"]"#, "$.labels.c", "$.labels.n"]);
        for refused in [json!([]), (0..=MAX_LABELS).map(|n| (n.to_string(), json!("v"))).collect()]
        {
            let mut problems = Problems::default();
            assert!(Labels::read(&refused, "$.labels", &mut problems).is_empty());
            assert_eq!(problems.len(), 1, "{refused}");
        }
    }
}
