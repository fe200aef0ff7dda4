//! Collects problems: every mistake is recorded with its path, and validation continues. Also
//! the helpers for reading hostile JSON: paths, quoting, suggestions, objects with known keys.

use std::cmp::Reverse;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::Problem;
use crate::plural::counted;

/// The maximum number of problems that are reported one by one.
pub const MAX_PROBLEMS: usize = 500;

/// The maximum number of suggestions that are computed: each compares a word with all known ones.
const MAX_SUGGESTIONS: usize = 100;

/// The longest word that is compared or shown whole, in characters.
const MAX_SHOWN: usize = 64;

/// The problems found so far.
#[derive(Default)]
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
    suggested: usize,
}

impl Problems {
    /// Records a problem.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(Problem { path: path.into(), message: message.into() })
        } else {
            self.more += 1
        }
    }

    /// Records a problem with an expensive message, which is computed only if
    /// the list has room.
    pub fn add_found(&mut self, path: impl Into<String>, message: impl FnOnce() -> String) {
        if self.list.len() < MAX_PROBLEMS { self.add(path, message()) } else { self.more += 1 }
    }

    /// Records an unknown word and suggests the nearest known one. Without a
    /// near one, the message ends with `else_hint`.
    pub fn add_unknown<'a>(
        &mut self,
        path: impl Into<String>,
        message: impl Display,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
        else_hint: impl Display,
    ) {
        self.suggested += 1;
        let suggestion =
            if self.suggested <= MAX_SUGGESTIONS { nearest(word, known) } else { None };
        let hint = suggestion.map_or_else(
            || else_hint.to_string(),
            |suggestion| format!("did you mean {suggestion:?}?"),
        );
        self.add(path, format!("{message}; {hint}"));
    }

    /// Returns the number of problems.
    pub fn len(&self) -> usize {
        self.list.len() + self.more
    }

    /// Returns whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value if there are no problems.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            _ => Err(self.into_list()),
        }
    }

    /// Returns all problems. The list is never empty: this is called only if
    /// something is wrong.
    pub fn into_list(mut self) -> Vec<Problem> {
        if self.more > 0 || self.list.is_empty() {
            let message = match self.more {
                0 => "this cannot be used".to_owned(),
                more => format!("and {}", counted(more as u64, "more problem", "more problems")),
            };
            self.list.push(Problem { path: "$".to_owned(), message });
        }
        self.list
    }
}

/// Returns the path of a member: `$.inputs.text`, or `$.inputs["odd key"]`.
pub fn member(path: &str, key: &str) -> String {
    let is_identifier = !key.is_empty()
        && key.len() <= MAX_SHOWN
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if is_identifier { format!("{path}.{key}") } else { format!("{path}[{}]", quoted(key)) }
}

/// Returns the path of an element: `$.nodes[2]`.
pub fn element(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Quotes, escapes and cuts an untrusted text.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

/// Returns the type of a JSON value, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Returns the nearest known word, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().take(MAX_SHOWN + 1).count();
    nearest_within(word, known, (length / 3).max(2))
}

/// Returns the nearest known word with at most `allowed` mistyped characters.
pub fn nearest_within<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    allowed: usize,
) -> Option<&'a str> {
    if word.chars().nth(MAX_SHOWN).is_some() {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .filter(|known| known.len() <= MAX_SHOWN && known.len().abs_diff(word.len()) <= allowed)
        .map(|known| (strsim::osa_distance(&word, &known.to_lowercase()), known))
        .filter(|&(distance, known)| distance <= allowed && distance < known.chars().count())
        .min_by_key(|&(distance, known)| {
            (distance, Reverse(common_prefix_len(&word, known)), known)
        })
        .map(|(_, known)| known)
}

/// Returns the end of the refusal of an unknown word: the nearest known one, or else all of them.
pub fn nearest_or_all(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("there are {}", known.join(", ")),
    }
}

fn common_prefix_len(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// Returns whether JSON is nested at most `depth` levels; a scalar has depth 0.
pub fn within_depth(value: &Value, depth: usize) -> bool {
    let is_within = |inner: &Value| match depth.checked_sub(1) {
        Some(rest) => within_depth(inner, rest),
        None => false,
    };
    match value {
        Value::Array(list) => depth > 0 && list.iter().all(is_within),
        Value::Object(map) => depth > 0 && map.values().all(is_within),
        _ => true,
    }
}

/// A JSON object with known keys. Reads members, and records a problem for each
/// invalid one.
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    /// Reads the object at a path and records each unknown key as a problem.
    /// Returns `None` if the value is not an object.
    pub fn read(
        value: &'a Value,
        path: impl Into<String>,
        known: &[&str],
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = path.into();
        let Value::Object(map) = value else {
            problems.add(path, format!("this is {}, and must be an object", kind(value)));
            return None;
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            problems.add_unknown(
                member(&path, key),
                format_args!("unknown key {}", quoted(key)),
                key,
                known.iter().copied(),
                format_args!("known keys: {}", known.join(", ")),
            );
        }
        Some(Object { map, path })
    }

    /// Returns the path of a member.
    pub fn at(&self, key: &str) -> String {
        member(&self.path, key)
    }

    /// Returns a member. Null counts as missing.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Reads a member with a function. For an invalid value, the function returns a message
    /// that says what it expected.
    pub fn read_as<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.get(key)?) {
            Ok(value) => Some(value),
            Err(message) => {
                problems.add(self.at(key), message);
                None
            }
        }
    }

    /// Reads a required member as [`Object::read_as`] does.
    pub fn require<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            problems.add(self.path.clone(), format!("the key {key:?} is missing"));
            return None;
        }
        self.read_as(key, problems, read)
    }
}

/// Reads a string, for [`Object::read_as`].
pub fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("this is {}, and must be a string", kind(value)))
}

/// Reads a string and parses it into a type.
pub fn parsed<T: std::str::FromStr<Err: Display>>(value: &Value) -> Result<T, String> {
    string(value)?.parse().map_err(|error: T::Err| error.to_string())
}

/// Reads a boolean, for [`Object::read_as`].
pub fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("this is {}, and must be true or false", kind(value)))
}

/// Reads a whole number within bounds.
pub fn whole_number(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    value
        .as_u64()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("this must be a whole number from {min} to {max}"))
}

/// Reads an array, for [`Object::read_as`].
pub fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("this is {}, and must be an array", kind(value)))
}
