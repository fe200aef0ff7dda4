//! Filters of lists, as callers give them: as query parameters of a list, and as a JSON object of
//! a bulk operation.
//!
//! Not here: the pages of a list, and the indices by which a filter finds its rows (the store).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::FailureKind;
use crate::graph::problems::{Object, Problems, array, element, nearest, parsed, quoted, string};
use crate::ids::{Millis, Name};
use crate::json::Typed;
use crate::label::{Label, MAX_LABELS};
use crate::state::{RunStatus, Status};

/// The largest number of words of one condition, repeated ones included.
const MAX_WORDS: usize = 32;

/// A filter that can be read from a request.
pub trait Filter: Sized {
    /// The keys of the filter.
    const KEYS: &'static [&'static str];
    /// The keys whose value is a list: query parameters that may be repeated.
    const LISTS: &'static [&'static str];
    /// The keys whose value is a number.
    const NUMBERS: &'static [&'static str];

    /// Reads the filter, and records each problem with its path. Other keys of the object are not
    /// looked at.
    fn read_members(object: &Object<'_>, problems: &mut Problems) -> Self;

    /// Reads the filter from JSON at a path, and records each problem and unknown key.
    fn read(value: &Value, path: &str, problems: &mut Problems) -> Option<Self> {
        let object = Object::read(value, path, Self::KEYS, problems)?;
        Some(Self::read_members(&object, problems))
    }
}

/// A filter of runs: those that meet every condition. A missing condition is met by every run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema, utoipa::IntoParams),
    into_params(parameter_in = Query)
)]
pub struct RunFilter {
    /// Only runs with one of these statuses.
    #[serde(rename = "status", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", param(inline))]
    pub statuses: Vec<RunStatus>,
    /// Only runs of this graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(inline))]
    pub graph: Option<Name>,
    /// Only runs with all of these labels, each as `KEY:VALUE`.
    #[serde(rename = "label", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", param(inline))]
    pub labels: Vec<Label>,
    /// Only runs started at this time or later, in milliseconds since 1970 (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(minimum = 0))]
    pub created_after: Option<i64>,
    /// Only runs started before this time, in milliseconds since 1970 (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(minimum = 0))]
    pub created_before: Option<i64>,
}

impl Typed for RunFilter {}

impl RunFilter {
    /// Returns whether the filter has no condition, so that every run meets it.
    pub fn is_empty(&self) -> bool {
        *self == RunFilter::default()
    }

    /// Returns the statuses that meet the filter, each once.
    pub fn wanted_statuses(&self) -> Vec<RunStatus> {
        let is_wanted =
            |status: &RunStatus| self.statuses.is_empty() || self.statuses.contains(status);
        RunStatus::ALL.into_iter().filter(is_wanted).collect()
    }
}

impl Filter for RunFilter {
    const KEYS: &'static [&'static str] =
        &["status", "graph", "label", "created_after", "created_before"];
    const LISTS: &'static [&'static str] = &["status", "label"];
    const NUMBERS: &'static [&'static str] = &["created_after", "created_before"];

    fn read_members(object: &Object<'_>, problems: &mut Problems) -> Self {
        let statuses = read_words(object, "status", problems, &RunStatus::ALL, RunStatus::as_str);
        let graph = object.read_as("graph", problems, parsed);
        let read_label = |value: &Value| parsed::<Label>(value);
        let labels: Vec<Label> = read_list(object, "label", problems, MAX_LABELS, read_label);
        let created_after = object.read_as("created_after", problems, millis);
        let created_before = object.read_as("created_before", problems, millis);
        RunFilter { statuses, graph, labels, created_after, created_before }
    }
}

/// The characters of a failure's message that a filter compares. An index has them.
pub const MESSAGE_FILTER_CHARS: usize = 64;

/// A filter of a run's states: those that meet every condition. A missing condition is met by
/// every state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema, utoipa::IntoParams),
    into_params(parameter_in = Query)
)]
pub struct StateFilter {
    /// Only states with one of these statuses.
    #[serde(rename = "status", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", param(inline))]
    pub statuses: Vec<Status>,
    /// Only states of the node with this identifier in the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// Only failed states with a failure of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(inline))]
    pub kind: Option<FailureKind>,
    /// Only failed states whose message has the same first 64 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Typed for StateFilter {}

impl StateFilter {
    /// Returns a filter of failed states.
    pub fn errored() -> Self {
        StateFilter { statuses: vec![Status::Errored], ..StateFilter::default() }
    }

    /// Returns whether only failed states meet the filter.
    pub fn is_of_failures(&self) -> bool {
        self.kind.is_some() || self.message.is_some() || self.statuses == [Status::Errored]
    }
}

impl Filter for StateFilter {
    const KEYS: &'static [&'static str] = &["status", "identifier", "kind", "message"];
    const LISTS: &'static [&'static str] = &["status"];
    const NUMBERS: &'static [&'static str] = &[];

    fn read_members(object: &Object<'_>, problems: &mut Problems) -> Self {
        let statuses = read_words(object, "status", problems, &Status::ALL, Status::as_str);
        let identifier = object.read_as("identifier", problems, string).map(str::to_owned);
        let known_kind = |value: &Value| {
            read_word("kind", string(value)?, &FailureKind::ALL, FailureKind::as_str)
        };
        let kind = object.read_as("kind", problems, known_kind);
        let message = object.read_as("message", problems, string).map(str::to_owned);
        let needs_failures = [("kind", kind.is_some()), ("message", message.is_some())];
        if !statuses.is_empty() && !statuses.contains(&Status::Errored) {
            for (key, _) in needs_failures.into_iter().filter(|(_, is_given)| *is_given) {
                let message = "only failed states have this; leave status out, or give ERRORED";
                problems.add(object.at(key), message);
            }
        }
        StateFilter { statuses, identifier, kind, message }
    }
}

/// Reads a time in milliseconds since 1970.
fn millis(value: &Value) -> Result<Millis, String> {
    let message = "this must be a time in milliseconds since 1970 (UTC)";
    value.as_i64().filter(|time| *time >= 0).ok_or_else(|| message.to_owned())
}

/// Reads a list of at most `max` items, and records each invalid one.
fn read_list<T>(
    object: &Object<'_>,
    key: &str,
    problems: &mut Problems,
    max: usize,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Vec<T> {
    let Some(list) = object.read_as(key, problems, array) else { return Vec::new() };
    if list.len() > max {
        problems.add(object.at(key), format!("{} are too many; give at most {max}", list.len()));
        return Vec::new();
    }
    let mut items = Vec::new();
    for (index, value) in list.iter().enumerate() {
        match read(value) {
            Ok(item) => items.push(item),
            Err(message) => problems.add(element(&object.at(key), index), message),
        }
    }
    items
}

/// Reads a list of words, each kept once, and records each unknown one with the nearest known one.
fn read_words<T: Copy + PartialEq>(
    object: &Object<'_>,
    key: &str,
    problems: &mut Problems,
    known: &[T],
    name: fn(T) -> &'static str,
) -> Vec<T> {
    let read = |value: &Value| read_word(key, string(value)?, known, name);
    let mut words = Vec::new();
    for word in read_list(object, key, problems, MAX_WORDS, read) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// Finds a word among the known ones; an error suggests the nearest.
fn read_word<T: Copy>(
    key: &str,
    word: &str,
    known: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = known.iter().copied().find(|known| name(*known) == word);
    found.ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|known| name(*known)).collect();
        let hint = match nearest(word, names.iter().copied()) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("use {}", names.join(", ")),
        };
        format!("unknown {key} {}; {hint}", quoted(word))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::json::from_value;

    #[test]
    fn a_filter_is_read_as_written() {
        let given = json!({
            "status": ["FAILED", "RUNNING", "FAILED"], "graph": "words",
            "label": ["team:a", "url:https://x"], "created_after": 5, "created_before": 9,
        });
        let mut problems = Problems::default();
        let filter = RunFilter::read(&given, "$.filter", &mut problems).unwrap();
        assert!(problems.is_empty());
        assert_eq!(filter.statuses, [RunStatus::Failed, RunStatus::Running]);
        assert_eq!(filter.wanted_statuses(), [RunStatus::Running, RunStatus::Failed]);
        let stored = serde_json::to_value(&filter).unwrap();
        assert_eq!(stored["label"], given["label"]);
        assert_eq!(from_value::<RunFilter>(stored).unwrap(), filter);
        assert!(!filter.is_empty() && RunFilter::default().is_empty());
        assert_eq!(serde_json::to_value(RunFilter::default()).unwrap(), json!({}));
    }

    #[test]
    fn every_invalid_condition_has_its_path() {
        let given = json!({
            "status": ["FAILD", 3], "graph": "a b", "label": ["team", "k:v"],
            "created_after": "noon", "created_before": -1, "colour": 1,
        });
        let mut problems = Problems::default();
        RunFilter::read(&given, "$.filter", &mut problems).unwrap();
        let list = problems.into_list();
        let paths: Vec<_> = list.iter().map(|it| it.path.as_str()).collect();
        let expected = [
            "$.filter.colour",
            "$.filter.status[0]",
            "$.filter.status[1]",
            "$.filter.graph",
            "$.filter.label[0]",
            "$.filter.created_after",
            "$.filter.created_before",
        ];
        assert_eq!(paths, expected);
        assert!(list[1].message.contains("did you mean \"FAILED\"?"), "{}", list[1].message);
    }

    #[test]
    fn conditions_on_failures_exclude_other_statuses() {
        let read = |given: Value| {
            let mut problems = Problems::default();
            let filter = StateFilter::read(&given, "$", &mut problems).unwrap();
            problems.or(Some(filter))
        };
        let filter = read(json!({"kind": "invalid-output", "message": "m", "identifier": "a"}));
        assert_eq!(filter.as_ref().unwrap().kind, Some(FailureKind::InvalidOutput));
        assert!(filter.unwrap().is_of_failures() && StateFilter::errored().is_of_failures());
        assert!(!read(json!({"status": ["ERRORED", "PRUNED"]})).unwrap().is_of_failures());
        assert!(read(json!({"status": ["ERRORED", "PRUNED"], "kind": "trap"})).is_ok());
        let problems = read(json!({"status": ["SUCCESS"], "kind": "trap", "message": "m"}));
        assert_eq!(problems.unwrap_err().len(), 2);
        let problems = read(json!({"kind": "timeot"})).unwrap_err();
        assert!(problems[0].message.contains("did you mean \"timeout\"?"), "{problems:?}");
    }

    #[test]
    fn the_length_of_lists_is_bounded() {
        let labels: Vec<_> = (0..=MAX_LABELS).map(|n| format!("k{n}:v")).collect();
        let given = json!({"label": labels, "status": vec!["FAILED"; MAX_WORDS + 1]});
        let mut problems = Problems::default();
        RunFilter::read(&given, "$", &mut problems);
        assert_eq!(problems.len(), 2);
    }
}
