//! The JSON parser: one recursive descent for all modes, so that they agree. A
//! mode builds the whole value, some of it or nothing. The depth of nesting
//! bounds the recursion. It refuses duplicate keys in every mode.

use std::borrow::Cow;

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::fields::FieldStep;
use super::number::{Decimal, Inexact};
use super::seen_keys::SeenKeys;
use super::string::{escape, next_special};
use super::value_path::{ValuePath, display_key};
use super::{JsonError, MAX_DEPTH, MAX_PROBLEMS};
use crate::graph::Problem;
use crate::json_size;
use crate::plural::counted;

/// Whitespace between tokens.
const BLANKS: [u8; 4] = [b' ', b'\n', b'\r', b'\t'];

/// The rules by which a text is parsed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// True if duplicate keys and rounded numbers are refused.
    pub is_strict: bool,
    /// The maximum number of nested levels; at most [`MAX_DEPTH`].
    pub depth: usize,
}

impl Rules {
    pub(super) const STRICT: Rules = Rules { is_strict: true, depth: MAX_DEPTH };
    pub(super) const LENIENT: Rules = Rules { is_strict: false, depth: MAX_DEPTH };
}

/// The part of a value that is built.
#[derive(Clone, Copy)]
pub(super) enum Mode<'f> {
    /// Nothing: the text is checked.
    Nothing,
    /// Nothing: memory is estimated as if the whole value were built.
    Estimate,
    /// The whole value.
    All,
    /// The named fields, each put into its slot.
    Some(&'f FieldStep),
}

/// The reason why parsing stopped before the end of the text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stop {
    /// A syntax error at a byte position.
    Syntax(usize, &'static str),
    /// Nesting deeper than the rules allow; recorded as a problem.
    TooDeep,
    /// The memory that is left does not suffice for another value.
    TooLargeInMemory,
}

impl Stop {
    pub(super) fn syntax(at: usize, cause: &'static str) -> Stop {
        Stop::Syntax(at, cause)
    }

    pub(super) fn ended(at: usize) -> Stop {
        Stop::Syntax(at, "EOF: the text ends too early")
    }
}

/// A parser over one text.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    rules: Rules,
    depth: usize,
    bytes_left: u64,
    has_blanks: bool,
    slots: Vec<Option<Value>>,
    problems: Vec<Problem>,
    unlisted: usize,
}

impl<'t> Reader<'t> {
    /// Creates a parser whose values may take `bytes_left` bytes of memory.
    pub(super) fn new(text: &'t str, rules: Rules, bytes_left: u64) -> Self {
        Reader {
            text,
            at: 0,
            rules,
            depth: 0,
            bytes_left,
            has_blanks: false,
            slots: Vec::new(),
            problems: Vec::new(),
            unlisted: 0,
        }
    }

    /// Returns the bytes of memory that are left.
    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    pub(super) fn has_blanks(&self) -> bool {
        self.has_blanks
    }

    /// Reserves slots for `count` picked values.
    pub(super) fn with_slots(mut self, count: usize) -> Result<Self, JsonError> {
        let bytes = json_size::ITEM.saturating_mul(count as u64);
        self.charge(bytes).map_err(|_| JsonError::TooLargeInMemory)?;
        self.slots.resize(count, None);
        Ok(self)
    }

    /// Returns the picked values.
    pub(super) fn into_slots(self) -> Vec<Option<Value>> {
        self.slots
    }

    /// Parses the whole text.
    pub(super) fn document(&mut self, mode: Mode<'_>) -> Result<Value, JsonError> {
        let read = self.only_value(mode);
        let is_too_deep = matches!(read, Err(Stop::TooDeep));
        match read {
            Err(Stop::Syntax(at, cause)) => Err(JsonError::Malformed(self.located(at, cause))),
            Err(Stop::TooLargeInMemory) => Err(JsonError::TooLargeInMemory),
            Ok(value) if self.problems.is_empty() => Ok(value),
            Ok(_) | Err(Stop::TooDeep) => {
                let mut problems = std::mem::take(&mut self.problems);
                if self.unlisted > 0 {
                    let more = counted(self.unlisted as u64, "more problem", "more problems");
                    let message = format!("and {more}");
                    problems.push(Problem { path: "$".to_owned(), message });
                }
                Err(JsonError::Unfit { problems, is_too_deep })
            }
        }
    }

    fn only_value(&mut self, mode: Mode<'_>) -> Result<Value, Stop> {
        self.skip_blanks();
        let value = self.value(mode, &ValuePath::Root)?;
        self.skip_blanks();
        if self.at < self.text.len() {
            Err(Stop::syntax(self.at, "trailing characters after the value"))
        } else {
            Ok(value)
        }
    }

    /// Formats a syntax error with its line and column, both from 1.
    fn located(&self, at: usize, cause: &str) -> String {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = 1 + before[start..].chars().count();
        format!("{cause}, at line {line} column {column}")
    }

    fn add_problem(&mut self, path: &ValuePath<'_>, message: impl FnOnce() -> String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: path.path(), message: message() })
        } else {
            self.unlisted += 1
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), Stop> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Stop::TooLargeInMemory)?;
        Ok(())
    }

    fn bytes(&self) -> &'t [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte <= b' ' && BLANKS.contains(&byte)) {
            self.at += 1;
            self.has_blanks = true;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_match = self.peek() == Some(byte);
        self.at += usize::from(is_match);
        is_match
    }

    /// Returns the syntax error of an unexpected byte here.
    fn unexpected(&self, cause: &'static str) -> Stop {
        if self.at < self.text.len() { Stop::syntax(self.at, cause) } else { Stop::ended(self.at) }
    }

    fn value(&mut self, mode: Mode<'_>, path: &ValuePath<'_>) -> Result<Value, Stop> {
        if let Mode::Some(step) = mode
            && let Some(slot) = step.slot()
        {
            let value = self.value(Mode::All, path)?;
            self.slots[slot] = Some(value);
            return Ok(Value::Null);
        }
        if let Mode::All | Mode::Estimate = mode {
            self.charge(json_size::ITEM)?;
        }
        match self.peek() {
            Some(b'"') => self.string(mode),
            Some(b'{') => self.object(mode, path),
            Some(b'[') => self.array(mode, path),
            Some(b'-' | b'0'..=b'9') => self.number(mode, path),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected("expected a value")),
        }
    }

    fn literal(&mut self, word: &'static str, value: Value) -> Result<Value, Stop> {
        let rest = &self.bytes()[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        if word.as_bytes().starts_with(rest) {
            Err(Stop::ended(self.text.len()))
        } else {
            Err(Stop::syntax(self.at, "expected a value"))
        }
    }

    fn string(&mut self, mode: Mode<'_>) -> Result<Value, Stop> {
        if let Mode::Nothing | Mode::Some(_) = mode {
            self.skip_string()?;
            return Ok(Value::Null);
        }
        let text = self.text_of_string()?;
        self.charge(text.len() as u64)?;
        match mode {
            Mode::All => Ok(Value::String(text.into_owned())),
            _ => Ok(Value::Null),
        }
    }

    /// Parses a string whose quote is here, and checks its escapes.
    fn skip_string(&mut self) -> Result<(), Stop> {
        let mut at = self.at + 1;
        loop {
            at = next_special(self.bytes(), at);
            match self.bytes().get(at) {
                Some(b'"') => break,
                Some(b'\\') => at = escape(self.bytes(), at)?.1,
                other => return Err(bad_string(at, other)),
            }
        }
        self.at = at + 1;
        Ok(())
    }

    /// Parses a string whose quote is here; copies the text only if it has
    /// escapes.
    fn text_of_string(&mut self) -> Result<Cow<'t, str>, Stop> {
        let mut start = self.at + 1;
        let mut at = next_special(self.bytes(), start);
        if self.bytes().get(at) == Some(&b'"') {
            self.at = at + 1;
            return Ok(Cow::Borrowed(&self.text[start..at]));
        }
        let mut copy = String::new();
        loop {
            copy.push_str(&self.text[start..at]);
            match self.bytes().get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let (character, after) = escape(self.bytes(), at)?;
                    copy.push(character);
                    start = after;
                }
                other => return Err(bad_string(at, other)),
            }
            at = next_special(self.bytes(), start);
        }
        self.at = at + 1;
        Ok(Cow::Owned(copy))
    }

    fn number(&mut self, mode: Mode<'_>, path: &ValuePath<'_>) -> Result<Value, Stop> {
        let decimal = self.decimal()?;
        if let Some(number) = decimal.integer() {
            return Ok(Value::Number(number));
        }
        let checked = if self.rules.is_strict { decimal.check() } else { Ok(()) };
        let built = match mode {
            Mode::All => decimal.rounded().ok_or(Inexact::OutOfRange),
            Mode::Nothing | Mode::Estimate | Mode::Some(_) => Ok(Value::Null),
        };
        match checked.and(built) {
            Ok(value) => Ok(value),
            Err(inexact) => {
                self.add_problem(path, || inexact.message(decimal.text));
                Ok(Value::Null)
            }
        }
    }

    fn decimal(&mut self) -> Result<Decimal<'t>, Stop> {
        let start = self.at;
        self.eat(b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with(b"0") {
            return Err(Stop::syntax(start, "a number begins with a needless 0"));
        }
        let has_point = self.eat(b'.');
        let fraction = if has_point { self.digits()? } else { &[] };
        let has_exponent = self.eat(b'e') || self.eat(b'E');
        let exponent = if has_exponent {
            let from = self.at;
            let _ = self.eat(b'-') || self.eat(b'+');
            self.digits()?;
            &self.bytes()[from..self.at]
        } else {
            &[][..]
        };
        let is_integer = !has_point && !has_exponent;
        Ok(Decimal { text: &self.text[start..self.at], whole, fraction, exponent, is_integer })
    }

    /// Parses at least one digit.
    fn digits(&mut self) -> Result<&'t [u8], Stop> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at {
            Err(self.unexpected("expected a digit"))
        } else {
            Ok(&self.bytes()[start..self.at])
        }
    }

    /// Enters an array or an object; fails if it is nested too deep.
    fn enter(&mut self, path: &ValuePath<'_>) -> Result<(), Stop> {
        if self.depth == self.rules.depth {
            let depth = self.rules.depth;
            // The one problem that ends the parsing is always reported.
            self.problems.truncate(MAX_PROBLEMS - 1);
            self.add_problem(path, || format!("this is nested deeper than {depth} levels"));
            return Err(Stop::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blanks();
        Ok(())
    }

    /// Advances to the next item of an array or an object. Returns false at its
    /// end.
    fn another_comes(&mut self, end: u8, cause: &'static str) -> Result<bool, Stop> {
        self.skip_blanks();
        if self.eat(b',') {
            self.skip_blanks();
            return Ok(true);
        }
        if self.eat(end) { Ok(false) } else { Err(self.unexpected(cause)) }
    }

    fn array(&mut self, mode: Mode<'_>, path: &ValuePath<'_>) -> Result<Value, Stop> {
        self.enter(path)?;
        let mut list = Vec::new();
        let mut next_step = match mode {
            Mode::Some(step) => Some(step.elements()),
            Mode::Nothing | Mode::Estimate | Mode::All => None,
        };
        let mut is_open = !self.eat(b']');
        let mut index = 0;
        while is_open {
            let step = next_step.as_mut().and_then(|next_step| next_step(index));
            let mode = match (mode, step) {
                (Mode::Some(_), Some(step)) => Mode::Some(step),
                (Mode::Some(_), None) => Mode::Nothing,
                (mode, _) => mode,
            };
            let value = self.value(mode, &ValuePath::Element(path, index))?;
            if let Mode::All = mode {
                list.push(value);
            }
            index += 1;
            is_open = self.another_comes(b']', "expected ',' or ']'")?;
        }
        self.depth -= 1;
        Ok(Value::Array(list))
    }

    fn object(&mut self, mode: Mode<'_>, path: &ValuePath<'_>) -> Result<Value, Stop> {
        self.enter(path)?;
        let value = match mode {
            Mode::Nothing if self.rules.is_strict => self.checked_members(path)?,
            Mode::Nothing => self.skipped_members(path)?,
            Mode::All => self.built_members(path)?,
            Mode::Estimate => self.estimated_members(path)?,
            Mode::Some(step) => self.picked_members(step, path)?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn checked_members(&mut self, path: &ValuePath<'_>) -> Result<Value, Stop> {
        let mut keys = SeenKeys::new();
        let mut is_open = !self.eat(b'}');
        while is_open {
            let key = self.key()?;
            let member_path = ValuePath::Member(path, &key);
            if !keys.insert(key.clone()) {
                self.add_duplicate(&member_path, &key);
            }
            self.value(Mode::Nothing, &member_path)?;
            is_open = self.another_member_comes()?;
        }
        Ok(Value::Null)
    }

    fn skipped_members(&mut self, path: &ValuePath<'_>) -> Result<Value, Stop> {
        let mut is_open = !self.eat(b'}');
        while is_open {
            self.expect_key()?;
            self.skip_string()?;
            self.colon()?;
            self.value(Mode::Nothing, path)?;
            is_open = self.another_member_comes()?;
        }
        Ok(Value::Null)
    }

    fn estimated_members(&mut self, path: &ValuePath<'_>) -> Result<Value, Stop> {
        self.charge(json_size::OBJECT)?;
        let mut is_open = !self.eat(b'}');
        while is_open {
            let key = self.key()?;
            self.charge(json_size::MEMBER + key.len() as u64)?;
            self.value(Mode::Estimate, &ValuePath::Member(path, &key))?;
            is_open = self.another_member_comes()?;
        }
        Ok(Value::Null)
    }

    fn built_members(&mut self, path: &ValuePath<'_>) -> Result<Value, Stop> {
        self.charge(json_size::OBJECT)?;
        let mut map = Map::new();
        let mut is_open = !self.eat(b'}');
        while is_open {
            let key = self.key()?;
            self.charge(json_size::MEMBER + key.len() as u64)?;
            let member_path = ValuePath::Member(path, &key);
            let value = self.value(Mode::All, &member_path)?;
            match map.entry(key.as_ref()) {
                Entry::Vacant(member) => {
                    member.insert(value);
                }
                Entry::Occupied(mut member) => {
                    member.insert(value);
                    if self.rules.is_strict {
                        self.add_duplicate(&member_path, &key);
                    }
                }
            }
            is_open = self.another_member_comes()?;
        }
        Ok(Value::Object(map))
    }

    fn picked_members(&mut self, step: &FieldStep, path: &ValuePath<'_>) -> Result<Value, Stop> {
        let mut is_open = !self.eat(b'}');
        while is_open {
            let key = self.key()?;
            let member_path = ValuePath::Member(path, &key);
            match step.member(&key) {
                None => drop(self.value(Mode::Nothing, &member_path)?),
                Some(step) => drop(self.value(Mode::Some(step), &member_path)?),
            }
            is_open = self.another_member_comes()?;
        }
        Ok(Value::Null)
    }

    fn add_duplicate(&mut self, member_path: &ValuePath<'_>, key: &str) {
        self.add_problem(member_path, || {
            format!("the key {} comes twice; keep one of them", display_key(key))
        });
    }

    fn expect_key(&self) -> Result<(), Stop> {
        match self.peek() {
            Some(b'"') => Ok(()),
            _ => Err(self.unexpected("expected a key in double quotes")),
        }
    }

    /// Parses a key and the colon after it.
    fn key(&mut self) -> Result<Cow<'t, str>, Stop> {
        self.expect_key()?;
        let key = self.text_of_string()?;
        self.colon()?;
        Ok(key)
    }

    fn colon(&mut self) -> Result<(), Stop> {
        self.skip_blanks();
        if !self.eat(b':') {
            return Err(self.unexpected("expected ':' after a key"));
        }
        self.skip_blanks();
        Ok(())
    }

    fn another_member_comes(&mut self) -> Result<bool, Stop> {
        self.another_comes(b'}', "expected ',' or '}'")
    }
}

fn bad_string(at: usize, byte: Option<&u8>) -> Stop {
    match byte {
        None => Stop::ended(at),
        Some(_) => Stop::syntax(at, "control character in a string; write it as an escape"),
    }
}
