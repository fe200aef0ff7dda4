//! A transaction under way, on either database: its statements, the rows that they return, and the
//! writes that it collects first and executes together.

#[cfg(debug_assertions)]
use std::collections::BTreeMap;

use super::{Param, ParamRows, Statement};
use crate::error::StoreError;

/// A row that a query found, on either database.
pub(crate) trait Row {
    fn int(&self, at: usize) -> Result<i64, StoreError>;
    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError>;
    fn text(&self, at: usize) -> Result<String, StoreError>;
    fn maybe_text(&self, at: usize) -> Result<Option<String>, StoreError>;
    fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError>;
}

/// Converts a row to a value.
pub(crate) type FromRow<T> = fn(&dyn Row) -> Result<T, StoreError>;

/// Writes that [`Tx::flush`] executes, in one round trip if the database can. It may reorder or
/// merge them, so no two statements among them may touch the same row.
#[derive(Default)]
pub(crate) struct PendingWrites<'a> {
    writes: Vec<PendingWrite<'a>>,
}

/// A statement to run once per row.
pub(crate) struct PendingWrite<'a> {
    pub statement: &'static Statement,
    pub rows: ParamRows<'a>,
    /// The number of rows that must change, if it is known.
    pub expected: Option<u64>,
}

impl<'a> PendingWrites<'a> {
    /// Adds a statement to run once per row; without rows it is left out.
    pub(crate) fn add(&mut self, statement: &'static Statement, rows: ParamRows<'a>) {
        self.push(statement, rows, None);
    }

    /// Adds a statement that must change as many rows as it runs for, or the flush fails.
    pub(crate) fn add_guarded(&mut self, statement: &'static Statement, rows: ParamRows<'a>) {
        let expected = rows.count() as u64;
        self.push(statement, rows, Some(expected));
    }

    fn push(&mut self, statement: &'static Statement, rows: ParamRows<'a>, expected: Option<u64>) {
        if !rows.is_empty() {
            self.writes.push(PendingWrite { statement, rows, expected });
        }
    }

    /// Takes the writes, to execute them. A debug build checks that no two statements touch the
    /// same row. A violation is an error and not a panic: an operation that inserts an existing
    /// number causes one, and the database refuses that operation, too.
    pub(crate) fn take(&mut self) -> Result<Vec<PendingWrite<'a>>, StoreError> {
        #[cfg(debug_assertions)]
        self.check_disjoint()?;
        Ok(std::mem::take(&mut self.writes))
    }

    /// Checks that no two statements touch the same row, as far as their first parameters tell.
    #[cfg(debug_assertions)]
    fn check_disjoint(&self) -> Result<(), StoreError> {
        let mut run_updates = BTreeMap::new();
        for (number, PendingWrite { statement, rows, .. }) in self.writes.iter().enumerate() {
            for key in (0..rows.count()).map(|row| key_of(statement, rows, row)) {
                if run_updates.insert(key, number).is_some_and(|other| other != number) {
                    return Err(StoreError::Data(format!("two pending writes touch {key:?}")));
                }
            }
        }
        Ok(())
    }
}

/// Returns the table of a write, and the key of a row that it touches.
#[cfg(debug_assertions)]
fn key_of<'w>(
    statement: &Statement,
    rows: &'w ParamRows<'_>,
    row: usize,
) -> (&'static str, i64, Option<(i64, &'w str)>) {
    let table = statement.table();
    let column = |at: usize| match rows.columns().get(at).map(|column| column.at(row)) {
        Some(Param::Int(number)) => (number, ""),
        Some(Param::Text(text)) => (0, text),
        _ => (0, ""),
    };
    // These tables have keys of two columns.
    let is_part = matches!(table, "output" | "attempt" | "entry" | "label");
    (table, column(0).0, is_part.then(|| column(1)))
}

/// A transaction under way: its statements take effect together or not at all.
///
/// Futures are not boxed: on SQLite they are ready immediately.
pub(crate) trait Tx: Send {
    /// Returns the current time, for all writes of this transaction. On Postgres this is the clock
    /// of the database, which all hosts share.
    fn now(&self) -> i64;

    /// Runs a statement; returns the number of changed rows.
    fn execute(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Runs a query and returns its rows, converted.
    fn query<T: Send>(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// Runs a statement for each row; returns the number of changed rows.
    fn execute_each(
        &mut self,
        statement: &'static Statement,
        rows: &ParamRows<'_>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Runs a query for each row, in no particular order.
    fn query_each<T: Send>(
        &mut self,
        statement: &'static Statement,
        rows: &ParamRows<'_>,
        read: FromRow<T>,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// Executes all pending writes; fails if a guarded one changes fewer rows than it should.
    fn flush(
        &mut self,
        writes: &mut PendingWrites<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Checks that a statement changed the expected number of rows. A mismatch is an internal error,
/// because the guards were checked before.
pub(crate) fn expect_affected(changed: u64, expected: Option<u64>) -> Result<(), StoreError> {
    match expected {
        Some(expected) if changed != expected => Err(StoreError::Data(format!(
            "{changed} of {expected} rows were as they had been read"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &Statement = &Statement { sqlite: "UPDATE state SET status = ?2", postgres: "" };
    const NEW: &Statement = &Statement { sqlite: "INSERT INTO state (id)", postgres: "" };
    const OUTPUT: &Statement = &Statement { sqlite: "INSERT INTO output (state)", postgres: "" };

    #[test]
    fn pending_writes_to_distinct_rows_are_taken() {
        let mut writes = PendingWrites::default();
        writes.add_guarded(END, ParamRows::default().ints([1, 1]));
        writes.add(NEW, ParamRows::default().ints([2]));
        writes.add(NEW, ParamRows::default().ints([]));
        writes.add(OUTPUT, ParamRows::default().ints([1, 1]).ints([0, 1]));
        let taken = writes.take().unwrap();
        assert_eq!(
            taken.iter().map(|write| write.expected).collect::<Vec<_>>(),
            [Some(2), None, None]
        );
        assert!(writes.take().unwrap().is_empty());
    }

    #[test]
    #[cfg(debug_assertions)]
    fn two_pending_writes_of_one_row_fail() {
        let mut writes = PendingWrites::default();
        writes.add(NEW, ParamRows::default().ints([1, 2]));
        writes.add(END, ParamRows::default().ints([2]));
        assert!(matches!(writes.take(), Err(StoreError::Data(_))));
    }
}
