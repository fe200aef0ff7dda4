//! A reader of rows that may hold anything: an invalid value is reported, and the check goes on
//! without it. Columns are read by name.

use exosphere_domain::json::{Typed, check_stored, from_stored};

use super::report::{Findings, Kind, Rule};
use crate::dialect::Row;
use crate::error::StoreError;

/// A row that is being read.
pub(super) struct RowReader<'a> {
    pub row: &'a dyn Row,
    /// The names of the row's columns.
    pub columns: &'static [&'static str],
    pub table: &'static str,
    /// The row's key, as shown to the operator.
    pub key: String,
    /// The id of the row's run.
    pub run: Option<&'a str>,
    pub findings: &'a mut Findings,
}

impl RowReader<'_> {
    /// Reports that a column has a value that no transition writes.
    pub(super) fn report_value(&mut self, column: &'static str, message: impl std::fmt::Display) {
        let kind = Kind { rule: Rule::Value, table: self.table, column };
        self.findings.note(kind, &self.key, self.run, message);
    }

    /// Returns the position of a column; one after the last for an unknown name.
    fn at(&self, column: &str) -> usize {
        let at = self.columns.iter().position(|known| *known == column);
        debug_assert!(at.is_some(), "no column {column} in {:?}", self.columns);
        at.unwrap_or(self.columns.len())
    }

    fn got<T>(&mut self, column: &'static str, value: Result<T, StoreError>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(_) => {
                self.report_value(column, "is not a value of ours");
                None
            }
        }
    }

    pub(super) fn int(&mut self, column: &'static str) -> Option<i64> {
        self.got(column, self.row.int(self.at(column)))
    }

    pub(super) fn maybe_int(&mut self, column: &'static str) -> Option<i64> {
        self.got(column, self.row.maybe_int(self.at(column))).flatten()
    }

    pub(super) fn text(&mut self, column: &'static str) -> Option<String> {
        self.got(column, self.row.text(self.at(column)))
    }

    pub(super) fn maybe_text(&mut self, column: &'static str) -> Option<String> {
        self.got(column, self.row.maybe_text(self.at(column))).flatten()
    }

    /// Returns whether a column holds anything, valid or not.
    pub(super) fn is_there(&self, column: &str) -> bool {
        !matches!(self.row.maybe_int(self.at(column)), Ok(None))
    }

    /// Reads a flag, which is 0 or 1.
    pub(super) fn flag(&mut self, column: &'static str) -> bool {
        let flag = self.int(column).unwrap_or_default();
        if !matches!(flag, 0 | 1) {
            self.report_value(column, format_args!("is {flag}, and only 0 or 1"));
        }
        flag == 1
    }

    /// Reads a number that must be 0 or more, such as a count.
    pub(super) fn count(&mut self, column: &'static str) -> Option<i64> {
        let count = self.int(column)?;
        if count < 0 {
            self.report_value(column, format_args!("is {count}, and never below 0"));
        }
        (count >= 0).then_some(count)
    }

    /// Reads a text and parses it with `read`.
    pub(super) fn parsed<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(column)?;
        self.as_read(column, &text, read)
    }

    /// Reads a text that may be missing, and parses it with `read`.
    pub(super) fn maybe_parsed<T>(
        &mut self,
        column: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.maybe_text(column)?;
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
            self.report_value(
                column,
                format_args!("is {}, which is not a value of ours", shown(text)),
            );
        }
        value
    }
}

/// Shortens a text for the operator.
pub(super) fn shown(text: &str) -> String {
    const MAX_SHOWN: usize = 60;
    match text.char_indices().nth(MAX_SHOWN) {
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
