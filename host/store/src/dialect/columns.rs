//! Columns listed once. A list names the columns that several statements share, each with its type
//! in arrays and its type here; a struct with a reader, and the texts of the statements, are made
//! from it. The list is a macro that hands itself to another macro:
//!
//! ```text
//! macro_rules! usage_columns {
//!     ($then:ident $($args:tt)*) => {
//!         $then! { $($args)* cpu_us: int Option<i64>, memory_bytes: int Option<i64>, }
//!     };
//! }
//! usage_columns!(names)             is "cpu_us, memory_bytes"
//! usage_columns!(unnest id: int,)   is "UNNEST($1::BIGINT[], ..) AS n (id, ..)"
//! ```
//!
//! Not here: the lists, which precede the statements that use them.

use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::state::RunStatus;

use super::{ParamRows, Row};
use crate::error::{StoreError, corrupt_row};

/// A type of a column.
pub(crate) trait Column: Sized {
    /// Reads the column at a position; `None` if no transition writes such a value.
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError>;
}

/// A type of a column that a statement writes for many rows.
pub(crate) trait WrittenColumn: Column {
    /// Adds the column to the parameters.
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v;
}

impl Column for i64 {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        row.int(at).map(Some)
    }
}

impl WrittenColumn for i64 {
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v,
    {
        rows.ints(values.copied())
    }
}

impl Column for Option<i64> {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        row.maybe_int(at).map(Some)
    }
}

impl WrittenColumn for Option<i64> {
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v,
    {
        rows.maybe_ints(values.copied())
    }
}

impl Column for bool {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(Some(row.int(at)? != 0))
    }
}

impl WrittenColumn for bool {
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v,
    {
        rows.ints(values.map(|is| i64::from(*is)))
    }
}

impl Column for RunStatus {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(RunStatus::parse(&row.text(at)?))
    }
}

impl WrittenColumn for RunStatus {
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v,
    {
        rows.texts(values.map(|status| -> &'a str { status.as_str() }))
    }
}

impl Column for NodeCounts {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(NodeCounts::decode(&row.text(at)?))
    }
}

impl WrittenColumn for NodeCounts {
    fn add<'a, 'v>(rows: ParamRows<'a>, values: impl Iterator<Item = &'v Self>) -> ParamRows<'a>
    where
        Self: 'v,
    {
        rows.texts(values.map(NodeCounts::encode))
    }
}

impl Column for u32 {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(u32::try_from(row.int(at)?).ok())
    }
}

impl Column for Option<u32> {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        Ok(match row.maybe_int(at)? {
            Some(number) => u32::try_from(number).ok().map(Some),
            None => Some(None),
        })
    }
}

impl Column for String {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        row.text(at).map(Some)
    }
}

impl Column for Option<String> {
    fn read(row: &dyn Row, at: usize) -> Result<Option<Self>, StoreError> {
        row.maybe_text(at).map(Some)
    }
}

/// Reads the columns of a row one after the other, in the order of their list. The first one is the
/// key of the row.
pub(crate) struct Cursor<'r> {
    row: &'r dyn Row,
    table: &'static str,
    at: usize,
}

impl<'r> Cursor<'r> {
    pub(crate) fn new(row: &'r dyn Row, table: &'static str) -> Self {
        Cursor { row, table, at: 0 }
    }

    /// Reads the next column.
    pub(crate) fn next<T: Column>(&mut self, column: &str) -> Result<T, StoreError> {
        let at = self.at;
        self.at += 1;
        T::read(self.row, at)?.ok_or_else(|| corrupt_row(self.table, column, self.key()))
    }

    fn key(&self) -> String {
        let key = self.row.int(0).map(|key| key.to_string()).or_else(|_| self.row.text(0));
        key.unwrap_or_default()
    }
}

/// Declares a struct from a list of columns, with a function that reads it from a row:
/// `list!(row_struct [struct Name of "table"])`.
macro_rules! row_struct {
    (
        [$(#[$meta:meta])* $vis:vis struct $Struct:ident of $table:literal]
        $($(#[$doc:meta])* $name:ident: $sql:ident $type:ty),* $(,)?
    ) => {
        $(#[$meta])*
        $vis struct $Struct {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl $Struct {
            /// Reads a row whose columns are those of the list.
            pub(crate) fn read(
                row: &dyn $crate::dialect::Row,
            ) -> Result<Self, $crate::error::StoreError> {
                let mut columns = $crate::dialect::Cursor::new(row, $table);
                Ok($Struct { $($name: columns.next(stringify!($name))?),* })
            }
        }
    };
}
pub(crate) use row_struct;
