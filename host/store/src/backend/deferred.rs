//! Merges queued statements into one, as parts of a `WITH`, so that all take one round trip. Each
//! part sees the data from before the whole statement, and none sees the effect of another.

use std::fmt::Write;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe};

use super::add_arrays;
use crate::error::StoreError;
use crate::text::{Rows, Text};

/// Queued statements.
#[derive(Default)]
pub(super) struct Together {
    parts: Vec<Part>,
    arguments: PgArguments,
    /// The bytes of text in the arguments.
    bytes: usize,
}

/// A queued statement.
struct Part {
    text: &'static Text,
    /// The number of parameters before its own.
    before: usize,
    /// The number of rows that must change, if it is known.
    changes: Option<u64>,
}

/// The merged statement, with the expected row counts.
pub(super) struct Statement {
    /// Returns one row: an array with the number of changed rows for each of `changes`.
    pub text: AssertSqlSafe<String>,
    pub arguments: PgArguments,
    pub changes: Vec<u64>,
}

impl Together {
    /// Queues a statement, to run once per row.
    pub(super) fn add(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        changes: Option<u64>,
    ) -> Result<(), StoreError> {
        self.bytes += rows.bytes();
        self.parts.push(Part { text, before: self.arguments.len(), changes });
        add_arrays(&mut self.arguments, rows, 0..rows.count())
    }

    /// Returns the bytes of text in the queued arguments.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Merges all queued statements into one; returns `None` if the queue is empty.
    pub(super) fn take(&mut self) -> Option<Statement> {
        let Together { parts, arguments, .. } = std::mem::take(self);
        if parts.is_empty() {
            return None;
        }
        let (mut text, mut counts, mut changes) = (String::from("WITH "), String::new(), vec![]);
        for (at, part) in parts.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}part{at} AS (");
            renumber(part.text.postgres, part.before, &mut text);
            if let Some(expected) = part.changes {
                text.push_str(" RETURNING 1");
                let comma = if changes.is_empty() { "" } else { ", " };
                let _ = write!(counts, "{comma}(SELECT COUNT(*) FROM part{at})");
                changes.push(expected);
            }
            text.push(')');
        }
        let _ = write!(text, " SELECT ARRAY[{counts}]::BIGINT[]");
        // The text consists only of statements of this crate.
        Some(Statement { text: AssertSqlSafe(text), arguments, changes })
    }
}

/// Writes a statement with its parameter numbers shifted by `before`.
fn renumber(text: &str, before: usize, to: &mut String) {
    let mut pieces = text.split('$');
    to.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default() + before;
        let _ = write!(to, "${number}{rest}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &Text = &Text { sqlite: "", postgres: "UPDATE a SET b = $2 WHERE c = $1" };
    const NEW: &Text = &Text { sqlite: "", postgres: "INSERT INTO d VALUES ($1, $10)" };

    #[test]
    fn each_keeps_its_own_parameters() {
        let mut together = Together::default();
        assert!(together.take().is_none());
        together.add(SET, &Rows::default().ints([1]).ints([2]), Some(1)).unwrap();
        together.add(NEW, &Rows::default().texts(["three"]), None).unwrap();
        together.add(SET, &Rows::default().ints([4, 5]).ints([6, 7]), Some(2)).unwrap();
        assert_eq!(together.bytes(), 5);
        let statement = together.take().unwrap();
        assert_eq!(
            statement.text.0,
            "WITH part0 AS (UPDATE a SET b = $2 WHERE c = $1 RETURNING 1), \
             part1 AS (INSERT INTO d VALUES ($3, $12)), \
             part2 AS (UPDATE a SET b = $5 WHERE c = $4 RETURNING 1) \
             SELECT ARRAY[(SELECT COUNT(*) FROM part0), (SELECT COUNT(*) FROM part2)]::BIGINT[]"
        );
        assert_eq!((statement.arguments.len(), statement.changes), (5, vec![1, 2]));
        assert!(together.take().is_none(), "what was taken is gone");
        assert_eq!(together.bytes(), 0);
    }
}
