//! Reads beside the writer, through connections of their own. They see what is
//! committed.

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

/// Connections of a pool.
const READERS: u32 = 4;

/// How long a patient read waits before it tries again: from, and up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The longest that a patient read may take at a time: behind a connection that
/// swallows everything nobody learns anything.
const MOST: Duration = Duration::from_secs(10);

/// The longest that any other read takes, with all its tries: somebody waits for
/// the answer, and is to have one within five seconds.
const ANSWER: Duration = Duration::from_secs(4);

/// Who reads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub pool: Pool,
    /// For so long a read tries again if the database is unavailable.
    pub patience: Duration,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(Threads),
    Postgres(Arc<Lines>),
}

/// How long to wait for a connection of the pool.
const ACQUIRE: Duration = ANSWER;

/// A connection that nobody needs is closed after so long, so that an idle host
/// holds few.
const IDLE: Duration = Duration::from_secs(60);

/// A pool of connections to Postgres, and the next one after it when one of its
/// connections swallows everything: the others may, too, and each would stay
/// taken for as long as the system believes in it.
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

/// Connections are made when they are needed. That one is dead is found by using
/// it: to ask first would double every read.
fn lazy(options: &PgConnectOptions) -> PgPool {
    let pool = PgPoolOptions::new().min_connections(0).max_connections(READERS);
    let pool = pool.acquire_timeout(ACQUIRE).idle_timeout(IDLE).test_before_acquire(false);
    pool.connect_lazy_with(options.clone())
}

impl Reader {
    /// The rows of a query.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let (start, end) = (Instant::now(), Instant::now() + self.patience);
        let mut pause = PAUSE.0;
        // After a restart of the database each connection of the pool may be a
        // dead one, and shows it when it is used.
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

    /// Whether a read may have failed by its connection alone: it did so quickly.
    fn may_be_dead(&self, begun: Instant) -> bool {
        matches!(self.pool, Pool::Postgres(_)) && begun.elapsed() < PAUSE.1
    }

    /// There was no answer at all.
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

    /// The row of a query that finds one or none.
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

/// Makes values of rows as they come: a row is larger than what is made of it,
/// and there may be 100,000.
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
