//! Keeps secrets out of the text that people read: `[secret NAME]` replaces each secret
//! in a guest's output.
//!
//! This is a guard against accidents, not against the guest: a guest can reveal a secret
//! by spelling it backwards. The needles are the secret itself, each of its lines, and
//! its usual spellings: JSON, Rust, percent, hexadecimal and base64, the latter inside
//! of a longer text, too. Text is cleaned first (`sanitize`), since invisible characters
//! could stand in the middle of a secret. The needles are bounded, whatever secrets
//! there are, and so is the time to search a text (`finder`).

mod finder;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::sanitize::{clean_line, cut};
use finder::{Find, Finder, Needle, STATE_BYTES};

/// Minimum characters of a secret, or of its beginning at a cut, that are redacted.
/// Shorter sequences occur in any text.
const MIN_SECRET_CHARS: usize = 4;

/// Minimum characters of one line of several, or of a part in base64: those may be
/// ordinary words.
const MIN_PART_CHARS: usize = 6;

/// The percent-encodings of a secret. They differ in the characters that stay unescaped
/// besides letters and digits, as encoders do.
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

/// The maximum bytes of one needle. Of a longer text only the beginning is a needle,
/// and a match redacts everything after it in the same text.
const MAX_NEEDLE_BYTES: usize = 1024;

/// The maximum bytes of a secret that are encoded: some of them may be invisible.
const MAX_SPELLED_BYTES: usize = 4 * MAX_NEEDLE_BYTES;

/// The maximum number of lines of a secret that are needles of their own.
const MAX_LINES: usize = 256;

/// The maximum bytes of all needles of a graph, each of which takes a state of
/// [`STATE_BYTES`]: 18 MiB. If there are more, the needles are shortened.
const MAX_NEEDLES_BYTES: usize = 1024 * 1024;

/// The patterns of the secrets of a graph, with the automaton that finds them.
pub(crate) struct Patterns {
    names: Vec<String>,
    finder: Option<Finder>,
}

impl Patterns {
    /// Builds the patterns of the secrets, by name.
    pub(crate) fn new(secrets: &BTreeMap<String, Zeroizing<String>>) -> Patterns {
        let mut needles = Vec::new();
        for (owner, value) in secrets.values().enumerate() {
            let spelled = spellings(value).into_iter();
            needles.extend(spelled.map(|Spelling { text, is_whole }| Needle {
                text,
                owner,
                is_beginning: !is_whole,
            }));
        }
        needles.sort_by(|a, b| a.text.as_str().cmp(b.text.as_str()));
        needles.dedup_by(|second, first| {
            let is_same = second.text == first.text;
            first.is_beginning |= is_same && second.is_beginning;
            is_same
        });
        shorten(&mut needles);
        let finder = (!needles.is_empty()).then(|| Finder::new(needles));
        Patterns { names: secrets.keys().cloned().collect(), finder }
    }

    /// Returns the bytes of memory that the automaton takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.finder.as_ref().map_or(0, |finder| (finder.states() * STATE_BYTES) as u64)
    }

    /// Redacts the secrets of a text. If it was cut, the beginning of a secret at its end
    /// is redacted, too.
    pub(crate) fn redact<'a>(&self, text: &'a str, is_cut: bool) -> Cow<'a, str> {
        let Some(finder) = &self.finder else { return Cow::Borrowed(text) };
        let found = finder.find(text, is_cut.then_some(MIN_SECRET_CHARS));
        if found.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(self.without(text, &found)) }
    }

    /// Replaces some ranges of a text, which are in order, by the names of their
    /// secrets.
    fn without(&self, text: &str, found: &[Find]) -> String {
        let mut redacted = String::with_capacity(text.len());
        let mut end = 0;
        for (range, owner) in found {
            redacted.push_str(text.get(end..range.start).unwrap_or_default());
            let name = self.names.get(*owner).map_or("", String::as_str);
            redacted.push_str(&format!("[secret {name}]"));
            end = range.end;
        }
        redacted.push_str(text.get(end..).unwrap_or_default());
        redacted
    }
}

/// Shortens the longest needles until all together are within the limit.
fn shorten(needles: &mut [Needle]) {
    let mut max_bytes = MAX_NEEDLE_BYTES;
    let bytes = |max_bytes: usize| {
        needles.iter().map(|needle| needle.text.len().min(max_bytes)).sum::<usize>()
    };
    while bytes(max_bytes) > MAX_NEEDLES_BYTES && max_bytes > 2 * MIN_PART_CHARS {
        max_bytes /= 2;
    }
    for needle in needles {
        if needle.text.len() > max_bytes {
            let cut = Zeroizing::new(cut(&needle.text, max_bytes).to_owned());
            (needle.text, needle.is_beginning) = (cut, true);
        }
    }
}

/// A text that reveals a secret, or the beginning of such a text.
struct Spelling {
    text: Zeroizing<String>,
    is_whole: bool,
}

/// A collection of spellings that are long enough to be told from ordinary words.
struct Spellings {
    all: Vec<Spelling>,
    is_whole: bool,
}

impl Spellings {
    fn add(&mut self, text: &str, min_chars: usize) {
        let text = Zeroizing::new(clean_line(text));
        if text.trim().chars().nth(min_chars - 1).is_some() {
            self.all.push(Spelling { text, is_whole: self.is_whole });
        }
    }
}

/// Returns the texts that reveal a secret. For a long secret, they are the beginnings
/// of such texts.
fn spellings(value: &str) -> Vec<Spelling> {
    // White space around a secret, such as the line end of a file, reveals nothing.
    let value = value.trim();
    let beginning = cut(value, MAX_SPELLED_BYTES);
    let mut texts = Spellings { all: Vec::new(), is_whole: beginning.len() == value.len() };
    if value.lines().nth(1).is_none() {
        texts.add(beginning, MIN_SECRET_CHARS);
    } else {
        let mut lines = Spellings { all: Vec::new(), is_whole: true };
        for line in value.lines().map(str::trim).take(MAX_LINES) {
            let beginning = cut(line, MAX_SPELLED_BYTES);
            lines.is_whole = beginning.len() == line.len();
            lines.add(beginning, MIN_PART_CHARS);
        }
        texts.all = lines.all;
    }
    if value.chars().nth(MIN_SECRET_CHARS - 1).is_none() {
        return texts.all;
    }
    let value = beginning;
    texts.add(&in_json(value, false), MIN_SECRET_CHARS);
    texts.add(&in_json(value, true), MIN_SECRET_CHARS);
    texts.add(&value.escape_debug().to_string(), MIN_SECRET_CHARS);
    texts.add(&hex::encode(value), MIN_SECRET_CHARS);
    texts.add(&hex::encode_upper(value), MIN_SECRET_CHARS);
    for set in PERCENT {
        let text = Zeroizing::new(utf8_percent_encode(value, set).to_string());
        texts.add(&text, MIN_SECRET_CHARS);
        texts.add(&text.replace("%20", "+"), MIN_SECRET_CHARS);
        texts.add(&in_lower_case(&text), MIN_SECRET_CHARS);
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // The last base64 digits of a beginning also encode a part of the next bytes.
        if texts.is_whole {
            texts.add(&engine.encode(value), MIN_SECRET_CHARS);
        } else {
            texts.add(&inside_base64(&engine, value, 0), MIN_SECRET_CHARS);
        }
        (0..3).for_each(|before| texts.add(&inside_base64(&engine, value, before), MIN_PART_CHARS));
    }
    texts.all
}

/// Escapes a value as inside the quotes of JSON; with `ascii`, also all non-ASCII
/// characters, as some encoders do.
fn in_json(value: &str, ascii: bool) -> Zeroizing<String> {
    let quoted = Value::String(value.to_owned()).to_string();
    let unquoted = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(unquoted.len()));
    for c in unquoted.chars() {
        if ascii && !c.is_ascii() {
            c.encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

/// Returns a percent-encoded text with lower-case digits: `%2f`.
fn in_lower_case(text: &str) -> Zeroizing<String> {
    let mut digits = 0;
    let lower = text.chars().map(|c| {
        digits = if c == '%' { 2 } else { i32::max(digits - 1, -1) };
        if digits >= 0 { c.to_ascii_lowercase() } else { c }
    });
    Zeroizing::new(lower.collect())
}

/// Returns the base64 digits that a value has wherever it follows `before` bytes,
/// modulo three. Digits at its ends that also encode neighbouring bytes are left out.
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
    use std::time::{Duration, Instant};

    use exosphere_domain::failure::Failure;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::guest::secrets::{Secret, Secrets};

    fn secrets(all: &[(&str, &str)]) -> Secrets {
        let owned = |(name, value): &(&str, &str)| {
            let value = Zeroizing::new((*value).to_owned());
            ((*name).to_owned(), Secret { value, is_visible: true })
        };
        all.iter().map(owned).collect()
    }

    fn redacted(value: &str, text: &str) -> String {
        secrets(&[("k", value)]).redact(text).into_owned()
    }

    #[test]
    fn a_secret_and_its_spellings_are_redacted() {
        let value = "p\"ss wörd/+?";
        for (case, text) in [
            ("itself", "p\"ss wörd/+?"),
            ("JSON", r#"p\"ss wörd/+?"#),
            ("JSON in ASCII", r#"p\"ss w\u00f6rd/+?"#),
            ("percent", "p%22ss%20w%C3%B6rd%2F%2B%3F"),
            ("percent in lower case", "p%22ss%20w%c3%b6rd%2f%2b%3f"),
            ("a form", "p%22ss+w%C3%B6rd%2F%2B%3F"),
            ("hexadecimal", "702273732077c3b672642f2b3f"),
            ("base64", "cCJzcyB3w7ZyZC8rPw"),
        ] {
            assert_eq!(redacted(value, &format!("a {text} b")), "a [secret k] b", "{case}");
        }
        assert_eq!(redacted("hush-hush", "a=hush-hush&b=hush-hush"), "a=[secret k]&b=[secret k]");
        assert_eq!(redacted("hush-hush\n", "a hush-hush b"), "a [secret k] b", "its line end");
        assert_eq!(redacted("tab\there", "Err(\"tab\\there\")"), "Err(\"[secret k]\")");
        assert_eq!(redacted("hu\u{200b}sh\u{1b}[1m!", "a hush! b"), "a [secret k] b", "as cleaned");
    }

    #[test]
    fn a_secret_inside_base64_is_redacted() {
        let value = "correct horse";
        for before in ["", "a", "ab", "abc", "user:"] {
            for suffix in ["", "x", "xy", "xyz"] {
                let whole = format!("{before}{value}{suffix}");
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let expected = redacted(value, &engine.encode(&whole));
                    assert!(expected.contains("[secret k]"), "{whole}: {expected}");
                    assert!(expected.len() < "[secret k]".len() + 16, "{whole}: {expected}");
                }
            }
        }
    }

    #[test]
    fn lines_are_redacted_but_not_words() {
        let key = "-----BEGIN KEY-----\nAAAABBBB\nCC==\n-----END KEY-----\n";
        assert_eq!(redacted(key, "AAAABBBB"), "[secret k]");
        assert_eq!(redacted(key, "CC=="), "CC==", "a short line");
        assert_eq!(
            redacted(key, &json!({"key": key.trim()}).to_string()),
            r#"{"key":"[secret k]"}"#
        );
        for short in ["", "a", "abc", "äöü", " abc ", "   \n  "] {
            assert_eq!(redacted(short, "a abc äöü b   "), "a abc äöü b   ", "{short:?}");
        }
        assert_eq!(redacted("abcd", "abcd"), "[secret k]");
    }

    #[test]
    fn overlapping_secrets_are_redacted_as_one() {
        let both = secrets(&[("a", "one-common"), ("b", "common-two")]);
        assert_eq!(both.redact("x one-common-two y"), "x [secret a] y");
        assert_eq!(both.redact("common-twone-common"), "[secret b]");
        let inner = secrets(&[("a", "abcdefgh"), ("b", "cdef")]);
        assert_eq!(inner.redact("abcdefgh cdef"), "[secret a] [secret b]");
    }

    #[test]
    fn a_cut_secret_is_redacted() {
        let secret = secrets(&[("k", "hush-ä-hush")]);
        for (text, expected) in [
            ("say hush-ä-hus", "say [secret k]"),
            ("say hush-\u{fffd}", "say [secret k]\u{fffd}"),
            ("say hush", "say [secret k]"),
            ("say hus", "say hus"),
            ("say hush-ä-hush", "say [secret k]"),
            ("say hush-x", "say hush-x"),
        ] {
            assert_eq!(secret.redact_cut(text), expected, "{text}");
        }
        assert_eq!(secret.redact("say hush-ä-hus"), "say hush-ä-hus", "the text is not cut");
        let two = secrets(&[("a", "hello-abc"), ("b", "abc-defgh")]);
        assert_eq!(two.redact_cut("x hello-abc-de"), "x [secret a]");
    }

    #[test]
    fn secrets_in_failures_are_redacted() {
        let secret = secrets(&[("k", "hush-hush"), ("pin", "123456")]);
        let details = json!({"a": ["x hush-hush y", 7, null], "hush-hush": {"pin": 123456}});
        let failure = exosphere_domain::failure::FailureKind::Permanent;
        let failure = secret.redact_failure(Failure::new(failure, "no:\nhush-hush").with(details));
        assert_eq!(failure.message, "no:\n[secret k]");
        let expected =
            json!({"a": ["x [secret k] y", 7, null], "[secret k]": {"pin": "[secret pin]"}});
        assert_eq!(failure.details, Some(expected));
    }

    #[test]
    fn debug_output_shows_names_of_secrets_only() {
        let none = Secrets::default();
        assert!(none.patterns().is_none());
        assert!(matches!(none.redact("text"), Cow::Borrowed("text")));
        let secrets_set = secrets(&[("k", "hush-hush")]);
        assert_eq!(format!("{secrets_set:?}"), r#"{"k"}"#);
        let _shared = Arc::new(secrets_set);
    }

    /// Returns the time of some work, the shortest of three runs.
    fn time(mut work: impl FnMut()) -> Duration {
        let once = |_| {
            let started = Instant::now();
            work();
            started.elapsed()
        };
        (0..3).map(once).min().unwrap_or_default()
    }

    #[test]
    fn periodic_secrets_take_linear_time() {
        let random: String = (0u32..65_000)
            .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
            .collect();
        let equal = "a".repeat(60_000);
        let periodic = "ab".repeat(30_000);
        let texts = ["a".repeat(256 << 10), "ab".repeat(128 << 10), "aab".repeat(85 << 10)];
        for value in [&equal, &periodic, &random, &format!("{}b", &equal[..900])] {
            let secret = secrets(&[("k", value)]);
            let build_time = time(|| drop(secrets(&[("k", value)]).redact("text")));
            assert!(build_time < Duration::from_millis(500), "{build_time:?} to build");
            assert!(secret.patterns().unwrap().memory_bytes() < 1 << 20);
            for text in &texts {
                let short = time(|| drop(secret.redact_cut(&text[..16 << 10])));
                let redact_time = time(|| drop(secret.redact_cut(text.as_str())));
                assert!(
                    redact_time < 64 * short + Duration::from_millis(50),
                    "{short:?}, {redact_time:?}"
                );
            }
        }
    }

    #[test]
    fn repeated_prefixes_take_linear_time() {
        let secret = secrets(&[("k", &format!("{}b", "a".repeat(900)))]);
        let [all, none] = ["a", "x"].map(|text| {
            let text = text.repeat(256 << 10);
            time(|| drop(secret.redact(text.as_str())))
        });
        assert!(all < 20 * none + Duration::from_millis(50), "{all:?}, {none:?}");
    }

    #[test]
    fn long_secrets_are_found_by_their_beginning() {
        let value: String = (0..20_000).map(|n| format!("{n:x}-")).collect();
        for spelled in [value.clone(), hex::encode(&value), STANDARD_NO_PAD.encode(&value)] {
            let text = format!("it is {spelled} and more");
            assert_eq!(redacted(&value, &text), "it is [secret k]");
            let beginning = &text[..3000];
            assert_eq!(redacted(&value, beginning), "it is [secret k]");
        }
    }

    #[test]
    fn many_secrets_take_bounded_memory() {
        let lines = |secret: usize| (0..4_000).map(|n| format!("{secret}-{n}-line\n")).collect();
        let values: Vec<String> = (0..100).map(lines).collect();
        let names: Vec<String> = (0..100).map(|n| format!("k{n:02}")).collect();
        let all: Vec<(&str, &str)> = names
            .iter()
            .zip(&values)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let all = secrets(&all);
        assert_eq!(all.redact("x 42-17-line y"), "x [secret k42] y");
        let bytes = all.patterns().unwrap().memory_bytes();
        assert!(bytes <= ((MAX_NEEDLES_BYTES + 1) * STATE_BYTES) as u64, "{bytes}");
    }

    proptest! {
        /// The secret may have any text around it, and occur any number of times.
        #[test]
        fn a_whole_secret_is_never_shown(
            secret in "[a-c]{4,8}",
            around in proptest::collection::vec("[a-c ]{0,6}", 1..6),
        ) {
            let text = around.join(&secret);
            prop_assert!(!redacted(&secret, &text).contains(&secret));
        }

        /// No beginning of four characters is left at a cut.
        #[test]
        fn a_cut_secret_shows_no_prefix(
            secret in "[a-cä]{5,9}", before in "[a-cä ]{0,12}", kept in 4..9usize,
        ) {
            let beginning: String = secret.chars().take(kept).collect();
            let expected = secrets(&[("k", &secret)]);
            let expected = expected.redact_cut(format!("{before}{beginning}"));
            prop_assert!(expected.ends_with("[secret k]"), "{}", expected);
        }
    }
}
