//! The JSON reader of the host; all JSON goes through it. Text stays text
//! whatever its keys are. serde_json's own reader takes an object whose only
//! key is `$serde_json::private::RawValue` for JSON text. It parses that text
//! again, past every bound, so nothing here goes through it.
//!
//! Input from outside is read strictly ([`read`], [`check`]): duplicate keys
//! and numbers that would be rounded are refused, each with its path. Text that
//! the host has stored is read leniently ([`read_stored`], [`FieldSet::pick`]),
//! because earlier versions accepted more. The memory of the values is bounded
//! while they are built, and nesting is bounded in every mode.
//!
//! Not here: writing JSON, and what a limit is; see [`crate::limits`].

mod checked;
mod fields;
mod number;
mod reader;
mod seen_keys;
mod string;
mod typed;
mod value_path;

use std::fmt;

use serde_json::Value;

pub use checked::{Spelling, read_checked};
pub use fields::{FieldSet, PickedFields};
pub use typed::{
    Typed, from_bytes, from_stored, from_text, from_value, maybe_verbatim, verbatim, verbatim_list,
};

use crate::graph::Problem;
use reader::{Mode, Reader, Rules};

/// The deepest nesting that is read in any mode, in levels. Bounds the stack of
/// the reader, and of any code that walks a value later. (serde_json, which
/// guests and clients use, has a bound of 127.)
pub const MAX_DEPTH: usize = 127;

/// The maximum memory that one byte of text becomes as values, in bytes: that of `{},{},`.
const MAX_MEMORY_PER_BYTE: u64 = 240;

/// The maximum number of problems of one text that are reported one by one.
pub const MAX_PROBLEMS: usize = 20;

/// The reason why a JSON text was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// Malformed JSON: the syntax error, with its line and column.
    Malformed(String),
    /// JSON that programs would read differently, or that is nested too deep.
    Unfit {
        /// The problems, each with its path, at least one.
        problems: Vec<Problem>,
        /// True if the last problem ended the reading: too deep a nesting.
        is_too_deep: bool,
    },
    /// Values that would take more memory than is left.
    TooLargeInMemory,
}

impl JsonError {
    /// Converts the refusal to problems with paths; a problem without a path gets `$`.
    pub fn into_problems(self) -> Vec<Problem> {
        match self {
            JsonError::Unfit { problems, .. } => problems,
            other => vec![Problem { path: "$".to_owned(), message: other.to_string() }],
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Malformed(cause) => f.write_str(cause),
            JsonError::TooLargeInMemory => {
                f.write_str("too many values: they would take too much memory")
            }
            JsonError::Unfit { problems, .. } => {
                let mut problems = problems.iter();
                if let Some(Problem { path, message }) = problems.next() {
                    write!(f, "{path}: {message}")?;
                }
                match problems.len() {
                    0 => Ok(()),
                    more => write!(f, " (and {more} more)"),
                }
            }
        }
    }
}

impl std::error::Error for JsonError {}

/// Reads a text from outside. Subtracts the value's estimated memory from `bytes_left`.
///
/// # Errors
/// Every problem found; a value that needs more memory than is left.
pub fn read(text: &str, bytes_left: &mut u64) -> Result<Value, JsonError> {
    build(text, Rules::STRICT, bytes_left)
}

/// Reads a stored text, whose size was bounded when the host received it. The last of several
/// members with one key counts, and numbers may be rounded.
///
/// # Errors
/// Malformed text.
pub fn read_stored(text: &str) -> Result<Value, JsonError> {
    read_stored_within(text, &mut { u64::MAX })
}

/// Reads a stored text where memory is bounded. Subtracts the value's estimated memory from
/// `bytes_left`.
///
/// # Errors
/// Malformed text; a value that needs more memory than is left.
pub fn read_stored_within(text: &str, bytes_left: &mut u64) -> Result<Value, JsonError> {
    build(text, Rules::LENIENT, bytes_left)
}

/// Builds the value of a text. If it may exceed `bytes_left`, its memory is estimated before,
/// so that a refusal takes no memory.
fn build(text: &str, rules: Rules, bytes_left: &mut u64) -> Result<Value, JsonError> {
    if (text.len() as u64).saturating_mul(MAX_MEMORY_PER_BYTE) > *bytes_left {
        Reader::new(text, rules, *bytes_left).document(Mode::Estimate)?;
    }
    let mut reader = Reader::new(text, rules, *bytes_left);
    let value = reader.document(Mode::All)?;
    *bytes_left = reader.bytes_left();
    Ok(value)
}

/// Checks that a stored text is JSON, by the rules of [`read_stored`], and
/// builds nothing.
///
/// # Errors
/// Malformed text.
pub fn check_stored(text: &str) -> Result<(), JsonError> {
    Reader::new(text, Rules::LENIENT, u64::MAX).document(Mode::Nothing).map(drop)
}

/// Facts about a text that passed [`check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextFacts {
    /// True if there are blanks between the tokens.
    pub has_blanks: bool,
    /// True if the value is an object.
    pub is_object: bool,
}

/// Checks a text from outside by the rules of [`read`], and builds nothing.
///
/// # Errors
/// Every problem found. Nesting deeper than `depth` levels is one.
pub fn check(text: &str, depth: usize) -> Result<TextFacts, JsonError> {
    let rules = Rules { depth: depth.min(MAX_DEPTH), ..Rules::STRICT };
    let mut reader = Reader::new(text, rules, u64::MAX);
    reader.document(Mode::Nothing)?;
    let is_object = text.trim_ascii_start().starts_with('{');
    Ok(TextFacts { has_blanks: reader.has_blanks(), is_object })
}

#[cfg(test)]
mod tests;
