//! Groups of a run's failures: those of one kind whose messages differ only in numbers, ids and
//! quoted values.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::failure::FailureKind;
use crate::filter::MESSAGE_FILTER_CHARS;
use crate::ids::{Millis, StateId};
use crate::json::Typed;

/// The maximum number of groups that are listed.
pub const MAX_FAILURE_GROUPS: usize = 100;

/// The characters of a normalised message.
const MAX_MESSAGE_CHARS: usize = 300;

/// The number of hexadecimal digits from which a word is an id.
const MIN_HEX_ID_DIGITS: usize = 8;

/// The placeholders of a normalised message.
const NUMBER: &str = "<n>";
const ID: &str = "<id>";
const VALUE: &str = "<value>";

/// A state that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedState {
    /// The number of the state.
    pub id: StateId,
    /// The kind of its failure.
    pub kind: FailureKind,
    /// The begin of the message; `None` if it is not shown.
    pub message: Option<String>,
    /// The time at which the state ended.
    pub ended_at: Millis,
}

/// The failures of a run, in groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureGroups {
    /// The id of the run.
    pub run: String,
    /// The groups, the largest first; at most 100.
    pub groups: Vec<FailureGroup>,
    /// The number of states in groups that are not listed.
    pub others: u64,
    /// The failed states that were examined.
    pub sample: Sample,
}

/// A group of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureGroup {
    /// The kind of the failures.
    pub kind: String,
    /// The message that they have in common: `<n>` stands for a number, `<id>` for a longer
    /// hexadecimal number or a UUID, and `<value>` for a quoted text. Null if the messages are not
    /// shown.
    #[serde(default)]
    pub message: Option<String>,
    /// The number of states.
    pub count: u64,
    /// The path of one of the states, the one that failed first.
    pub example: String,
    /// The time of the first failure, in milliseconds since 1970 (UTC).
    pub first_at: i64,
    /// The time of the last failure, in milliseconds since 1970 (UTC).
    pub last_at: i64,
    /// The filter of the list of states that finds exactly these states; null if there is none.
    #[serde(default)]
    pub filter: Option<FailureFilter>,
}

/// A filter of states by their failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureFilter {
    /// The kind of the failure.
    pub kind: String,
    /// The begin of the message; absent if the kind suffices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Typed for FailureGroups {}

/// Groups of failures whose examples are numbers of states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailuresOfRun {
    /// The groups, with the state of each that failed first.
    pub groups: Vec<(StateId, FailureGroup)>,
    /// The number of states in groups that are not listed.
    pub others: u64,
}

/// A group under construction.
struct Group {
    example: StateId,
    count: u64,
    first_at: Millis,
    last_at: Millis,
    /// The first characters of the messages, while all have the same.
    prefix: Option<String>,
}

/// Groups failures by kind and normalised message.
pub fn group_failures(states: &[FailedState], sample: Sample) -> FailuresOfRun {
    let mut groups: HashMap<(FailureKind, Option<String>), Group> = HashMap::new();
    // The groups that messages with a prefix belong to: the filter of a prefix finds all of them.
    let mut groups_of_prefix: HashMap<(FailureKind, String), (Option<String>, bool)> =
        HashMap::new();
    for state in states {
        let message = state.message.as_deref().map(normalised);
        let prefix = state.message.as_deref().map(filter_prefix);
        if let Some(prefix) = &prefix {
            let entry = groups_of_prefix.entry((state.kind, prefix.clone()));
            let (first, is_shared) = entry.or_insert_with(|| (message.clone(), false));
            *is_shared |= *first != message;
        }
        groups.entry((state.kind, message)).or_insert_with(|| Group::of(state)).add(state, prefix);
    }
    let groups_of_kind = |kind| groups.keys().filter(|(other, _)| *other == kind).count();
    let listed = groups.iter().map(|((kind, message), group)| {
        let is_only = groups_of_kind(*kind) == 1;
        let prefix = group.prefix.clone().filter(|prefix| {
            let shared = groups_of_prefix.get(&(*kind, prefix.clone()));
            shared.is_some_and(|(_, is_shared)| !is_shared)
        });
        (group.example, group.listed(*kind, message, is_only, prefix, sample))
    });
    let mut listed: Vec<(StateId, FailureGroup)> = listed.collect();
    listed.sort_by(|(_, one), (_, other)| {
        let key = |group: &FailureGroup| (std::cmp::Reverse(group.count), group.first_at);
        key(one).cmp(&key(other)).then_with(|| one.message.cmp(&other.message))
    });
    let rest = listed.split_off(listed.len().min(MAX_FAILURE_GROUPS));
    FailuresOfRun { groups: listed, others: rest.iter().map(|(_, group)| group.count).sum() }
}

impl Group {
    fn of(state: &FailedState) -> Self {
        Group {
            example: state.id,
            count: 0,
            first_at: state.ended_at,
            last_at: state.ended_at,
            prefix: state.message.as_deref().map(filter_prefix),
        }
    }

    fn add(&mut self, state: &FailedState, prefix: Option<String>) {
        self.count += 1;
        if (state.ended_at, state.id) < (self.first_at, self.example) {
            (self.first_at, self.example) = (state.ended_at, state.id);
        }
        self.last_at = self.last_at.max(state.ended_at);
        if self.prefix != prefix {
            self.prefix = None;
        }
    }

    fn listed(
        &self,
        kind: FailureKind,
        message: &Option<String>,
        is_only: bool,
        prefix: Option<String>,
        sample: Sample,
    ) -> FailureGroup {
        let kind = kind.as_str().to_owned();
        let filter = match (is_only, prefix) {
            // Other groups may have been missed.
            _ if sample.is_partial() => None,
            (true, _) => Some(FailureFilter { kind: kind.clone(), message: None }),
            (false, prefix @ Some(_)) => {
                Some(FailureFilter { kind: kind.clone(), message: prefix })
            }
            (false, None) => None,
        };
        FailureGroup {
            kind,
            message: message.clone(),
            count: sample.scaled(self.count),
            example: String::new(),
            first_at: self.first_at,
            last_at: self.last_at,
            filter,
        }
    }
}

/// Returns the characters of a message that a filter compares.
fn filter_prefix(message: &str) -> String {
    message.chars().take(MESSAGE_FILTER_CHARS).collect()
}

/// Returns a message with placeholders for its numbers, ids and quoted values, at most 300
/// characters of it.
pub fn normalised(message: &str) -> String {
    let mut rest = message;
    let mut text = String::with_capacity(message.len());
    let mut before = ' ';
    while let Some(next) = rest.chars().next() {
        let is_word_start = !before.is_alphanumeric();
        let (bytes, placeholder) = if is_word_start && let Some(bytes) = quoted(rest) {
            (bytes, Some(VALUE))
        } else if is_word_start && let Some(bytes) = id(rest) {
            (bytes, Some(ID))
        } else if next.is_ascii_digit() {
            (number(rest), Some(NUMBER))
        } else {
            (next.len_utf8(), None)
        };
        let (taken, after) = rest.split_at(bytes);
        text.push_str(placeholder.unwrap_or(taken));
        before = taken.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// Returns the bytes of a quoted text at the begin of a text, with its quotation marks.
fn quoted(text: &str) -> Option<usize> {
    let mark = text.chars().next().filter(|mark| "\"'`".contains(*mark))?;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if letter == mark && !is_escaped {
            return Some(at + mark.len_utf8());
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    None
}

/// Returns the bytes of an id at the begin of a text: a UUID, a hexadecimal number with its prefix,
/// or at least eight hexadecimal digits of which one is a digit.
fn id(text: &str) -> Option<usize> {
    const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let word =
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').next()?;
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if word.split('-').map(str::len).eq(UUID_GROUPS) && word.split('-').all(is_hex) {
        return Some(word.len());
    }
    let word = word.split('-').next()?;
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    if digits.is_some_and(|digits| !digits.is_empty() && is_hex(digits)) {
        return Some(word.len());
    }
    let has_letter = word.bytes().any(|byte| byte.is_ascii_alphabetic());
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let is_id = word.len() >= MIN_HEX_ID_DIGITS && is_hex(word) && has_letter && has_digit;
    is_id.then_some(word.len())
}

/// Returns the bytes of a decimal number at the begin of a text, with its fraction.
fn number(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    match text[whole..].strip_prefix('.').map(digits) {
        None | Some(0) => whole,
        Some(fraction) => whole + 1 + fraction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_placeholders() {
        for (message, expected) in [
            ("row 17 of 20.5 is bad", "row <n> of <n> is bad"),
            ("item17: code 5.", "item<n>: code <n>."),
            ("no user \"a \\\" b\" at 'x'", "no user <value> at <value>"),
            ("can't open it, isn't there", "can't open it, isn't there"),
            ("run 0195b7f0-0000-7000-8000-00000000000A failed", "run <id> failed"),
            ("trap at 0x1f in deadbeef01", "trap at <id> in <id>"),
            ("a deadbeef facade", "a deadbeef facade"),
            ("commit 12345678 is 3ab4c5d6", "commit <n> is <id>"),
            ("größe 5 µs", "größe <n> µs"),
            ("an \"open quote", "an \"open quote"),
            ("", ""),
        ] {
            assert_eq!(normalised(message), expected);
        }
        assert_eq!(normalised(&"ä".repeat(400)).chars().count(), MAX_MESSAGE_CHARS);
    }

    fn failed(id: i64, kind: FailureKind, message: &str, ended_at: Millis) -> FailedState {
        FailedState { id: StateId(id), kind, message: Some(message.to_owned()), ended_at }
    }

    fn message_filter(group: &FailureGroup) -> Option<Option<&str>> {
        group.filter.as_ref().map(|filter| filter.message.as_deref())
    }

    #[test]
    fn failures_are_grouped_by_kind_and_message() {
        let states = [
            failed(1, FailureKind::Permanent, "row 1 is bad", 30),
            failed(2, FailureKind::Permanent, "row 2 is bad", 10),
            failed(3, FailureKind::Permanent, "no", 40),
            failed(4, FailureKind::Timeout, "row 1 is bad", 50),
            failed(5, FailureKind::Permanent, "row 2 is bad", 60),
        ];
        let all = group_failures(&states, Sample::default());
        assert_eq!((all.groups.len(), all.others), (3, 0));
        let (example, rows) = &all.groups[0];
        assert_eq!((example.0, rows.count, rows.first_at, rows.last_at), (2, 3, 10, 60));
        assert_eq!(rows.message.as_deref(), Some("row <n> is bad"));
        // The list of states has no filter for several messages.
        assert_eq!(message_filter(rows), None);
        assert_eq!(message_filter(&all.groups[1].1), Some(Some("no")));
        assert_eq!(message_filter(&all.groups[2].1), Some(None), "the only ones of their kind");
    }

    #[test]
    fn a_shared_prefix_is_no_filter() {
        let long = "x ".repeat(40);
        let states = [
            failed(1, FailureKind::Permanent, &format!("{long}a"), 1),
            failed(2, FailureKind::Permanent, &format!("{long}b"), 2),
        ];
        let all = group_failures(&states, Sample::default());
        assert_eq!(all.groups.len(), 2);
        assert!(all.groups.iter().all(|(_, group)| group.filter.is_none()));
    }

    #[test]
    fn hidden_messages_make_one_group_of_a_kind() {
        let hidden = |id| FailedState { message: None, ..failed(id, FailureKind::Trap, "", id) };
        let all = group_failures(&[hidden(1), hidden(2)], Sample::default());
        assert_eq!(all.groups.len(), 1);
        let group = &all.groups[0].1;
        assert_eq!((group.count, &group.message), (2, &None));
        assert_eq!(message_filter(group), Some(None));
    }

    #[test]
    fn further_groups_are_counted_together() {
        let states: Vec<_> = (0..MAX_FAILURE_GROUPS as i64 + 5)
            .map(|n| failed(n, FailureKind::Permanent, &"x".repeat(n as usize), n))
            .collect();
        let all = group_failures(&states, Sample { examined: 1, of: 2 });
        assert_eq!((all.groups.len(), all.others), (MAX_FAILURE_GROUPS, 10));
    }
}
