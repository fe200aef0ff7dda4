//! The database of a host: what is written commits together or not at all, and
//! what was committed survives.
//!
//! This crate alone knows SQL. Writes go through one connection on a thread of
//! its own ([`Store::commit`] for everything on the street of a state), reads
//! through a pool beside it. Not here: what an outcome means; that is planned
//! by `exosphere_domain` and only applied here.

mod batch;
mod catalog;
mod commit;
mod entries;
mod error;
mod inputs;
mod rows;
mod sql;
mod tally;
mod vault;
mod view;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use exosphere_domain::ids::{Ids, Millis, RunKey, SessionId, StateId};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

pub use batch::{
    Answer, Batch, Committed, Finished, Leased, Member, NewRun, RunInfo, Touched, Want,
};
pub use catalog::{AppliedGraph, GraphRow, NewPlugin, PluginRow, Pushed, RevisionRow};
pub use error::{OpenError, StoreError};
pub use inputs::MemberRow;
pub use vault::Vault;
pub use view::{AttemptRow, Page, RunFilter, RunView, StateFilter, StateView};

use writer::Writer;

/// Readers beside the one writer.
const READERS: u32 = 4;

/// A host's database. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: SqlitePool,
    ids: Arc<Sequence>,
    runs: Arc<AtomicI64>,
    vault: Arc<Vault>,
}

/// Numbers for new states. One host writes a SQLite database, so they can be
/// counted in memory; one that is not used in the end is lost, which is fine.
pub struct Sequence(AtomicI64);

impl Ids for Sequence {
    fn next(&self) -> StateId {
        StateId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Store {
    /// Opens the database in `file`, makes it if it is not there, and brings
    /// it up to date.
    pub async fn open(file: &Path, vault: Vault) -> Result<Store, OpenError> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        migrate(&options).await?;
        let writer = Writer::open(file)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).pragma("cache_size", "-16384"))
            .await
            .map_err(OpenError::Open)?;
        let (states, runs) = writer
            .call(|connection| {
                let last = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
                Ok((last(sql::LAST_STATE)?, last(sql::LAST_RUN)?))
            })
            .await
            .map_err(OpenError::Store)?;
        Ok(Store {
            writer,
            readers,
            ids: Arc::new(Sequence(AtomicI64::new(states + 1))),
            runs: Arc::new(AtomicI64::new(runs + 1)),
            vault: Arc::new(vault),
        })
    }

    /// Where the numbers of new states come from.
    pub fn ids(&self) -> &Sequence {
        &self.ids
    }

    /// A number for a new run.
    pub fn new_run_key(&self) -> RunKey {
        RunKey(self.runs.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a session. Whatever an earlier one holds is lost to it, since a
    /// data folder has one host at a time.
    pub async fn begin_session(&self, now: Millis) -> Result<SessionId, StoreError> {
        self.writer
            .call(move |connection| {
                connection.execute(sql::END_SESSIONS, [now])?;
                let id = connection.query_row(sql::BEGIN_SESSION, [now], |row| row.get(0))?;
                Ok(SessionId(id))
            })
            .await
    }

    /// Ends a session in good order: it holds nothing any more.
    pub async fn end_session(&self, session: SessionId, now: Millis) -> Result<(), StoreError> {
        self.writer
            .call(move |connection| {
                connection.execute(sql::END_SESSION, [session.0, now])?;
                Ok(())
            })
            .await
    }

    /// Applies a batch in one transaction, and claims what there is room for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Data`] if one of its members cannot be written; nothing
    /// of the batch is then, and the caller may try its parts.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let ids = self.ids.clone();
        self.writer.call(move |connection| commit::commit(connection, &*ids, batch)).await
    }

    /// Writes what is still in the log into the database itself, and closes.
    pub async fn close(&self) {
        self.readers.close().await;
        let _ = self
            .writer
            .call(|connection| Ok(connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?))
            .await;
    }
}

/// Runs the migrations that the file has not seen.
async fn migrate(options: &SqliteConnectOptions) -> Result<(), OpenError> {
    use sqlx::migrate::MigrateError;
    use sqlx::{ConnectOptions, Connection};
    let mut connection = options
        .clone()
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        // Only heeded while the file is empty: larger pages write less often.
        .page_size(16384)
        .connect()
        .await
        .map_err(OpenError::Open)?;
    sqlx::migrate!("../../migrations/sqlite").run(&mut connection).await.map_err(|error| {
        match error {
            MigrateError::VersionMissing(version) => OpenError::Newer { version },
            other => OpenError::Migrate(other),
        }
    })?;
    connection.close().await.map_err(OpenError::Open)
}
