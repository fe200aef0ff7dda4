//! Statements in the dialects of both databases, their parameters and the rows they return. Not
//! here: any statement, and any database.

use crate::error::StoreError;

/// A statement in both dialects. Parameters are numbered from 1.
pub(crate) struct Text {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

/// Rewrites `$1` as `?1`: SQLite numbers a name by its first position in the text, and only `?1` is
/// the first parameter everywhere.
pub(crate) const fn question_marks<const N: usize>(text: &str) -> [u8; N] {
    let (from, mut to, mut at) = (text.as_bytes(), [0; N], 0);
    while at < N {
        to[at] = if from[at] == b'$' { b'?' } else { from[at] };
        at += 1;
    }
    to
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Int(i64),
    MaybeInt(Option<i64>),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Value::Int(i64::from(value))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Value::MaybeInt(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Value::Text(value)
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Value::MaybeText(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Value::Bytes(value)
    }
}

/// Converts the values of a statement to [`Value`]s.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::text::Value::from($value)),*]
    };
}
pub(crate) use values;

/// A parameter of a statement that runs for many rows.
#[derive(Debug)]
pub(crate) enum Column<'a> {
    Ints(Vec<i64>),
    MaybeInts(Vec<Option<i64>>),
    Texts(Vec<&'a str>),
    MaybeTexts(Vec<Option<&'a str>>),
}

impl<'a> Column<'a> {
    /// Returns the value in a row; all columns of a [`Rows`] have the same length.
    pub(crate) fn at(&self, row: usize) -> Value<'a> {
        match self {
            Column::Ints(all) => Value::Int(all[row]),
            Column::MaybeInts(all) => Value::MaybeInt(all[row]),
            Column::Texts(all) => Value::Text(all[row]),
            Column::MaybeTexts(all) => Value::MaybeText(all[row]),
        }
    }
}

/// The rows that a statement runs for, stored by column, one for each parameter. SQLite runs the
/// statement once per row, Postgres once with arrays.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    columns: Vec<Column<'a>>,
    count: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn ints(self, values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), Column::Ints(values))
    }

    pub(crate) fn maybe_ints(self, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), Column::MaybeInts(values))
    }

    pub(crate) fn texts(self, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), Column::Texts(values))
    }

    pub(crate) fn maybe_texts(self, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), Column::MaybeTexts(values))
    }

    /// Adds a column with the same number in every row.
    pub(crate) fn all(self, value: i64) -> Self {
        let count = self.count;
        self.ints(std::iter::repeat_n(value, count))
    }

    fn with(mut self, count: usize, column: Column<'a>) -> Self {
        debug_assert!(self.columns.is_empty() || count == self.count, "columns of one length");
        self.count = count;
        self.columns.push(column);
        self
    }

    pub(crate) fn columns(&self) -> &[Column<'a>] {
        &self.columns
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        let lengths = |column: &Column<'_>| match column {
            Column::Ints(_) | Column::MaybeInts(_) => 0,
            Column::Texts(all) => all.iter().map(|text| text.len()).sum(),
            Column::MaybeTexts(all) => all.iter().flatten().map(|text| text.len()).sum(),
        };
        self.columns.iter().map(lengths).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A row that a query found, on either database.
pub(crate) trait Cells {
    fn int(&self, at: usize) -> Result<i64, StoreError>;
    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError>;
    fn text(&self, at: usize) -> Result<String, StoreError>;
    fn maybe_text(&self, at: usize) -> Result<Option<String>, StoreError>;
    fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError>;
}

/// Converts a row to a value.
pub(crate) type Read<T> = fn(&dyn Cells) -> Result<T, StoreError>;

/// A transaction under way: its statements take effect together or not at all.
///
/// Futures are not boxed: on SQLite they are ready at once.
pub(crate) trait Tx: Send {
    /// Returns the current time, for all writes of this transaction. On Postgres this is the clock
    /// of the database, which all hosts share.
    fn now(&self) -> i64;

    /// Runs a statement; returns the number of changed rows.
    fn execute(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Runs a query.
    fn query<T: Send>(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// Runs a statement for each row; returns the number of changed rows.
    fn execute_each(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Queues a statement to run once per row, before the next query or the commit at the latest.
    /// Queued statements may be reordered or merged into one round trip, so no two may touch the
    /// same row. If `changes` is set and a different number of rows is affected, the next query or
    /// the commit fails.
    fn put_off(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        changes: Option<u64>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.execute_all(text, rows, changes)
    }

    /// Runs a statement for each row at once, and checks the number of changed rows.
    fn execute_all(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        changes: Option<u64>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async move {
            let changed = self.execute_each(text, rows).await?;
            changes.map_or(Ok(()), |expected| all_of(changed, expected))
        }
    }

    /// Runs a query for each row, in no particular order.
    fn query_each<T: Send>(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        read: Read<T>,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;
}

/// Checks that a statement changed the expected number of rows. A mismatch is an internal error,
/// because the guards were checked before.
pub(crate) fn all_of(changed: u64, expected: u64) -> Result<(), StoreError> {
    match changed == expected {
        true => Ok(()),
        false => Err(StoreError::Data(format!(
            "{changed} of {expected} rows were as they had been read"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_for_each_dialect() {
        const TEXT: &str = "SELECT $2, $1";
        assert_eq!(&question_marks::<{ TEXT.len() }>(TEXT), b"SELECT ?2, ?1");
    }
}
