//! SQLite: the one connection that writes, and the readers beside it on threads of their own.
//!
//! rusqlite rather than sqlx is the client: its prepared statements need no hand-over between
//! threads per statement or per row (docs/performance.md has the figures). A commit needs none at
//! all: it runs on the committer's own thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use exosphere_domain::ids::Millis;
use rusqlite::types::{ToSqlOutput, Value as Owned};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, Row, ToSql};
use tokio::sync::{MutexGuard, oneshot};

use crate::error::{OpenError, StoreError};
use crate::text::{Cells, Read, Rows, Text, Tx, Value};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The capacity of the cache of prepared statements.
const PREPARED: usize = 96;

/// The number of connections that read.
const READERS: usize = 4;

/// The connection that writes, under a lock that callers get in the order of their requests.
#[derive(Clone)]
pub(crate) struct Line {
    connection: Arc<tokio::sync::Mutex<Connection>>,
}

impl Line {
    pub(crate) fn open(file: &Path) -> Result<Self, OpenError> {
        let connection = Connection::open(file)?;
        // FULL: a commit is on the disk when it returns. Checkpoints of 16 MiB at a time, since
        // each costs two more syncs.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA busy_timeout = 5000;
             PRAGMA wal_autocheckpoint = 2000;
             PRAGMA cache_size = -65536;",
        )?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Ok(Line { connection: Arc::new(tokio::sync::Mutex::new(connection)) })
    }

    /// Locks the connection, for a caller that may block its thread.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().await
    }

    /// Runs `work` on the connection, on a blocking thread. It runs to its end even if the caller
    /// is dropped.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.clone();
        let worked = tokio::task::spawn_blocking(move || work(&mut connection.blocking_lock()));
        worked.await.map_err(|error| match error.is_panic() {
            true => StoreError::Data("made the host panic".into()),
            false => StoreError::Unavailable("the host is stopping".into()),
        })?
    }
}

/// Sets whether a commit is on the disk when it returns. If not, the next synced commit syncs it,
/// too: both are in the same log.
pub(crate) fn sync_commits(connection: &Connection, sync: bool) -> Result<(), StoreError> {
    let mode = if sync { "FULL" } else { "NORMAL" };
    Ok(connection.pragma_update(None, "synchronous", mode)?)
}

/// Hands work to the reader threads, which end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Threads {
    jobs: mpsc::Sender<Job>,
}

impl Threads {
    /// Starts the reader threads.
    pub(crate) fn readers(file: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connect = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(file, flags)?;
            connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -16384;")?;
            Ok(connection)
        };
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let mut connection = connect()?;
            connection.set_prepared_statement_cache_capacity(PREPARED);
            let queue = queue.clone();
            // One thread waits for work while it holds the lock; the others wait for the lock.
            let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            std::thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || {
                    while let Ok(job) = next() {
                        job(&mut connection);
                    }
                })
                .map_err(OpenError::Thread)?;
        }
        Ok(Threads { jobs })
    }

    /// Runs `work` on a reader thread.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Unavailable("the thread of the database has ended".into());
        let job = Box::new(move |connection: &mut Connection| {
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Runs a query and returns its rows.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let values: Vec<Owned> = values.iter().map(owned).collect();
        let query = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(text.sqlite)?;
            let mut found = Vec::new();
            bind(&mut statement, values.iter())?;
            fetch(&mut statement, read, &mut found)?;
            Ok(found)
        };
        self.call(query).await
    }
}

fn owned(value: &Value<'_>) -> Owned {
    match value {
        Value::Int(value) => Owned::Integer(*value),
        Value::MaybeInt(value) => value.map_or(Owned::Null, Owned::Integer),
        Value::Text(value) => Owned::Text((*value).to_owned()),
        Value::MaybeText(value) => value.map_or(Owned::Null, |text| Owned::Text(text.to_owned())),
        Value::Bytes(value) => Owned::Blob(value.to_vec()),
    }
}

/// A transaction on SQLite, whose futures never wait.
pub(crate) struct SqliteTx<'a> {
    connection: &'a mut Connection,
    now: Millis,
    open: bool,
}

impl<'a> SqliteTx<'a> {
    /// Begins a transaction; `now` is the host's clock, the only one there is.
    pub(crate) fn begin(connection: &'a mut Connection, now: Millis) -> Result<Self, StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(SqliteTx { connection, now, open: true })
    }

    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        // A commit that fails may leave the transaction open. A commit that could not be written is
        // not committed. If a sync failed, it is unknown what the next start finds.
        self.connection.execute_batch("COMMIT").map_err(|error| match is_unwritten(&error) {
            true => StoreError::from(error),
            false => StoreError::from(error).of_commit(),
        })?;
        self.open = false;
        Ok(())
    }

    fn prepared(&self, text: &'static Text) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(text.sqlite)?)
    }
}

/// Returns whether a commit failed before all of it was in the log.
fn is_unwritten(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    matches!(failure.code, ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ReadOnly)
        || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE
}

impl Drop for SqliteTx<'_> {
    fn drop(&mut self) {
        // Some errors have rolled back already.
        if self.open && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

impl Tx for SqliteTx<'_> {
    fn now(&self) -> i64 {
        self.now
    }

    async fn execute(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let mut statement = self.prepared(text)?;
        bind(&mut statement, values.iter().copied())?;
        Ok(statement.raw_execute()? as u64)
    }

    async fn query<T: Send>(
        &mut self,
        text: &'static Text,
        values: &[Value<'_>],
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        let mut statement = self.prepared(text)?;
        bind(&mut statement, values.iter().copied())?;
        fetch(&mut statement, read, &mut found)?;
        Ok(found)
    }

    async fn execute_each(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        let mut statement = self.prepared(text)?;
        for row in 0..rows.count() {
            bind(&mut statement, rows.columns().iter().map(|column| column.at(row)))?;
            changed += statement.raw_execute()? as u64;
        }
        Ok(changed)
    }

    async fn query_each<T: Send>(
        &mut self,
        text: &'static Text,
        rows: &Rows<'_>,
        read: Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::with_capacity(rows.count());
        let mut statement = self.prepared(text)?;
        for row in 0..rows.count() {
            bind(&mut statement, rows.columns().iter().map(|column| column.at(row)))?;
            fetch(&mut statement, read, &mut found)?;
        }
        Ok(found)
    }
}

fn bind(
    statement: &mut CachedStatement<'_>,
    values: impl Iterator<Item = impl ToSql>,
) -> Result<(), StoreError> {
    for (at, value) in values.enumerate() {
        statement.raw_bind_parameter(at + 1, value)?;
    }
    Ok(())
}

fn fetch<T>(
    statement: &mut CachedStatement<'_>,
    read: Read<T>,
    found: &mut Vec<T>,
) -> Result<(), StoreError> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(())
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Value::Int(value) => value.to_sql(),
            Value::MaybeInt(value) => value.to_sql(),
            Value::Text(value) => value.to_sql(),
            Value::MaybeText(value) => value.to_sql(),
            Value::Bytes(value) => value.to_sql(),
        }
    }
}

impl Cells for Row<'_> {
    fn int(&self, at: usize) -> Result<i64, StoreError> {
        Ok(self.get(at)?)
    }

    fn maybe_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.get(at)?)
    }

    fn text(&self, at: usize) -> Result<String, StoreError> {
        Ok(self.get(at)?)
    }

    fn maybe_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        Ok(self.get(at)?)
    }

    fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.get(at)?)
    }
}

#[cfg(test)]
#[path = "sqlite/tests.rs"]
mod tests;
