//! Opens a database: parses its location and applies the migrations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::backend::postgres::{self, ConnectionSlot};
use crate::backend::reader::{Pool, Reader, RenewablePool};
use crate::backend::sqlite::{ReaderPool, WriterConnection};
use crate::error::OpenError;
use crate::unknown_commits::UnknownCommits;
use crate::{SecretCipher, Store, Writer, gauges, sql};

/// The location of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file. Only one host uses it at a time.
    Sqlite(PathBuf),
    /// The URL of a Postgres database, which many hosts may share.
    Postgres(String),
}

impl Store {
    /// Opens a database and applies the migrations; creates a missing SQLite file. Any number of
    /// hosts may do so concurrently.
    ///
    /// # Errors
    ///
    /// If it cannot be reached or written, a newer version has written it, or its secrets are
    /// encrypted under keys that the keyring lacks.
    pub async fn open(database: &Database, cipher: SecretCipher) -> Result<Store, OpenError> {
        let store = Store::open_without_key_check(database, cipher).await?;
        store.verify_keys().await?;
        Ok(store)
    }

    /// Opens a database without checking its keys, for callers that remove secrets whose keys are
    /// lost.
    ///
    /// # Errors
    ///
    /// If it cannot be reached or written, or a newer version has written it.
    pub async fn open_without_key_check(
        database: &Database,
        cipher: SecretCipher,
    ) -> Result<Store, OpenError> {
        match database {
            Database::Sqlite(file) => sqlite_store(file.clone(), cipher).await,
            Database::Postgres(url) => postgres_store(postgres::options(url)?, cipher).await,
        }
    }
}

async fn sqlite_store(file: PathBuf, cipher: SecretCipher) -> Result<Store, OpenError> {
    let mut connection = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Takes effect only while the file is empty. Measured in docs/internals/performance-log.md.
        .page_size(8192)
        .connect()
        .await
        .map_err(OpenError::Open)?;
    let migrator = sqlx::migrate!("../../migrations/sqlite");
    migrator.run(&mut connection).await.map_err(refused)?;
    connection.close().await.map_err(OpenError::Open)?;
    let readers = Pool::Sqlite(ReaderPool::open(&file)?);
    let executions = Pool::Sqlite(ReaderPool::open(&file)?);
    Ok(Store {
        writer: Writer::Sqlite(WriterConnection::open(&file)?),
        reader: Reader { pool: readers, retry_for: Duration::ZERO },
        executions,
        side: None,
        gauges: None,
        id_blocks: Arc::default(),
        cipher: Arc::new(cipher),
        actor: None,
    })
}

async fn postgres_store(
    options: PgConnectOptions,
    cipher: SecretCipher,
) -> Result<Store, OpenError> {
    let mut connection = options.connect().await.map_err(OpenError::Open)?;
    // The migrator holds a lock of the database meanwhile.
    let migrator = sqlx::migrate!("../../migrations/postgres");
    migrator.run(&mut connection).await.map_err(refused)?;
    warn_of_loss(&mut connection).await.map_err(OpenError::Open)?;
    connection.close().await.map_err(OpenError::Open)?;
    Ok(Store {
        writer: Writer::Postgres {
            commits: ConnectionSlot::new(options.clone()),
            rest: ConnectionSlot::new(options.clone()),
            unknown: UnknownCommits::default(),
        },
        reader: Reader {
            pool: Pool::Postgres(Arc::new(RenewablePool::new(options.clone()))),
            retry_for: Duration::ZERO,
        },
        executions: Pool::Postgres(Arc::new(RenewablePool::new(options.clone()))),
        side: Some(ConnectionSlot::new(options.clone())),
        gauges: Some(gauges::connection(options)),
        id_blocks: Arc::default(),
        cipher: Arc::new(cipher),
        actor: None,
    })
}

fn refused(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer { version },
        other => OpenError::Migrate(other),
    }
}

/// Warns if Postgres may lose commits when the machine fails. Commits are meant to survive
/// that. An operator may switch the protection off, but must be warned.
async fn warn_of_loss(connection: &mut PgConnection) -> sqlx::Result<()> {
    let (commit, sync): (String, String) =
        sqlx::query_as(sql::DURABILITY).fetch_one(connection).await?;
    if commit == "off" || sync == "off" {
        tracing::warn!(
            synchronous_commit = commit,
            fsync = sync,
            "this Postgres may lose what was committed when its machine fails; switch both on"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
