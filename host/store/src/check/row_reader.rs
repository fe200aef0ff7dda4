//! A reader of rows that may hold anything: an invalid value is reported, and the check continues
//! without it. Columns are read by name.

use std::cell::Cell;

use exosphere_domain::json::{Typed, check_stored, from_stored};

use super::report::{Findings, Kind, Rule};
use crate::dialect::Row;
use crate::error::StoreError;

/// The names of a row's columns. They are read in about this order, so a search begins after the
/// column that was read last.
pub(super) struct Columns {
    names: &'static [&'static str],
    next: Cell<usize>,
}

impl Columns {
    pub(super) fn new(names: &'static [&'static str]) -> Self {
        Columns { names, next: Cell::new(0) }
    }

    /// Returns the position of a column; one after the last for an unknown name.
    fn position(&self, column: &str) -> usize {
        let (count, next) = (self.names.len(), self.next.get());
        let mut positions = (next..count).chain(0..next);
        let at = positions.find(|at| self.names[*at] == column);
        debug_assert!(at.is_some(), "no column {column} in {:?}", self.names);
        let at = at.unwrap_or(count);
        self.next.set((at + 1).min(count));
        at
    }
}

/// A value that a statement joins from another row.
pub(super) enum JoinedValue<T> {
    /// The row is missing.
    Missing,
    /// The row is there, and its value cannot be decoded: the check of its own table reports that.
    Unreadable,
    /// The value.
    Value(T),
}

impl<T> From<Result<Option<T>, StoreError>> for JoinedValue<T> {
    fn from(value: Result<Option<T>, StoreError>) -> Self {
        match value {
            Ok(Some(value)) => JoinedValue::Value(value),
            Ok(None) => JoinedValue::Missing,
            Err(_) => JoinedValue::Unreadable,
        }
    }
}

/// A row that is being read.
pub(super) struct RowReader<'a> {
    pub row: &'a dyn Row,
    pub columns: Columns,
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
        self.findings.add(kind, &self.key, self.run, message);
    }

    fn checked<T>(&mut self, column: &'static str, value: Result<T, StoreError>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(_) => {
                self.report_value(column, "is not a value that exosphere writes");
                None
            }
        }
    }

    pub(super) fn int(&mut self, column: &'static str) -> Option<i64> {
        self.checked(column, self.row.int(self.columns.position(column)))
    }

    pub(super) fn maybe_int(&mut self, column: &'static str) -> Option<i64> {
        self.checked(column, self.row.maybe_int(self.columns.position(column))).flatten()
    }

    pub(super) fn text(&mut self, column: &'static str) -> Option<String> {
        self.checked(column, self.row.text(self.columns.position(column)))
    }

    pub(super) fn maybe_text(&mut self, column: &'static str) -> Option<String> {
        self.checked(column, self.row.maybe_text(self.columns.position(column))).flatten()
    }

    /// Reads a number of a joined row.
    pub(super) fn joined_int(&self, column: &str) -> JoinedValue<i64> {
        self.row.maybe_int(self.columns.position(column)).into()
    }

    /// Reads a text of a joined row.
    pub(super) fn joined_text(&self, column: &str) -> JoinedValue<String> {
        self.row.maybe_text(self.columns.position(column)).into()
    }

    /// Returns whether a column has a value, valid or not.
    pub(super) fn has_value(&self, column: &str) -> bool {
        !matches!(self.row.maybe_int(self.columns.position(column)), Ok(None))
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
                format_args!("is {}, which is not a value that exosphere writes", shown(text)),
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
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| check_json(text)).flatten()
}
