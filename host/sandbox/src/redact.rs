//! Keeps secrets out of what people read: where one stands in a guest's words,
//! `[secret NAME]` stands instead.
//!
//! This is a guard against mishaps, not against the guest: who wants to tell a
//! secret need only spell it backwards. What is found are the secret itself,
//! each of its lines, and its usual spellings: JSON, Rust, percent, hexadecimal
//! and base64, this one inside of a longer text, too. Words are cleaned first
//! (`text`), since what shows nothing could stand in the middle of a secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use exosphere_domain::failure::Failure;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::secrets::{Secret, Secrets};
use crate::text::{clean_line, clean_lines};

/// Characters of a secret, and of what is left of one at a cut, that are worth
/// to be hidden. Fewer are found in any text.
const FEWEST: usize = 4;

/// The same of one of several lines, or of a part in base64: those may be
/// ordinary words.
const FEWEST_OF_PART: usize = 6;

/// What is left alone in a percent-encoded text, apart from letters and digits:
/// encoders differ.
const PERCENT: [&AsciiSet; 3] = [
    NON_ALPHANUMERIC,
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~'),
    &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'!')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')')
        .remove(b'*'),
];

/// What finds the secrets of an execution.
pub(crate) struct Patterns {
    /// Texts and whose they are, in order.
    texts: Vec<(Zeroizing<String>, usize)>,
    names: Vec<String>,
    /// Finds the texts, by their number. There is none if there is no text.
    finder: Option<AhoCorasick>,
    longest: usize,
}

impl Patterns {
    pub(crate) fn of(secrets: &BTreeMap<String, Secret>) -> Patterns {
        let mut texts = Vec::new();
        for (at, secret) in secrets.values().enumerate() {
            texts.extend(spellings(&secret.value).into_iter().map(|text| (text, at)));
        }
        texts.sort_by(|(a, _), (b, _)| a.as_str().cmp(b));
        texts.dedup_by(|(text, _), (before, _)| text == before);
        let finder = AhoCorasick::new(texts.iter().map(|(text, _)| text.as_bytes()));
        // It fails only beyond four thousand million states.
        let finder = finder.ok().filter(|_| !texts.is_empty());
        let longest = texts.iter().map(|(text, _)| text.len()).max().unwrap_or_default();
        Patterns { texts, names: secrets.keys().cloned().collect(), finder, longest }
    }

    /// A text without secrets. If it was cut, what begins one at its end goes,
    /// too.
    fn hide<'a>(&self, text: &'a str, is_cut: bool) -> Cow<'a, str> {
        let Some(finder) = &self.finder else { return Cow::Borrowed(text) };
        let found = finder.find_overlapping_iter(text);
        let mut found: Vec<(Range<usize>, usize)> = found
            .filter_map(|found| {
                let (_, whose) = self.texts.get(found.pattern().as_usize())?;
                Some((found.range(), *whose))
            })
            .collect();
        if is_cut {
            found.extend(self.begun(text));
        }
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_by_key(|(range, _)| range.start);
        Cow::Owned(self.without(text, &found))
    }

    /// The text without some ranges, which may overlap.
    fn without(&self, text: &str, found: &[(Range<usize>, usize)]) -> String {
        let mut hidden = String::with_capacity(text.len());
        let mut end = 0;
        for (range, whose) in found {
            if range.start >= end {
                hidden.push_str(text.get(end..range.start).unwrap_or_default());
                let name = self.names.get(*whose).map_or("", String::as_str);
                hidden.push_str(&format!("[secret {name}]"));
            }
            end = end.max(range.end);
        }
        hidden.push_str(text.get(end..).unwrap_or_default());
        hidden
    }

    /// The longest end of a text with which a secret begins.
    fn begun(&self, text: &str) -> Option<(Range<usize>, usize)> {
        // Half a character, which would be the end of none.
        let text = text.trim_end_matches('\u{fffd}');
        let from = text.ceil_char_boundary(text.len().saturating_sub(self.longest));
        let starts = text.get(from..)?.char_indices().map(|(at, _)| from + at);
        starts.take_while(|start| text[*start..].chars().nth(FEWEST - 1).is_some()).find_map(
            |start| {
                let end = &text[start..];
                let at = self.texts.partition_point(|(known, _)| known.as_str() < end);
                let (known, whose) = self.texts.get(at)?;
                known.starts_with(end).then_some((start..text.len(), *whose))
            },
        )
    }
}

impl Secrets {
    /// A text that was cleaned, without secrets. Costs nothing where there are
    /// none.
    pub fn hide<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.hidden(text.into(), false)
    }

    /// The same of a text that was cut: nor does the beginning of a secret stand
    /// at its end.
    pub(crate) fn hide_cut<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.hidden(text.into(), true)
    }

    fn hidden<'a>(&self, text: Cow<'a, str>, is_cut: bool) -> Cow<'a, str> {
        let Some(patterns) = self.patterns() else { return text };
        match patterns.hide(&text, is_cut) {
            Cow::Owned(hidden) => Cow::Owned(hidden),
            Cow::Borrowed(_) => text,
        }
    }

    /// A failure without secrets, in its message and its details.
    pub(crate) fn hide_in(&self, mut failure: Failure) -> Failure {
        if self.patterns().is_none() {
            return failure;
        }
        failure.message = self.hide(failure.message).into_owned();
        failure.details = failure.details.map(|details| self.hide_in_json(details));
        failure
    }

    /// A text that is kept as it is, unless a secret is in it.
    fn hide_uncleaned(&self, text: String) -> String {
        match self.hide(clean_lines(&text)) {
            hidden if hidden == clean_lines(&text) => text,
            hidden => hidden.into_owned(),
        }
    }

    fn hide_in_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.hide_uncleaned(text)),
            Value::Array(list) => list.into_iter().map(|value| self.hide_in_json(value)).collect(),
            Value::Object(map) => {
                let hide = |(key, value)| (self.hide_uncleaned(key), self.hide_in_json(value));
                Value::Object(map.into_iter().map(hide).collect::<Map<_, _>>())
            }
            // A secret may be a number.
            Value::Number(number) => match self.hide(number.to_string()) {
                hidden if hidden == number.to_string() => Value::Number(number),
                hidden => Value::String(hidden.into_owned()),
            },
            value => value,
        }
    }
}

/// The texts that tell a secret.
fn spellings(value: &str) -> Vec<Zeroizing<String>> {
    // White space around it, such as the line end of a file, tells nothing.
    let value = value.trim();
    let lines = value.lines().count();
    let mut texts = Vec::new();
    let mut add = |text: &str, fewest: usize| {
        let text = Zeroizing::new(clean_line(text));
        if text.trim().chars().nth(fewest - 1).is_some() {
            texts.push(text);
        }
    };
    if lines <= 1 {
        add(value, FEWEST);
    } else {
        value.lines().for_each(|line| add(line.trim(), FEWEST_OF_PART));
    }
    if value.chars().nth(FEWEST - 1).is_none() {
        return texts;
    }
    add(&in_json(value, false), FEWEST);
    add(&in_json(value, true), FEWEST);
    add(&value.escape_debug().to_string(), FEWEST);
    add(&hex::encode(value), FEWEST);
    add(&hex::encode_upper(value), FEWEST);
    for set in PERCENT {
        let text = Zeroizing::new(utf8_percent_encode(value, set).to_string());
        add(&text, FEWEST);
        add(&text.replace("%20", "+"), FEWEST);
        add(&in_lower_case(&text), FEWEST);
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        add(&engine.encode(value), FEWEST);
        (0..3).for_each(|before| add(&inside_base64(&engine, value, before), FEWEST_OF_PART));
    }
    texts
}

/// As it stands inside of the quotes of JSON; in ASCII alone, as some write it.
fn in_json(value: &str, ascii: bool) -> Zeroizing<String> {
    let quoted = Value::String(value.to_owned()).to_string();
    let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(inside.len()));
    for c in inside.chars() {
        match ascii && !c.is_ascii() {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                text.push_str(&format!("\\u{unit:04x}"));
            }),
            false => text.push(c),
        }
    }
    text
}

/// The digits of percent-encoding in lower case: `%2f`.
fn in_lower_case(text: &str) -> Zeroizing<String> {
    let mut digits = 0;
    let lower = text.chars().map(|c| {
        digits = if c == '%' { 2 } else { i32::max(digits - 1, -1) };
        if digits >= 0 { c.to_ascii_lowercase() } else { c }
    });
    Zeroizing::new(lower.collect())
}

/// What is the same in base64 of all texts in which a value stands behind so
/// many bytes, in threes: without the digits at its ends that have a part of
/// what is beside it.
fn inside_base64(engine: &GeneralPurpose, value: &str, before: usize) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(vec![0; before]);
    bytes.extend_from_slice(value.as_bytes());
    let digits = Zeroizing::new(engine.encode(&bytes));
    let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    Zeroizing::new(digits.get(from..to).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secrets(all: &[(&str, &str)]) -> Secrets {
        let owned = |(name, value): &(&str, &str)| {
            let value = Zeroizing::new((*value).to_owned());
            ((*name).to_owned(), Secret { value, is_shown: true })
        };
        all.iter().map(owned).collect()
    }

    fn hidden(value: &str, text: &str) -> String {
        secrets(&[("k", value)]).hide(text).into_owned()
    }

    #[test]
    fn a_secret_and_its_spellings_are_hidden() {
        let value = "p\"ss wörd/+?";
        for (what, text) in [
            ("itself", "p\"ss wörd/+?"),
            ("JSON", r#"p\"ss wörd/+?"#),
            ("JSON in ASCII", r#"p\"ss w\u00f6rd/+?"#),
            ("percent", "p%22ss%20w%C3%B6rd%2F%2B%3F"),
            ("percent in lower case", "p%22ss%20w%c3%b6rd%2f%2b%3f"),
            ("a form", "p%22ss+w%C3%B6rd%2F%2B%3F"),
            ("hexadecimal", "702273732077c3b672642f2b3f"),
            ("base64", "cCJzcyB3w7ZyZC8rPw"),
        ] {
            assert_eq!(hidden(value, &format!("a {text} b")), "a [secret k] b", "{what}");
        }
        assert_eq!(hidden("hush-hush", "a=hush-hush&b=hush-hush"), "a=[secret k]&b=[secret k]");
        assert_eq!(hidden("hush-hush\n", "a hush-hush b"), "a [secret k] b", "its line end");
        assert_eq!(hidden("tab\there", "Err(\"tab\\there\")"), "Err(\"[secret k]\")");
        assert_eq!(hidden("hu\u{200b}sh\u{1b}[1m!", "a hush! b"), "a [secret k] b", "as cleaned");
    }

    #[test]
    fn base64_of_more_than_the_secret_tells_nothing_either() {
        let value = "correct horse";
        for before in ["", "a", "ab", "abc", "user:"] {
            for behind in ["", "x", "xy", "xyz"] {
                let whole = format!("{before}{value}{behind}");
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let shown = hidden(value, &engine.encode(&whole));
                    assert!(shown.contains("[secret k]"), "{whole}: {shown}");
                    assert!(shown.len() < "[secret k]".len() + 16, "{whole}: {shown}");
                }
            }
        }
    }

    #[test]
    fn lines_are_hidden_one_by_one_and_words_are_not() {
        let key = "-----BEGIN KEY-----\nAAAABBBB\nCC==\n-----END KEY-----\n";
        assert_eq!(hidden(key, "AAAABBBB"), "[secret k]");
        assert_eq!(hidden(key, "CC=="), "CC==", "a short line");
        assert_eq!(hidden(key, &json!({"key": key.trim()}).to_string()), r#"{"key":"[secret k]"}"#);
        for short in ["", "a", "abc", "äöü", " abc ", "   \n  "] {
            assert_eq!(hidden(short, "a abc äöü b   "), "a abc äöü b   ", "{short:?}");
        }
        assert_eq!(hidden("abcd", "abcd"), "[secret k]");
    }

    #[test]
    fn what_overlaps_goes_as_one() {
        let both = secrets(&[("a", "one-common"), ("b", "common-two")]);
        assert_eq!(both.hide("x one-common-two y"), "x [secret a] y");
        assert_eq!(both.hide("common-twone-common"), "[secret b]");
        let inner = secrets(&[("a", "abcdefgh"), ("b", "cdef")]);
        assert_eq!(inner.hide("abcdefgh cdef"), "[secret a] [secret b]");
    }

    #[test]
    fn a_cut_leaves_no_beginning() {
        let secret = secrets(&[("k", "hush-ä-hush")]);
        for (text, shown) in [
            ("say hush-ä-hus", "say [secret k]"),
            ("say hush-\u{fffd}", "say [secret k]\u{fffd}"),
            ("say hush", "say [secret k]"),
            ("say hus", "say hus"),
            ("say hush-ä-hush", "say [secret k]"),
            ("say hush-x", "say hush-x"),
        ] {
            assert_eq!(secret.hide_cut(text), shown, "{text}");
        }
        assert_eq!(secret.hide("say hush-ä-hus"), "say hush-ä-hus", "nobody cut it");
        let two = secrets(&[("a", "hello-abc"), ("b", "abc-defgh")]);
        assert_eq!(two.hide_cut("x hello-abc-de"), "x [secret a]");
    }

    #[test]
    fn failures_are_looked_through() {
        let secret = secrets(&[("k", "hush-hush"), ("pin", "123456")]);
        let details = json!({"a": ["x hush-hush y", 7, null], "hush-hush": {"pin": 123456}});
        let failure = exosphere_domain::failure::FailureKind::Permanent;
        let failure = secret.hide_in(Failure::new(failure, "no:\nhush-hush").with(details));
        assert_eq!(failure.message, "no:\n[secret k]");
        let shown =
            json!({"a": ["x [secret k] y", 7, null], "[secret k]": {"pin": "[secret pin]"}});
        assert_eq!(failure.details, Some(shown));
    }

    #[test]
    fn nothing_is_made_of_no_secrets_and_little_shown_of_some() {
        let none = Secrets::default();
        assert!(none.patterns().is_none());
        assert!(matches!(none.hide("text"), Cow::Borrowed("text")));
        let some = secrets(&[("k", "hush-hush")]);
        assert_eq!(format!("{some:?}"), r#"{"k"}"#);
        let _shared = Arc::new(some);
    }

    proptest! {
        /// Whatever stands around it, and however often.
        #[test]
        fn what_is_said_whole_never_shows(
            secret in "[a-c]{4,8}",
            around in proptest::collection::vec("[a-c ]{0,6}", 1..6),
        ) {
            let text = around.join(&secret);
            prop_assert!(!hidden(&secret, &text).contains(&secret));
        }

        /// No beginning of four characters is left at a cut.
        #[test]
        fn what_is_cut_shows_no_beginning(
            secret in "[a-cä]{5,9}", before in "[a-cä ]{0,12}", kept in 4..9usize,
        ) {
            let begun: String = secret.chars().take(kept).collect();
            let shown = secrets(&[("k", &secret)]);
            let shown = shown.hide_cut(format!("{before}{begun}"));
            prop_assert!(shown.ends_with("[secret k]"), "{}", shown);
        }
    }
}
