//! Merges pending writes into one, as parts of a `WITH`, so that all take one round trip. Each
//! part sees the data from before the whole statement, and none sees the effect of another.

use std::fmt::Write;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe};

use super::arguments::add_arrays;
use crate::dialect::{PendingWrite, Statement};
use crate::error::StoreError;

/// The id of the transaction. A transaction that writes has one in any case.
const TRANSACTION_ID: &str = "pg_current_xact_id()::TEXT";

/// Statements to merge.
#[derive(Default)]
pub(super) struct StatementBatch {
    parts: Vec<DeferredStatement>,
    arguments: PgArguments,
    /// The bytes of text in the arguments.
    bytes: usize,
}

/// One of the statements.
struct DeferredStatement {
    statement: &'static Statement,
    /// The number of parameters before its own.
    before: usize,
    /// The number of rows that must change, if it is known.
    expected: Option<u64>,
}

/// The merged statement, with the expected row counts.
pub(super) struct MergedStatement {
    /// The SQL text. It returns one row: an array with the number of changed rows for each of
    /// `expected`, and the id of the transaction.
    pub text: AssertSqlSafe<String>,
    pub arguments: PgArguments,
    pub expected: Vec<u64>,
}

impl StatementBatch {
    /// Adds a statement to the batch.
    pub(super) fn add(&mut self, write: &PendingWrite<'_>) -> Result<(), StoreError> {
        let PendingWrite { statement, rows, expected } = write;
        let (before, expected) = (self.arguments.len(), *expected);
        self.bytes += rows.bytes();
        self.parts.push(DeferredStatement { statement, before, expected });
        add_arrays(&mut self.arguments, rows, 0..rows.count())
    }

    /// Returns the bytes of text in the arguments.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Merges all statements into one; returns `None` if there are none.
    pub(super) fn take(&mut self) -> Option<MergedStatement> {
        let StatementBatch { parts, arguments, .. } = std::mem::take(self);
        if parts.is_empty() {
            return None;
        }
        let (mut text, mut counts, mut all_expected) =
            (String::from("WITH "), String::new(), vec![]);
        for (at, part) in parts.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}part{at} AS (");
            renumber(part.statement.postgres, part.before, &mut text);
            if let Some(expected) = part.expected {
                text.push_str(" RETURNING 1");
                let comma = if all_expected.is_empty() { "" } else { ", " };
                let _ = write!(counts, "{comma}(SELECT COUNT(*) FROM part{at})");
                all_expected.push(expected);
            }
            text.push(')');
        }
        let _ = write!(text, " SELECT ARRAY[{counts}]::BIGINT[], {TRANSACTION_ID}");
        // The text consists only of statements of this crate.
        Some(MergedStatement { text: AssertSqlSafe(text), arguments, expected: all_expected })
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
    use crate::dialect::ParamRows;

    const SET: &Statement = &Statement { sqlite: "", postgres: "UPDATE a SET b = $2 WHERE c = $1" };
    const NEW: &Statement = &Statement { sqlite: "", postgres: "INSERT INTO d VALUES ($1, $10)" };

    fn write(
        statement: &'static Statement,
        rows: ParamRows<'static>,
        expected: Option<u64>,
    ) -> PendingWrite<'static> {
        PendingWrite { statement, rows, expected }
    }

    #[test]
    fn merged_statements_keep_their_own_parameters() {
        let mut batch = StatementBatch::default();
        assert!(batch.take().is_none());
        batch.add(&write(SET, ParamRows::default().ints([1]).ints([2]), Some(1))).unwrap();
        batch.add(&write(NEW, ParamRows::default().texts(["three"]), None)).unwrap();
        batch.add(&write(SET, ParamRows::default().ints([4, 5]).ints([6, 7]), Some(2))).unwrap();
        assert_eq!(batch.bytes(), 5);
        let statement = batch.take().unwrap();
        assert_eq!(
            statement.text.0,
            "WITH part0 AS (UPDATE a SET b = $2 WHERE c = $1 RETURNING 1), \
             part1 AS (INSERT INTO d VALUES ($3, $12)), \
             part2 AS (UPDATE a SET b = $5 WHERE c = $4 RETURNING 1) \
             SELECT ARRAY[(SELECT COUNT(*) FROM part0), (SELECT COUNT(*) FROM part2)]::BIGINT[], \
             pg_current_xact_id()::TEXT"
        );
        assert_eq!((statement.arguments.len(), statement.expected), (5, vec![1, 2]));
        assert!(batch.take().is_none(), "what was taken is gone");
        assert_eq!(batch.bytes(), 0);
    }
}
