//! The parameters of Postgres, as values and as arrays, and its rows. A text of Postgres cannot
//! contain NUL, so it is escaped on the way in and unescaped on the way out.

use std::borrow::Cow;
use std::ops::Range;

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Arguments, Postgres, Row as _};

use crate::dialect::{Param, ParamColumn, ParamRows, Row};
use crate::error::StoreError;

pub(crate) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds parameters to a query.
pub(crate) fn bind<'q>(query: PgQuery<'q>, params: &[Param<'_>]) -> PgQuery<'q> {
    params.iter().fold(query, |query, param| match param {
        Param::Int(value) => query.bind(*value),
        Param::MaybeInt(value) => query.bind(*value),
        Param::Text(value) => query.bind(escaped(value).into_owned()),
        Param::MaybeText(value) => query.bind(value.map(|value| escaped(value).into_owned())),
        Param::Bytes(value) => query.bind(value.to_vec()),
    })
}

/// Converts a range of rows to one array per column.
pub(super) fn arrays(rows: &ParamRows<'_>, range: Range<usize>) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    add_arrays(&mut arguments, rows, range)?;
    Ok(arguments)
}

fn add_texts<'t>(
    arguments: &mut PgArguments,
    texts: impl Iterator<Item = &'t str>,
) -> Result<(), BoxDynError> {
    let texts: Vec<_> = texts.map(escaped).collect();
    arguments.add(texts.iter().map(|text| &**text).collect::<Vec<&str>>())
}

pub(super) fn add_arrays(
    arguments: &mut PgArguments,
    rows: &ParamRows<'_>,
    range: Range<usize>,
) -> Result<(), StoreError> {
    for column in rows.columns() {
        let added = match column {
            ParamColumn::Ints(all) => arguments.add(&all[range.clone()]),
            ParamColumn::MaybeInts(all) => arguments.add(&all[range.clone()]),
            ParamColumn::SharedTexts(all) => {
                add_texts(arguments, all[range.clone()].iter().map(|text| &**text))
            }
            ParamColumn::Texts(all) => {
                add_texts(arguments, all[range.clone()].iter().map(|text| &**text))
            }
            ParamColumn::MaybeTexts(all) => {
                let texts: Vec<_> =
                    all[range.clone()].iter().map(|text| text.as_deref().map(escaped)).collect();
                arguments.add(texts.iter().map(|text| text.as_deref()).collect::<Vec<_>>())
            }
        };
        added.map_err(|error| StoreError::Data(error.to_string()))?;
    }
    Ok(())
}

/// The escape character for NUL, which a text of Postgres cannot contain. NUL is written as this
/// character and `0`, the character itself doubled, so that the order byte by byte stays.
const ESCAPE: char = '\u{1}';

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte <= 1) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            '\0' => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, '1']),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

fn unescaped(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    let mut unescaped_text = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == ESCAPE) {
            (_, true) if letters.next() == Some('0') => unescaped_text.push('\0'),
            (other, _) => unescaped_text.push(other),
        }
    }
    unescaped_text
}

impl Row for PgRow {
    fn int(&self, at: usize) -> Result<i64, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: usize) -> Result<String, StoreError> {
        Ok(unescaped(self.try_get(at)?))
    }

    fn maybe_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        Ok(self.try_get::<Option<String>, _>(at)?.map(unescaped))
    }

    fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.try_get(at)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_texts_round_trip_in_order() {
        let texts = ["", "\0", "\0\u{1}", "\u{1}", "\u{1}0", "\u{1}\0", "\u{2}", "a\0b", "a1", "ä"];
        for text in texts {
            let escaped_text = escaped(text).into_owned();
            assert!(!escaped_text.contains('\0'));
            assert_eq!(unescaped(escaped_text), text);
            for other in texts {
                assert_eq!(
                    escaped(text).cmp(&escaped(other)),
                    text.cmp(other),
                    "{text:?} {other:?}"
                );
            }
        }
    }
}
