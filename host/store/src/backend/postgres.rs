//! Postgres: connections that write, and the transactions on them. Many hosts write at the same
//! time; `commit` says how their locks avoid deadlocks.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, PgConnection, Row as _};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::arguments::{PgQuery, arrays, bind};
use super::deferred::{MergedStatement, StatementBatch};
use crate::dialect::{FromRow, Param, ParamRows, PendingWrites, Statement, Tx, expect_affected};
use crate::error::{OpenError, StoreError};
use crate::sql::now;

/// The server rolls back a transaction that is idle for this long, in milliseconds. A frozen
/// host must not hold its locks, and block other hosts, forever.
const IDLE_IN_TRANSACTION_MS: &str = "2000";

/// The lock timeout of a statement, in milliseconds: longer than the largest transaction of another
/// host, shorter than [`TRANSACTION_TIMEOUT`].
const LOCK_WAIT_MS: &str = "15000";

/// The timeout of a transaction. A connection that died silently gives no error, so after this time
/// the store opens a new connection.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of rows per statement. More rows only make its arrays larger.
const MAX_ROWS: usize = 10_000;

/// Maximum bytes of text in a merged statement: a message of 1 GiB ends the connection.
const MAX_MERGED_BYTES: usize = 16 << 20;

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
        // This has the same reason: the planner would find the next 250 states of a run by sorting all.
        ("enable_bitmapscan", "off"),
    ]);
    // Slow statements belong in the database's own log.
    Ok(options.disable_statement_logging())
}

/// Waits for an answer of the database, with a timeout.
pub(crate) async fn with_timeout<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let timed_out = |_| StoreError::Unavailable(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.map_err(timed_out)?
}

/// A connection for one purpose, made on first use. A new one replaces it after an error or a
/// timeout, because a caller that is dropped drops its connection, too.
#[derive(Clone)]
pub(crate) struct ConnectionSlot {
    options: Arc<PgConnectOptions>,
    idle: Arc<Mutex<Option<PgConnection>>>,
}

/// A connection in use, under an exclusive lock.
pub(crate) struct ConnectionGuard {
    connection: PgConnection,
    home: OwnedMutexGuard<Option<PgConnection>>,
}

impl ConnectionGuard {
    /// Puts the connection back into its slot, for the next user.
    fn release(mut self) {
        *self.home = Some(self.connection);
    }
}

impl ConnectionSlot {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        ConnectionSlot { options: Arc::new(options), idle: Arc::default() }
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    async fn acquire(&self) -> Result<ConnectionGuard, StoreError> {
        let mut home = self.idle.clone().lock_owned().await;
        let connection = match home.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(ConnectionGuard { connection, home })
    }

    /// Begins a transaction, after the previous one on this connection has ended.
    pub(crate) async fn begin(&self) -> Result<PgTx, StoreError> {
        let mut guard = self.acquire().await?;
        // Two statements in one round trip; the answer contains the current time.
        let begin = concat!("BEGIN; ", now!());
        let row = sqlx::raw_sql(begin).fetch_one(&mut guard.connection).await?;
        Ok(PgTx { now: row.try_get(0)?, guard, id: None })
    }

    /// Runs a statement and returns its row, with a timeout.
    pub(crate) async fn row(
        &self,
        statement: PgQuery<'_>,
        within: Duration,
    ) -> Result<PgRow, StoreError> {
        let row = async {
            let mut guard = self.acquire().await?;
            let row = statement.fetch_one(&mut guard.connection).await?;
            guard.release();
            Ok(row)
        };
        with_timeout(within, row).await
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
    guard: ConnectionGuard,
    now: i64,
    /// The id of the transaction, once it has flushed writes.
    id: Option<String>,
}

impl PgTx {
    /// Returns the id of the transaction, if it has flushed writes.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Runs some statements, merged into one.
    async fn run(&mut self, batch: &mut StatementBatch) -> Result<(), StoreError> {
        let Some(MergedStatement { text, arguments, expected }) = batch.take() else {
            return Ok(());
        };
        let query = sqlx::query_with(text, arguments);
        let row = query.fetch_one(&mut self.guard.connection).await?;
        let changed: Vec<i64> = row.try_get(0)?;
        self.id = Some(row.try_get(1)?);
        let mut expectations = changed.into_iter().zip(expected);
        expectations
            .try_for_each(|(changed, expected)| expect_affected(changed as u64, Some(expected)))
    }

    /// Commits after success, and rolls back after an error. Sets `is_asked` before the COMMIT is
    /// sent: without an answer its result is unknown.
    pub(crate) async fn end<T>(
        mut self,
        done: Result<T, StoreError>,
        is_asked: &AtomicBool,
    ) -> Result<T, StoreError> {
        let last = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        is_asked.store(done.is_ok(), Ordering::Relaxed);
        let ended = sqlx::raw_sql(last).execute(&mut self.guard.connection).await;
        match (done, ended) {
            (Ok(done), Ok(_)) => {
                self.guard.release();
                Ok(done)
            }
            // The result of the COMMIT is unknown.
            (Ok(_), Err(error)) => Err(error.into()),
            // Drops the connection: a new one sees the current configuration of the database, such
            // as read-only mode and the statement timeout.
            (Err(cause @ StoreError::Unavailable(_)), Ok(_)) => Err(cause),
            (Err(cause), Ok(_)) => {
                self.guard.release();
                Err(cause)
            }
            (Err(cause), Err(_)) => Err(cause),
        }
    }
}

impl Tx for PgTx {
    fn now(&self) -> i64 {
        self.now
    }

    async fn execute(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> Result<u64, StoreError> {
        let query = bind(sqlx::query(statement.postgres), params);
        Ok(query.execute(&mut self.guard.connection).await?.rows_affected())
    }

    async fn query<T: Send>(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        let query = bind(sqlx::query(statement.postgres), params);
        let rows = query.fetch_all(&mut self.guard.connection).await?;
        rows.iter().map(|row| read(row)).collect()
    }

    async fn execute_each(
        &mut self,
        statement: &'static Statement,
        rows: &ParamRows<'_>,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        for range in chunks(rows) {
            let query = sqlx::query_with(statement.postgres, arrays(rows, range)?);
            changed += query.execute(&mut self.guard.connection).await?.rows_affected();
        }
        Ok(changed)
    }

    async fn query_each<T: Send>(
        &mut self,
        statement: &'static Statement,
        rows: &ParamRows<'_>,
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::with_capacity(rows.count());
        for range in chunks(rows) {
            let query = sqlx::query_with(statement.postgres, arrays(rows, range)?);
            for row in query.fetch_all(&mut self.guard.connection).await? {
                found.push(read(&row)?);
            }
        }
        Ok(found)
    }

    async fn flush(&mut self, writes: &mut PendingWrites<'_>) -> Result<(), StoreError> {
        let mut batch = StatementBatch::default();
        for write in writes.take()? {
            if write.rows.count() > MAX_ROWS {
                self.run(&mut batch).await?;
                let changed = self.execute_each(write.statement, &write.rows).await?;
                expect_affected(changed, write.expected)?;
                continue;
            }
            batch.add(&write)?;
            if batch.bytes() > MAX_MERGED_BYTES {
                self.run(&mut batch).await?;
            }
        }
        self.run(&mut batch).await
    }
}

/// Splits rows into the ranges of separate statements.
fn chunks(rows: &ParamRows<'_>) -> impl Iterator<Item = Range<usize>> {
    let count = rows.count();
    let starts = (0..count).step_by(MAX_ROWS);
    starts.map(move |from| from..count.min(from + MAX_ROWS))
}
