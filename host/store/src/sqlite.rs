//! SQLite: the one connection that writes, on a thread of its own. Work is
//! handed to it and answered one after the other.
//!
//! rusqlite rather than sqlx writes here: its prepared statements need no
//! hand-over between threads for each statement (docs/performance.md has the
//! figures).

use std::path::Path;
use std::sync::mpsc;

use exosphere_domain::ids::Millis;
use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, Row, ToSql};
use tokio::sync::oneshot;

use crate::error::{OpenError, StoreError};
use crate::text::{Cells, Read, Rows, Text, Tx, Value};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Statements that stay prepared.
const PREPARED: usize = 96;

/// Hands work to the writing thread, which ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(crate) fn open(file: &Path) -> Result<Self, OpenError> {
        let mut connection = Connection::open(file)?;
        // FULL: a commit is on the disk when it returns. Checkpoints of 16 MiB
        // at a time, since each costs two more syncs.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA busy_timeout = 5000;
             PRAGMA wal_autocheckpoint = 1000;
             PRAGMA cache_size = -65536;",
        )?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Writer { jobs })
    }

    /// Runs `work` on the writing thread. Once handed over it is done, whether
    /// or not anyone waits for the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Unavailable("the writer has ended".into());
        let job = Box::new(move |connection: &mut Connection| {
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A transaction on SQLite. Its futures never wait.
pub(crate) struct SqliteTx<'a> {
    connection: &'a mut Connection,
    now: Millis,
    open: bool,
}

impl<'a> SqliteTx<'a> {
    /// Begins; `now` is the host's clock, the only one there is.
    pub(crate) fn begin(connection: &'a mut Connection, now: Millis) -> Result<Self, StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(SqliteTx { connection, now, open: true })
    }

    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        // A commit that fails may leave the transaction open.
        self.connection.execute_batch("COMMIT")?;
        self.open = false;
        Ok(())
    }

    fn prepared(&self, text: &'static Text) -> Result<CachedStatement<'_>, StoreError> {
        Ok(self.connection.prepare_cached(text.sqlite)?)
    }
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

fn bind<'a>(
    statement: &mut CachedStatement<'_>,
    values: impl Iterator<Item = Value<'a>>,
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
mod tests;
