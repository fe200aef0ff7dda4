//! Statements in the dialects of both databases, and their parameters: values for one row, or
//! columns of values for many.

use std::borrow::Cow;
use std::sync::Arc;

/// A statement in both dialects. Parameters are numbered from 1.
pub(crate) struct Statement {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

#[cfg(debug_assertions)]
impl Statement {
    /// Returns the table that the statement writes.
    pub(crate) fn table(&self) -> &'static str {
        let precedes_table = |word: &&str| matches!(*word, "UPDATE" | "INTO" | "FROM");
        let mut words =
            self.sqlite.split_ascii_whitespace().skip_while(|word| !precedes_table(word));
        words.nth(1).unwrap_or_default()
    }
}

/// Rewrites `$1` as `?1`. SQLite takes `$1` for a name, and numbers names in the order of their
/// first use; `?1` is the first parameter wherever it stands.
pub(crate) const fn to_sqlite_placeholders<const N: usize>(text: &str) -> [u8; N] {
    let (from, mut to, mut at) = (text.as_bytes(), [0; N], 0);
    while at < N {
        to[at] = if from[at] == b'$' { b'?' } else { from[at] };
        at += 1;
    }
    to
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param<'a> {
    Int(i64),
    MaybeInt(Option<i64>),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Param::Int(value)
    }
}

impl From<u32> for Param<'_> {
    fn from(value: u32) -> Self {
        Param::Int(i64::from(value))
    }
}

impl From<Option<i64>> for Param<'_> {
    fn from(value: Option<i64>) -> Self {
        Param::MaybeInt(value)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Param::Text(value)
    }
}

impl<'a> From<&'a String> for Param<'a> {
    fn from(value: &'a String) -> Self {
        Param::Text(value)
    }
}

impl<'a> From<Option<&'a str>> for Param<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Param::MaybeText(value)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(value: &'a [u8]) -> Self {
        Param::Bytes(value)
    }
}

/// Converts the values of a statement to [`Param`]s.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$($crate::dialect::Param::from($value)),*]
    };
}
pub(crate) use params;

/// A parameter of a statement that runs for many rows.
#[derive(Debug)]
pub(crate) enum ParamColumn<'a> {
    Ints(Vec<i64>),
    MaybeInts(Vec<Option<i64>>),
    Texts(Vec<Cow<'a, str>>),
    /// Texts that many rows have in common.
    SharedTexts(Vec<Arc<str>>),
    MaybeTexts(Vec<Option<Cow<'a, str>>>),
}

impl ParamColumn<'_> {
    /// Returns the value in a row; all columns of a [`ParamRows`] have the same length.
    pub(crate) fn at(&self, row: usize) -> Param<'_> {
        match self {
            ParamColumn::Ints(all) => Param::Int(all[row]),
            ParamColumn::MaybeInts(all) => Param::MaybeInt(all[row]),
            ParamColumn::Texts(all) => Param::Text(&all[row]),
            ParamColumn::SharedTexts(all) => Param::Text(&all[row]),
            ParamColumn::MaybeTexts(all) => Param::MaybeText(all[row].as_deref()),
        }
    }
}

/// The rows that a statement runs for, stored by column, one for each parameter. SQLite runs the
/// statement once per row, Postgres once with arrays.
#[derive(Debug, Default)]
pub(crate) struct ParamRows<'a> {
    columns: Vec<ParamColumn<'a>>,
    count: usize,
}

impl<'a> ParamRows<'a> {
    pub(crate) fn ints(self, values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), ParamColumn::Ints(values))
    }

    pub(crate) fn maybe_ints(self, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        self.with(values.len(), ParamColumn::MaybeInts(values))
    }

    pub(crate) fn texts<T: Into<Cow<'a, str>>>(self, values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<_> = values.into_iter().map(Into::into).collect();
        self.with(values.len(), ParamColumn::Texts(values))
    }

    /// Adds a column of texts that many rows have in common.
    pub(crate) fn shared_texts(self, values: Vec<Arc<str>>) -> Self {
        self.with(values.len(), ParamColumn::SharedTexts(values))
    }

    pub(crate) fn maybe_texts<T: Into<Cow<'a, str>>>(
        self,
        values: impl IntoIterator<Item = Option<T>>,
    ) -> Self {
        let values: Vec<_> = values.into_iter().map(|value| value.map(Into::into)).collect();
        self.with(values.len(), ParamColumn::MaybeTexts(values))
    }

    /// Adds a column with the same number in every row.
    pub(crate) fn all(self, value: i64) -> Self {
        let count = self.count;
        self.ints(std::iter::repeat_n(value, count))
    }

    fn with(mut self, count: usize, column: ParamColumn<'a>) -> Self {
        debug_assert!(self.columns.is_empty() || count == self.count, "columns of one length");
        self.count = count;
        self.columns.push(column);
        self
    }

    pub(crate) fn columns(&self) -> &[ParamColumn<'a>] {
        &self.columns
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        let lengths = |column: &ParamColumn<'_>| match column {
            ParamColumn::Ints(_) | ParamColumn::MaybeInts(_) => 0,
            ParamColumn::Texts(all) => all.iter().map(|text| text.len()).sum(),
            ParamColumn::SharedTexts(all) => all.iter().map(|text| text.len()).sum(),
            ParamColumn::MaybeTexts(all) => all.iter().flatten().map(|text| text.len()).sum(),
        };
        self.columns.iter().map(lengths).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_rewritten_for_sqlite() {
        const TEXT: &str = "SELECT $2, $1";
        assert_eq!(&to_sqlite_placeholders::<{ TEXT.len() }>(TEXT), b"SELECT ?2, ?1");
    }
}
