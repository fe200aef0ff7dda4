//! Postgres: connections that write, transactions on them, and the words by
//! which hosts wake each other. Many hosts write at the same time; what keeps
//! them out of each other's way is said in `commit`.

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

/// A transaction whose host does not go on with it is undone by the server after
/// so long, in milliseconds: a frozen host must not hold its locks, and others
/// behind them, for ever.
const IDLE_IN_TRANSACTION_MS: &str = "2000";

/// A statement waits so long for a lock, in milliseconds: longer than the
/// largest transaction of another host, shorter than [`MOST`].
const LOCK_WAIT_MS: &str = "15000";

/// The longest that a transaction may take. Behind a connection that swallows
/// everything nobody learns anything; then a new one is made.
pub(crate) const MOST: Duration = Duration::from_secs(30);

/// Rows of one statement. More only make its arrays larger.
const ROWS_AT_A_TIME: usize = 10_000;

/// So many bytes of text wait for other statements: a message of 1 GiB ends the
/// connection.
const TOGETHER: usize = 16 << 20;

/// Where a Postgres is, with the settings of every connection.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, OpenError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Scheme);
    }
    let options = PgConnectOptions::from_str(url).map_err(OpenError::Url)?;
    let options = options.application_name("exosphere").options([
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS),
        ("lock_timeout", LOCK_WAIT_MS),
        // To compile a statement takes longer than any of ours.
        ("jit", "off"),
        // All that is asked for often has an index. A new table has no
        // statistics yet, and passes for a small one that is best read whole.
        ("enable_seqscan", "off"),
        // For the same reason: the next 250 states of a run would be found by sorting all.
        ("enable_bitmapscan", "off"),
    ]);
    // Slow statements are for the database's own log.
    Ok(options.disable_statement_logging())
}

/// What a database answers, if it does so in time.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.map_err(late)?
}

/// One connection for one purpose. It is made when it is needed, and anew after
/// it broke or did not answer in time: who is dropped while using it takes it
/// along.
#[derive(Clone)]
pub(crate) struct Line {
    options: Arc<PgConnectOptions>,
    idle: Arc<Mutex<Option<PgConnection>>>,
}

/// A line in use; nobody else uses it meanwhile.
pub(crate) struct Held {
    connection: PgConnection,
    home: OwnedMutexGuard<Option<PgConnection>>,
}

impl Held {
    /// Leaves the connection for the next one.
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

    /// Begins a transaction, after the one under way.
    pub(crate) async fn begin(&self) -> Result<PgTx, StoreError> {
        let mut line = self.hold().await?;
        // Two statements in one go; what time it is comes with the answer.
        let begin = concat!("BEGIN; ", now!());
        let row = sqlx::raw_sql(begin).fetch_one(&mut line.connection).await?;
        Ok(PgTx { now: row.try_get(0)?, line, put_off: Together::default() })
    }

    /// The row that a statement gives, if it comes in time.
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

/// A transaction on Postgres. Dropped without [`PgTx::end`], it takes its
/// connection with it, and the server undoes it.
pub(crate) struct PgTx {
    line: Held,
    now: i64,
    put_off: Together,
}

impl PgTx {
    /// Runs what was put off.
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

    /// Commits what went well, and undoes what did not. Notes in `is_asked` that
    /// the server was asked to commit: without its answer nobody knows.
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
            // Whether it was committed is not known.
            (Ok(_), Err(error)) => Err(error.into()),
            // A new connection sees how the database is set up by then: whether
            // it may write, how long a statement may take.
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

/// A query with its values.
pub(crate) fn bound<'q>(query: PgQuery<'q>, values: &[Value<'_>]) -> PgQuery<'q> {
    values.iter().fold(query, |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::MaybeInt(value) => query.bind(*value),
        Value::Text(value) => query.bind(escaped(value).into_owned()),
        Value::MaybeText(value) => query.bind(value.map(|value| escaped(value).into_owned())),
        Value::Bytes(value) => query.bind(value.to_vec()),
    })
}

/// The rows of each statement.
fn rows_at_a_time(rows: &Rows<'_>) -> impl Iterator<Item = Range<usize>> {
    let count = rows.count();
    let starts = (0..count).step_by(ROWS_AT_A_TIME);
    starts.map(move |from| from..count.min(from + ROWS_AT_A_TIME))
}

/// An array for each column: some rows of it.
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

/// A text of Postgres has no NUL, one of ours may. It is written as this
/// character and `0`, the character itself as two of it: what is compared byte
/// by byte keeps its order.
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
