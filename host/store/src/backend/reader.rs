//! Reads of committed data, through connections of their own beside the writer.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use tokio::time::{Instant, timeout_at};

use crate::error::StoreError;
use crate::postgres::bound;
use crate::sqlite::Threads;
use crate::text::{Read, Text, Value};

/// Connections in a pool.
const READERS: u32 = 4;

/// Backoff of a patient read: the first pause and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The timeout of one try of a patient read, because a connection that died silently gives no
/// error.
const MOST: Duration = Duration::from_secs(10);

/// The timeout of any other read over all its tries: a caller waits for the answer, and should have
/// one within five seconds.
const ANSWER: Duration = Duration::from_secs(4);

/// Runs queries on a pool of connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub pool: Pool,
    /// The time for which a read is retried while the database is unavailable.
    pub patience: Duration,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(Threads),
    Postgres(Arc<Lines>),
}

/// The timeout for acquiring a connection of the pool.
const ACQUIRE: Duration = ANSWER;

/// An idle connection is closed after this time, so that an idle host holds few.
const IDLE: Duration = Duration::from_secs(60);

/// A pool of connections to Postgres, which is replaced when one of them dies silently. The others
/// may be dead, too, and each would stay taken until the system notices.
pub(crate) struct Lines {
    options: PgConnectOptions,
    pool: RwLock<PgPool>,
}

impl Lines {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        let pool = RwLock::new(lazy(&options));
        Lines { options, pool }
    }

    fn pool(&self) -> PgPool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew(&self) {
        let mut pool = self.pool.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *pool, lazy(&self.options));
        tokio::spawn(async move { old.close().await });
    }
}

/// Creates a pool that connects on demand. Only a query finds a dead connection: a test before each
/// one would double every read.
fn lazy(options: &PgConnectOptions) -> PgPool {
    let pool = PgPoolOptions::new().min_connections(0).max_connections(READERS);
    let pool = pool.acquire_timeout(ACQUIRE).idle_timeout(IDLE).test_before_acquire(false);
    pool.connect_lazy_with(options.clone())
}

impl Reader {
    /// Runs a query and returns its rows.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let (start, end) = (Instant::now(), Instant::now() + self.patience);
        let mut pause = PAUSE.0;
        // After a restart of the database every connection of the pool may be dead, and shows it on
        // its next use.
        let mut at_once = READERS;
        loop {
            let begun = Instant::now();
            let last = if self.patience.is_zero() { start + ANSWER } else { begun + MOST };
            let why = match timeout_at(last, self.try_rows(text, values, read)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(StoreError::Unavailable(_))) if at_once > 0 && self.may_be_dead(begun) => {
                    at_once -= 1;
                    continue;
                }
                Ok(Err(StoreError::Unavailable(why))) => why,
                Ok(Err(other)) => return Err(other),
                Err(_) => self.swallowed(last - begun),
            };
            if Instant::now() + pause > end {
                return Err(StoreError::Unavailable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Returns whether a read may have failed only because its connection was dead: it failed fast.
    fn may_be_dead(&self, begun: Instant) -> bool {
        matches!(self.pool, Pool::Postgres(_)) && begun.elapsed() < PAUSE.1
    }

    /// Replaces the pool after a timeout; returns the error message.
    fn swallowed(&self, limit: Duration) -> String {
        if let Pool::Postgres(lines) = &self.pool {
            lines.renew();
        }
        format!("no answer within {} s", limit.as_secs())
    }

    async fn try_rows<T: Send + 'static>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.pool {
            Pool::Sqlite(threads) => threads.rows(text, values, read).await,
            Pool::Postgres(lines) => {
                let pool = lines.pool();
                let rows = bound(sqlx::query(text.postgres), values).fetch(&pool);
                gather(rows, read).await
            }
        }
    }

    /// Runs a query that finds one row or none.
    pub(crate) async fn row<T: Send + 'static>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.rows(text, values, read).await?.into_iter().next())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Pool {
    pub(crate) async fn close(&self) {
        if let Pool::Postgres(lines) = self {
            lines.pool().close().await;
        }
    }
}

/// Converts rows as they arrive: a row is larger than its value, and there may be 100,000.
async fn gather<T>(
    mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
    read: Read<T>,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(read(&row)?);
    }
    Ok(all)
}
