//! Reader of a row that may hold anything: an invalid value is reported, and the check goes on
//! without it.

use exosphere_domain::json::{Typed, check_stored, from_stored};

use super::report::{Findings, Kind, Rule};
use crate::error::StoreError;
use crate::text::Cells;

/// A row that is being read.
pub(super) struct Reading<'a> {
    pub cells: &'a dyn Cells,
    pub table: &'static str,
    /// The row's key, as shown to the operator.
    pub row: String,
    /// The id of the row's run.
    pub run: Option<&'a str>,
    pub findings: &'a mut Findings,
}

impl Reading<'_> {
    /// Reports that a column has a value that no transition writes.
    pub(super) fn wrong(&mut self, column: &'static str, message: impl std::fmt::Display) {
        let kind = Kind { rule: Rule::Value, table: self.table, column };
        self.findings.note(kind, &self.row, self.run, message);
    }

    fn got<T>(&mut self, column: &'static str, value: Result<T, StoreError>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(_) => {
                self.wrong(column, "is not a value of ours");
                None
            }
        }
    }

    pub(super) fn int(&mut self, at: usize, column: &'static str) -> Option<i64> {
        self.got(column, self.cells.int(at))
    }

    pub(super) fn maybe_int(&mut self, at: usize, column: &'static str) -> Option<i64> {
        self.got(column, self.cells.maybe_int(at)).flatten()
    }

    pub(super) fn text(&mut self, at: usize, column: &'static str) -> Option<String> {
        self.got(column, self.cells.text(at))
    }

    pub(super) fn maybe_text(&mut self, at: usize, column: &'static str) -> Option<String> {
        self.got(column, self.cells.maybe_text(at)).flatten()
    }

    /// Returns whether a column holds anything, valid or not.
    pub(super) fn is_there(&self, at: usize) -> bool {
        !matches!(self.cells.maybe_int(at), Ok(None))
    }

    /// Reads a number that must be 0 or more, such as a count.
    pub(super) fn count(&mut self, at: usize, column: &'static str) -> Option<i64> {
        let count = self.int(at, column)?;
        if count < 0 {
            self.wrong(column, format_args!("is {count}, and never below 0"));
        }
        (count >= 0).then_some(count)
    }

    /// Reads a text and parses it with `read`.
    pub(super) fn parsed<T>(
        &mut self,
        at: usize,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(at, column)?;
        self.as_read(column, &text, read)
    }

    /// Reads a text that may be missing, and parses it with `read`.
    pub(super) fn maybe_parsed<T>(
        &mut self,
        at: usize,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.maybe_text(at, column)?;
        self.as_read(column, &text, read)
    }

    fn as_read<T>(
        &mut self,
        column: &'static str,
        text: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(text);
        if value.is_none() {
            self.wrong(column, format_args!("is {}, which is not a value of ours", shown(text)));
        }
        value
    }
}

/// Shortens a text for the operator.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Parses JSON text into a typed value.
pub(super) fn json<T: Typed>(text: &str) -> Option<T> {
    from_stored(text).ok()
}

/// Checks that a text is JSON.
pub(super) fn check_json(text: &str) -> Option<()> {
    check_stored(text).ok()
}

/// Checks that a text is a JSON object.
pub(super) fn check_json_object(text: &str) -> Option<()> {
    // A derived struct would accept an array, too.
    let begins = text.trim_ascii_start().starts_with('{');
    begins.then(|| check_json(text)).flatten()
}
