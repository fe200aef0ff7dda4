//! Postgres: connections that write, and the transactions on them. Many hosts write at the same
//! time; `commit` says how their locks avoid deadlocks.

#[path = "deferred.rs"]
mod together;

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Arguments, ConnectOptions, Connection, PgConnection, Postgres, Row};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{OpenError, StoreError};
use crate::sql::now;
use crate::text::{Cells, Column, Read, Rows, Text, Tx, Value, all_of};
use together::{Statement, Together};

/// The server rolls back a transaction that is idle for this long, in milliseconds. A frozen host
/// must not hold its locks, and block other hosts, for ever.
const IDLE_IN_TRANSACTION_MS: &str = "2000";

/// The lock timeout of a statement, in milliseconds: longer than the largest transaction of another
/// host, shorter than [`MOST`].
const LOCK_WAIT_MS: &str = "15000";

/// The timeout of a transaction. A connection that died silently gives no error, so after this time
/// a new one is made.
pub(crate) const MOST: Duration = Duration::from_secs(30);

/// Rows per statement. More rows only make its arrays larger.
const ROWS_AT_A_TIME: usize = 10_000;

/// Bytes of text that queued statements may have: a message of 1 GiB ends the connection.
const TOGETHER: usize = 16 << 20;

/// Parses the URL of a Postgres, and adds the settings of every connection.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, OpenError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Scheme);
    }
    let options = PgConnectOptions::from_str(url).map_err(OpenError::Url)?;
    let options = options.application_name("exosphere").options([
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS),
        ("lock_timeout", LOCK_WAIT_MS),
        // JIT compilation takes longer than any statement here runs.
        ("jit", "off"),
        // Every frequent query has an index. A new table has no statistics yet, so the planner
        // would take it for a small one and scan it.
        ("enable_seqscan", "off"),
        // For the same reason: the planner would find the next 250 states of a run by sorting all.
        ("enable_bitmapscan", "off"),
    ]);
    // Slow statements belong in the database's own log.
    Ok(options.disable_statement_logging())
}

/// Waits for an answer of the database, with a timeout.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.map_err(late)?
}

/// A connection for one purpose, made on first use. A new one replaces it after an error or a
/// timeout, because a dropped user takes the connection with it.
#[derive(Clone)]
pub(crate) struct Line {
    options: Arc<PgConnectOptions>,
    idle: Arc<Mutex<Option<PgConnection>>>,
}

/// A connection in use, under an exclusive lock.
pub(crate) struct Held {
    connection: PgConnection,
    home: OwnedMutexGuard<Option<PgConnection>>,
}

impl Held {
    /// Returns the connection for the next user.
    fn leave(mut self) {
        *self.home = Some(self.connection);
    }
}

impl Line {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Line { options: Arc::new(options), idle: Arc::default() }
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    async fn hold(&self) -> Result<Held, StoreError> {
        let mut home = self.idle.clone().lock_owned().await;
        let connection = match home.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Held { connection, home })
    }

    /// Begins a transaction, after the previous one on this connection has ended.
    pub(crate) async fn begin(&self) -> Result<PgTx, StoreError> {
        let mut line = self.hold().await?;
        // Two statements in one round trip; the answer contains the current time.
        let begin = concat!("BEGIN; ", now!());
        let row = sqlx::raw_sql(begin).fetch_one(&mut line.connection).await?;
        Ok(PgTx { now: row.try_get(0)?, line, put_off: Together::default() })
    }

    /// Runs a statement and returns its row, with a timeout.
    pub(crate) async fn row(
        &self,
        statement: PgQuery<'_>,
        within: Duration,
    ) -> Result<PgRow, StoreError> {
        let row = async {
            let mut line = self.hold().await?;
            let row = statement.fetch_one(&mut line.connection).await?;
            line.leave();
            Ok(row)
        };
        self::within(within, row).await
    }

    pub(crate) async fn close(&self) {
        if let Some(connection) = self.idle.lock().await.take() {
            let _ = connection.close().await;
        }
    }
}

/// A transaction on Postgres. Dropped without [`PgTx::end`], it drops its connection, and the
/// server rolls it back.
pub(crate) struct PgTx {
    line: Held,
    now: i64,
    put_off: Together,
}

impl PgTx {
    /// Runs the queued statements.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let Some(Statement { text, arguments, changes }) = self.put_off.take() else {
            return Ok(());
        };
        let query = sqlx::query_with(text, arguments);
        let row = query.fetch_one(&mut self.line.connection).await?;
        let changed: Vec<i64> = row.try_get(0)?;
        let each = changed.into_iter().zip(changes);
        each.into_iter().try_for_each(|(changed, expected)| all_of(changed as u64, expected))
    }

    /// Commits after success, and rolls back after an error. Sets `is_asked` before the COMMIT is
    /// sent: without an answer its result is unknown.
    pub(crate) async fn end<T>(
        mut self,
        done: Result<T, StoreError>,
        is_asked: &AtomicBool,
    ) -> Result<T, StoreError> {
        let done = match done {
            Ok(done) => self.catch_up().await.map(|()| done),
            failed => failed,
        };
        let last = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        is_asked.store(done.is_ok(), Ordering::Relaxed);
        let ended = sqlx::raw_sql(last).execute(&mut self.line.connection).await;
        match (done, ended) {
            (Ok(done), Ok(_)) => {
                self.line.leave();
                Ok(done)
            }
            // The result of the COMMIT is unknown.
            (Ok(_), Err(error)) => Err(error.into()),
            // Drops the connection: a new one sees the current configuration of the database, such
            // as read-only mode and the statement timeout.
            (Err(why @ StoreError::Unavailable(_)), Ok(_)) => Err(why),
            (Err(why), Ok(_)) => {
                self.line.leave();
                Err(why)
            }
            (Err(why), Err(_)) => Err(why),
        }
    }
}

impl Tx for PgTx {
    fn now(&self) -> i64 {
        self.now
    }

    async fn execute(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.catch_up().await?;
        let query = bound(sqlx::query(text.postgres), values);
        Ok(query.execute(&mut self.line.connection).await?.rows_affected())
    }

    async fn query<T: Send>(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.catch_up().await?;
        let query = bound(sqlx::query(text.postgres), values);
        let rows = query.fetch_all(&mut self.line.connection).await?;
        rows.iter().map(|row| read(row)).collect()
    }

    async fn execute_each(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
    ) -> Result<u64, StoreError> {
        self.catch_up().await?;
        let mut changed = 0;
        for some in rows_at_a_time(rows) {
            let query = sqlx::query_with(text.postgres, arrays(rows, some)?);
            changed += query.execute(&mut self.line.connection).await?.rows_affected();
        }
        Ok(changed)
    }

    async fn query_each<T: Send>(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.catch_up().await?;
        let mut found = Vec::with_capacity(rows.count());
        for some in rows_at_a_time(rows) {
            let query = sqlx::query_with(text.postgres, arrays(rows, some)?);
            for row in query.fetch_all(&mut self.line.connection).await? {
                found.push(read(&row)?);
            }
        }
        Ok(found)
    }

    async fn put_off(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        changes: Option<u64>,
    ) -> Result<(), StoreError> {
        if rows.count() > ROWS_AT_A_TIME {
            return self.execute_all(text, rows, changes).await;
        }
        self.put_off.add(text, rows, changes)?;
        if self.put_off.bytes() > TOGETHER {
            self.catch_up().await?;
        }
        Ok(())
    }
}

pub(crate) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Binds values to a query.
pub(crate) fn bound<'q>(query: PgQuery<'q>, values: &[Value<'_>]) -> PgQuery<'q> {
    values.iter().fold(query, |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::MaybeInt(value) => query.bind(*value),
        Value::Text(value) => query.bind(escaped(value).into_owned()),
        Value::MaybeText(value) => query.bind(value.map(|value| escaped(value).into_owned())),
        Value::Bytes(value) => query.bind(value.to_vec()),
    })
}

/// Splits rows into the ranges of separate statements.
fn rows_at_a_time(rows: &Rows<'_>) -> impl Iterator<Item = Range<usize>> {
    let count = rows.count();
    let starts = (0..count).step_by(ROWS_AT_A_TIME);
    starts.map(move |from| from..count.min(from + ROWS_AT_A_TIME))
}

/// Converts a range of rows to one array per column.
fn arrays(rows: &Rows<'_>, some: Range<usize>) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    add_arrays(&mut arguments, rows, some)?;
    Ok(arguments)
}

fn add_arrays(
    arguments: &mut PgArguments,
    rows: &Rows<'_>,
    some: Range<usize>,
) -> Result<(), StoreError> {
    for column in rows.columns() {
        let added = match column {
            Column::Ints(all) => arguments.add(&all[some.clone()]),
            Column::MaybeInts(all) => arguments.add(&all[some.clone()]),
            Column::Texts(all) => {
                let texts: Vec<_> = all[some.clone()].iter().map(|text| escaped(text)).collect();
                arguments.add(texts.iter().map(|text| &**text).collect::<Vec<&str>>())
            }
            Column::MaybeTexts(all) => {
                let texts: Vec<_> =
                    all[some.clone()].iter().map(|text| text.map(escaped)).collect();
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
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == ESCAPE) {
            (_, true) if letters.next() == Some('0') => plain.push('\0'),
            (other, _) => plain.push(other),
        }
    }
    plain
}

impl Cells for PgRow {
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
    fn any_text_can_be_kept_and_keeps_its_order() {
        let texts = ["", "\0", "\0\u{1}", "\u{1}", "\u{1}0", "\u{1}\0", "\u{2}", "a\0b", "a1", "ä"];
        for text in texts {
            let kept = escaped(text).into_owned();
            assert!(!kept.contains('\0'));
            assert_eq!(unescaped(kept), text);
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
