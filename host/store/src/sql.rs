//! The SQL statements of this crate, by table. A test prepares each of them on both databases, so
//! that none uses a table or column that does not exist.
//!
//! A statement has one text for both databases as far as their common subset reaches. Elsewhere two
//! texts stand side by side. A statement for many rows runs on SQLite once per row, and on Postgres
//! once over arrays (`unnest!`). Lists of numbers are JSON text, and only Postgres needs locks.
//! Columns that several statements share are in one list (`dialect/columns.rs`).

/// The current time on Postgres, in milliseconds since 1970, at this moment of the transaction.
macro_rules! now {
    () => {
        "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT"
    };
}
pub(crate) use now;

/// Declares one constant per statement, and `ALL` of them.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr $(, postgres $postgres:expr)?;)*) => {
        $($(#[$doc])* pub(crate) const $name: &Statement = statement!($text $(, $postgres)?);)*
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &Statement)] = &[$((stringify!($name), $name)),*];
    };
}

/// Builds a statement; its parameters are renumbered in SQLite's way.
macro_rules! statement {
    ($text:expr) => {
        statement!($text, $text)
    };
    ($text:expr, $postgres:expr) => {
        &Statement {
            sqlite: {
                const BYTES: &[u8] =
                    &$crate::dialect::to_sqlite_placeholders::<{ $text.len() }>($text);
                match std::str::from_utf8(BYTES) {
                    Ok(text) => text,
                    Err(_) => panic!("one ASCII letter for another"),
                }
            },
            postgres: $postgres,
        }
    };
}

/// The names of a list of columns: `a, b`.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?
     $(, $(#[$docs:meta])* $names:ident: $sqls:ident $($types:ty)?)* $(,)?) => {
        concat!(stringify!($name) $(, ", ", stringify!($names))*)
    };
}

/// The names of columns of the table `run u`: `u.a, u.b`.
macro_rules! names_of_u {
    ($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?
     $(, $(#[$docs:meta])* $names:ident: $sqls:ident $($types:ty)?)* $(,)?) => {
        concat!("u.", stringify!($name) $(, ", u.", stringify!($names))*)
    };
}

/// A zero for each column: `0, 0`.
macro_rules! zeros {
    ($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?
     $(, $(#[$docs:meta])* $names:ident: $sqls:ident $($types:ty)?)* $(,)?) => {
        concat!("0" $(, zeros!(@ $names))*)
    };
    (@ $name:ident) => {
        ", 0"
    };
}

/// Sets columns to those of the rows of [`unnest!`]: `a = n.a, b = n.b`.
macro_rules! sets_from_n {
    ($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?
     $(, $(#[$docs:meta])* $names:ident: $sqls:ident $($types:ty)?)* $(,)?) => {
        concat!(
            stringify!($name), " = n.", stringify!($name)
            $(, ", ", stringify!($names), " = n.", stringify!($names))*
        )
    };
}

/// Sets columns to the parameters with these numbers: `sets!([4 5] a: int, b: int)` is
/// `a = $4, b = $5`.
macro_rules! sets {
    ([$($number:literal)*] $($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?),* $(,)?) => {
        sets!(@ [$($number)*] $($name)*)
    };
    (@ [$number:literal $($numbers:literal)*] $name:ident) => {
        concat!(stringify!($name), " = $", $number)
    };
    (@ [$number:literal $($numbers:literal)*] $name:ident $($names:ident)+) => {
        concat!(stringify!($name), " = $", $number, ", ", sets!(@ [$($numbers)*] $($names)+))
    };
}

/// Sets columns to the parameters from the second on.
macro_rules! sets_from_2 {
    ($($columns:tt)*) => {
        sets!([2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26] $($columns)*)
    };
}

/// Converts the array parameters of a statement for many rows to rows: `UNNEST($1::BIGINT[],
/// $2::TEXT[])`.
macro_rules! arrays {
    ($($(#[$doc:meta])* $name:ident: $sql:ident $($type:ty)?),* $(,)?) => {
        concat!(
            "UNNEST(",
            arrays!(
                @ [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26] $($sql)*
            ),
            ")"
        )
    };
    (@ [$number:literal $($numbers:literal)*] $sql:ident) => {
        concat!("$", $number, arrays!(# $sql))
    };
    (@ [$number:literal $($numbers:literal)*] $sql:ident $($sqls:ident)+) => {
        concat!("$", $number, arrays!(# $sql), ", ", arrays!(@ [$($numbers)*] $($sqls)+))
    };
    (# int) => {
        "::BIGINT[]"
    };
    (# text) => {
        "::TEXT[]"
    };
}

/// Names the columns of [`arrays!`]: `UNNEST($1::BIGINT[]) AS n (a)`.
macro_rules! unnest {
    ($($columns:tt)*) => {
        concat!(arrays!($($columns)*), " AS n (", names!($($columns)*), ")")
    };
}

/// Appends the counters of a run to a list of columns with sources.
macro_rules! checked_columns {
    ($then:ident $($name:ident = $source:literal),*;
     $($(#[$doc:meta])* $counter:ident: $sql:ident $type:ty),* $(,)?) => {
        $then! {
            $($name = $source,)*
            $($counter = concat!("u.", stringify!($counter)),)*
        }
    };
}

/// The sources of a list of columns: `u.a, g.b`.
macro_rules! sources {
    ($name:ident = $source:expr $(, $names:ident = $sources:expr)* $(,)?) => {
        concat!($source $(, ", ", $sources)*)
    };
}

/// The condition that a state is visible in its run: it was not staged, or the execution that
/// staged it is SUCCESS. (A lookup of a value, because Postgres may answer `EXISTS` by a hash of all
/// states.)
macro_rules! seen {
    ($state:literal) => {
        concat!(
            "(",
            $state,
            ".namespace >= 0 OR (SELECT p.status FROM state p WHERE p.id = -",
            $state,
            ".namespace) = 'SUCCESS')"
        )
    };
}

/// The condition of the index `state_ready`: states that can be claimed now.
macro_rules! ready {
    () => {
        "s.status = 'CREATED' AND s.held_back = 0 AND s.delayed = 0"
    };
}

/// The condition of the index `state_delayed`: states that can be claimed later.
macro_rules! delayed {
    () => {
        "s.status = 'CREATED' AND s.held_back = 0 AND s.delayed = 1"
    };
}

/// The namespace to which the states of a queue belong; NULL while they may not be claimed.
macro_rules! owner_of_queue {
    ($queue:literal) => {
        concat!(
            "CASE WHEN ",
            $queue,
            ".namespace >= 0 THEN ",
            $queue,
            ".namespace ELSE (SELECT p.namespace FROM state p JOIN run u ON u.id = p.run \
                 WHERE p.id = -",
            $queue,
            ".namespace AND p.status = 'SUCCESS' \
                 AND u.status = 'RUNNING' AND u.paused = 0) END"
        )
    };
}

/// On Postgres: the first ready state of each namespace, and the first delayed one. Each takes one
/// step along an index, however many states there are. Index entries of states claimed earlier come
/// before all others until a vacuum, so no step is taken twice. A condition may exclude namespaces
/// at the beginning.
macro_rules! claimable {
    ($from:literal) => {
        concat!(
            "ready (namespace, run, due_at, id) AS (\
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
            ready!(),
            $from,
            " ORDER BY s.namespace, s.run, s.due_at, s.id LIMIT 1) \
             UNION ALL SELECT next.* FROM ready CROSS JOIN LATERAL \
             (SELECT s.namespace, s.run, s.due_at, s.id FROM state s WHERE ",
            ready!(),
            " AND s.namespace > ready.namespace \
             ORDER BY s.namespace, s.run, s.due_at, s.id LIMIT 1) next), \
             delayed (namespace, due_at) AS (\
             (SELECT s.namespace, s.due_at FROM state s WHERE ",
            delayed!(),
            " ORDER BY s.namespace, s.due_at, s.id LIMIT 1) \
             UNION ALL SELECT next.* FROM delayed CROSS JOIN LATERAL \
             (SELECT s.namespace, s.due_at FROM state s WHERE ",
            delayed!(),
            " AND s.namespace > delayed.namespace \
             ORDER BY s.namespace, s.due_at, s.id LIMIT 1) next)"
        )
    };
}

mod sessions;
mod gauges;
pub(crate) mod runs;
mod run_lists;
mod insight;
mod labels;
mod states;
mod unites;
mod claims;
mod staging;
mod entries;
mod catalog;
mod deletion;
mod deadlines;
mod namespaces;
mod pauses;
mod access;
mod bulk;
mod logs;
mod open_states;
mod secrets;
mod spans;
pub(crate) mod check;

pub(crate) use access::*;

pub(crate) use bulk::*;
pub(crate) use catalog::*;
pub(crate) use check::*;
pub(crate) use claims::*;
pub(crate) use deadlines::*;
pub(crate) use deletion::*;
pub(crate) use entries::*;
pub(crate) use gauges::*;
pub(crate) use insight::*;
pub(crate) use labels::*;
pub(crate) use logs::*;
pub(crate) use namespaces::*;
pub(crate) use open_states::*;
pub(crate) use pauses::*;
pub(crate) use run_lists::*;
pub(crate) use runs::*;
pub(crate) use secrets::*;
pub(crate) use sessions::*;
pub(crate) use spans::*;
pub(crate) use staging::*;
pub(crate) use states::*;
pub(crate) use unites::*;

#[cfg(test)]
mod tests;
