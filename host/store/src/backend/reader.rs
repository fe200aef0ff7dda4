//! Reads of committed data, through connections of their own beside the writer.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use exosphere_domain::outage_backoff::Backoff;
use futures::{Stream, TryStreamExt};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use tokio::time::{Instant, timeout_at};

use super::arguments::bind;
use super::sqlite::ReaderPool;
use crate::dialect::{FromRow, Param, Statement};
use crate::error::StoreError;

/// Maximum number of connections in a pool.
const MAX_CONNECTIONS: u32 = 4;

/// The first pause between two tries of a read, and the longest.
const RETRY_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The timeout of one try of a read that is retried, because a connection that died silently gives
/// no error.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of any other read over all its tries: a caller waits for the answer, and should have
/// one within five seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// Runs queries on a pool of connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub pool: Pool,
    /// The time for which a read is retried while the database is unavailable.
    pub retry_for: Duration,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(ReaderPool),
    Postgres(Arc<RenewablePool>),
}

/// The timeout for acquiring a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = READ_TIMEOUT;

/// An idle connection is closed after this time, so that an idle host holds few.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A pool of connections to Postgres, which is replaced when one of them dies silently. The others
/// may be dead, too, and each would stay taken until the system notices.
pub(crate) struct RenewablePool {
    options: PgConnectOptions,
    pool: RwLock<PgPool>,
}

impl RenewablePool {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        let pool = RwLock::new(lazy_pool(&options));
        RenewablePool { options, pool }
    }

    fn current(&self) -> PgPool {
        self.pool.read().clone()
    }

    fn replace(&self) {
        let old = std::mem::replace(&mut *self.pool.write(), lazy_pool(&self.options));
        tokio::spawn(async move { old.close().await });
    }
}

/// Creates a pool that connects on demand. Only a query finds a dead connection: a test before each
/// one would double every read.
fn lazy_pool(options: &PgConnectOptions) -> PgPool {
    let pool = PgPoolOptions::new().min_connections(0).max_connections(MAX_CONNECTIONS);
    let pool =
        pool.acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(IDLE_TIMEOUT).test_before_acquire(false);
    pool.connect_lazy_with(options.clone())
}

impl Reader {
    /// Runs a query and returns its rows.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        let (start, end) = (Instant::now(), Instant::now() + self.retry_for);
        let mut backoff = Backoff::new(RETRY_BACKOFF.0, RETRY_BACKOFF.1);
        // After a restart of the database every connection of the pool may be dead, and shows it on
        // its next use.
        let mut immediate_retries = MAX_CONNECTIONS;
        loop {
            let try_start = Instant::now();
            let last = if self.retry_for.is_zero() {
                start + READ_TIMEOUT
            } else {
                try_start + TRY_TIMEOUT
            };
            let cause = match timeout_at(last, self.try_rows(statement, params, read)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(StoreError::Unavailable(_)))
                    if immediate_retries > 0 && self.may_be_dead(try_start) =>
                {
                    immediate_retries -= 1;
                    continue;
                }
                Ok(Err(StoreError::Unavailable(cause))) => cause,
                Ok(Err(other)) => return Err(other),
                Err(_) => self.replace_pool(last - try_start),
            };
            if Instant::now() + backoff.peek() > end {
                return Err(StoreError::Unavailable(cause));
            }
            tokio::time::sleep(backoff.advance()).await;
        }
    }

    /// Returns whether a read may have failed only because its connection was dead: it failed fast.
    fn may_be_dead(&self, tried: Instant) -> bool {
        matches!(self.pool, Pool::Postgres(_)) && tried.elapsed() < RETRY_BACKOFF.1
    }

    /// Replaces the pool after a timeout; returns the error message.
    fn replace_pool(&self, limit: Duration) -> String {
        if let Pool::Postgres(pool) = &self.pool {
            pool.replace();
        }
        format!("no answer within {} s", limit.as_secs())
    }

    async fn try_rows<T: Send + 'static>(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.pool {
            Pool::Sqlite(threads) => threads.rows(statement, params, read).await,
            Pool::Postgres(pool) => {
                let pool = pool.current();
                let rows = bind(sqlx::query(statement.postgres), params).fetch(&pool);
                collect(rows, read).await
            }
        }
    }

    /// Runs a query that finds one row or none.
    pub(crate) async fn row<T: Send + 'static>(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.rows(statement, params, read).await?.into_iter().next())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Pool {
    pub(crate) async fn close(&self) {
        if let Pool::Postgres(pool) = self {
            pool.current().close().await;
        }
    }
}

/// Converts rows as they arrive: a row is larger than its value, and there may be 100,000.
async fn collect<T>(
    mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
    read: FromRow<T>,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(read(&row)?);
    }
    Ok(all)
}
