//! SQLite: the one connection that writes, and the readers beside it on threads of their own.
//!
//! rusqlite rather than sqlx is the client: its prepared statements need no hand-over between
//! threads per statement or per row (docs/internals/performance-log.md has the figures). A commit
//! needs none at all: it runs on the committer's own thread.
//!
//! Not here: what is set once for a database file, as its page size (`open`).

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use exosphere_domain::ids::Millis;
use rusqlite::types::{ToSqlOutput, Value as Owned};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, ToSql};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};

use self::checkpoints::Checkpoints;
use crate::dialect::{
    FromRow, Param, ParamRows, PendingWrites, Row, Statement, Tx, expect_affected,
};
use crate::error::{OpenError, StoreError};

mod checkpoints;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The capacity of the cache of prepared statements.
const MAX_PREPARED_STATEMENTS: usize = 96;

/// The number of connections that read.
const READERS: usize = 4;

/// The connection that writes, under a lock that callers get in the order of their requests.
#[derive(Clone)]
pub(crate) struct WriterConnection {
    writer: Arc<AsyncMutex<Writer>>,
}

struct Writer {
    connection: Connection,
    checkpoints: Checkpoints,
}

/// The connection that writes, while it is locked. On drop, it requests checkpoints.
pub(crate) struct WriterGuard(OwnedMutexGuard<Writer>);

impl WriterConnection {
    pub(crate) fn open(file: &Path) -> Result<Self, OpenError> {
        let connection = Connection::open(file)?;
        // With FULL, a commit is on the disk when it returns.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA busy_timeout = 5000;
             PRAGMA cache_size = -65536;",
        )?;
        connection.set_prepared_statement_cache_capacity(MAX_PREPARED_STATEMENTS);
        let checkpoints = Checkpoints::start(file, &connection)?;
        Ok(WriterConnection {
            writer: Arc::new(AsyncMutex::new(Writer { connection, checkpoints })),
        })
    }

    /// Locks the connection, for a caller that may block its thread.
    pub(crate) async fn acquire(&self) -> WriterGuard {
        WriterGuard(self.writer.clone().lock_owned().await)
    }

    /// Runs `work` on the connection, on a blocking thread. It runs to its end even if the caller
    /// is dropped.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let writer = self.writer.clone();
        let work = move || work(&mut WriterGuard(writer.blocking_lock_owned()));
        let job = tokio::task::spawn_blocking(work);
        job.await.map_err(|error| {
            if error.is_panic() {
                StoreError::Data("made the host panic".into())
            } else {
                StoreError::Unavailable("the host is stopping".into())
            }
        })?
    }
}

impl Deref for WriterGuard {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.connection
    }
}

impl DerefMut for WriterGuard {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.connection
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let Writer { connection, checkpoints } = &mut *self.0;
        checkpoints.after_commit(connection);
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
pub(crate) struct ReaderPool {
    jobs: mpsc::Sender<Job>,
}

impl ReaderPool {
    /// Starts the reader threads.
    pub(crate) fn open(file: &Path) -> Result<Self, OpenError> {
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
            connection.set_prepared_statement_cache_capacity(MAX_PREPARED_STATEMENTS);
            let queue = queue.clone();
            // One thread waits for work while it holds the lock; the others wait for the lock.
            let next = move || queue.lock().recv();
            std::thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || {
                    while let Ok(job) = next() {
                        job(&mut connection);
                    }
                })
                .map_err(OpenError::Thread)?;
        }
        Ok(ReaderPool { jobs })
    }

    /// Runs `work` on a reader thread.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let thread_ended =
            || StoreError::Unavailable("the thread of the database has ended".into());
        let job = Box::new(move |connection: &mut Connection| {
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| thread_ended())?;
        answer.await.map_err(|_| thread_ended())?
    }

    /// Runs a query and returns its rows.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        let params: Vec<Owned> = params.iter().map(to_owned).collect();
        let query = move |connection: &mut Connection| {
            let mut prepared = connection.prepare_cached(statement.sqlite)?;
            let mut found = Vec::new();
            bind(&mut prepared, params.iter())?;
            fetch(&mut prepared, read, &mut found)?;
            Ok(found)
        };
        self.call(query).await
    }
}

fn to_owned(param: &Param<'_>) -> Owned {
    match param {
        Param::Int(value) => Owned::Integer(*value),
        Param::MaybeInt(value) => value.map_or(Owned::Null, Owned::Integer),
        Param::Text(value) => Owned::Text((*value).to_owned()),
        Param::MaybeText(value) => value.map_or(Owned::Null, |text| Owned::Text(text.to_owned())),
        Param::Bytes(value) => Owned::Blob(value.to_vec()),
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
        self.connection.execute_batch("COMMIT").map_err(|error| {
            let is_unwritten = is_unwritten(&error);
            let error = StoreError::from(error);
            if is_unwritten { error } else { error.of_commit() }
        })?;
        self.open = false;
        Ok(())
    }

    fn prepare(&self, statement: &'static Statement) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(statement.sqlite)?)
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
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> Result<u64, StoreError> {
        let mut prepared = self.prepare(statement)?;
        bind(&mut prepared, params.iter().copied())?;
        Ok(prepared.raw_execute()? as u64)
    }

    async fn query<T: Send>(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
        read: FromRow<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        let mut prepared = self.prepare(statement)?;
        bind(&mut prepared, params.iter().copied())?;
        fetch(&mut prepared, read, &mut found)?;
        Ok(found)
    }

    async fn execute_each(
        &mut self,
        statement: &'static Statement,
        rows: &ParamRows<'_>,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        let mut prepared = self.prepare(statement)?;
        for row in 0..rows.count() {
            bind(&mut prepared, rows.columns().iter().map(|column| column.at(row)))?;
            changed += prepared.raw_execute()? as u64;
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
        let mut prepared = self.prepare(statement)?;
        for row in 0..rows.count() {
            bind(&mut prepared, rows.columns().iter().map(|column| column.at(row)))?;
            fetch(&mut prepared, read, &mut found)?;
        }
        Ok(found)
    }

    async fn flush(&mut self, writes: &mut PendingWrites<'_>) -> Result<(), StoreError> {
        for write in writes.take()? {
            let changed = self.execute_each(write.statement, &write.rows).await?;
            expect_affected(changed, write.expected)?;
        }
        Ok(())
    }
}

fn bind(
    prepared: &mut CachedStatement<'_>,
    params: impl Iterator<Item = impl ToSql>,
) -> Result<(), StoreError> {
    for (at, param) in params.enumerate() {
        prepared.raw_bind_parameter(at + 1, param)?;
    }
    Ok(())
}

fn fetch<T>(
    prepared: &mut CachedStatement<'_>,
    read: FromRow<T>,
    found: &mut Vec<T>,
) -> Result<(), StoreError> {
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(())
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Param::Int(value) => value.to_sql(),
            Param::MaybeInt(value) => value.to_sql(),
            Param::Text(value) => value.to_sql(),
            Param::MaybeText(value) => value.to_sql(),
            Param::Bytes(value) => value.to_sql(),
        }
    }
}

impl Row for rusqlite::Row<'_> {
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
mod tests;
