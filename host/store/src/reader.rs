//! Reads beside the writer, through a pool of connections. They see what is
//! committed.

use std::time::Duration;

use futures::{Stream, TryStreamExt};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{PgPool, Row, Sqlite, SqlitePool};
use tokio::time::Instant;

use crate::error::StoreError;
use crate::postgres::bound;
use crate::text::{Cells, Read, Text, Value};

/// Connections of the pool.
pub(crate) const READERS: u32 = 4;

/// How long a patient read waits before it tries again: from, and up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The longest that a read may take: behind a connection that swallows
/// everything nobody learns anything.
const MOST: Duration = Duration::from_secs(10);

/// Who reads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub pool: Pool,
    /// For so long a read tries again if the database is unavailable.
    pub patience: Duration,
}

#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Reader {
    /// The rows of a query.
    pub(crate) async fn rows<T>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let end = Instant::now() + self.patience;
        let mut pause = PAUSE.0;
        // After a restart of the database each connection of the pool may be a
        // dead one, and shows it when it is used.
        let mut at_once = READERS;
        loop {
            let why = match tokio::time::timeout(MOST, self.try_rows(text, values, read)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(StoreError::Unavailable(why))) => why,
                Ok(Err(other)) => return Err(other),
                Err(_) => format!("no answer within {} s", MOST.as_secs()),
            };
            if at_once > 0 && matches!(self.pool, Pool::Postgres(_)) {
                at_once -= 1;
                continue;
            }
            if Instant::now() + pause > end {
                return Err(StoreError::Unavailable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn try_rows<T>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                let rows = bound_here(sqlx::query(text.sqlite), values).fetch(pool);
                gather(rows, |row| read(row)).await
            }
            Pool::Postgres(pool) => {
                let rows = bound(sqlx::query(text.postgres), values).fetch(pool);
                gather(rows, |row| read(row)).await
            }
        }
    }

    /// The row of a query that finds one or none.
    pub(crate) async fn row<T>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.rows(text, values, read).await?.into_iter().next())
    }

    pub(crate) async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

/// Makes values of rows as they come: a row is larger than what is made of it,
/// and there may be 100,000.
async fn gather<R, T>(
    mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    read: impl Fn(&R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(read(&row)?);
    }
    Ok(all)
}

type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

fn bound_here<'q>(query: SqliteQuery<'q>, values: &[Value<'_>]) -> SqliteQuery<'q> {
    values.iter().fold(query, |query, value| match value {
        Value::Int(value) => query.bind(*value),
        Value::MaybeInt(value) => query.bind(*value),
        Value::Text(value) => query.bind((*value).to_owned()),
        Value::MaybeText(value) => query.bind(value.map(str::to_owned)),
        Value::Bytes(value) => query.bind(value.to_vec()),
    })
}

impl Cells for SqliteRow {
    fn int(&self, at: usize) -> Result<i64, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: usize) -> Result<String, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn maybe_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.try_get(at)?)
    }
}
