//! Opens a database: parses its location and applies the migrations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::error::OpenError;
use crate::postgres::Line;
use crate::reader::{Lines, Pool, Reader};
use crate::sqlite::{self, Threads};
use crate::{SecretCipher, Store, Writer, postgres, sql};

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
    /// hosts may do so at once.
    ///
    /// # Errors
    ///
    /// If it cannot be reached or written, a newer version has written it, or its secrets are
    /// encrypted under keys that the keyring lacks.
    pub async fn open(database: &Database, vault: SecretCipher) -> Result<Store, OpenError> {
        let store = Store::open_unproven(database, vault).await?;
        store.prove_keys().await?;
        Ok(store)
    }

    /// Opens a database without checking its keys, for callers that remove secrets whose keys are
    /// lost.
    ///
    /// # Errors
    ///
    /// If it cannot be reached or written, or a newer version has written it.
    pub async fn open_unproven(
        database: &Database,
        vault: SecretCipher,
    ) -> Result<Store, OpenError> {
        match database {
            Database::Sqlite(file) => sqlite_store(file.clone(), vault).await,
            Database::Postgres(url) => postgres_store(postgres::options(url)?, vault).await,
        }
    }
}

async fn sqlite_store(file: PathBuf, vault: SecretCipher) -> Result<Store, OpenError> {
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
    let readers = Pool::Sqlite(Threads::readers(&file)?);
    let executions = Pool::Sqlite(Threads::readers(&file)?);
    Ok(Store {
        writer: Writer::Sqlite(sqlite::Line::open(&file)?),
        reader: Reader { pool: readers, patience: Duration::ZERO },
        executions,
        side: None,
        numbers: Arc::default(),
        vault: Arc::new(vault),
    })
}

async fn postgres_store(
    options: PgConnectOptions,
    vault: SecretCipher,
) -> Result<Store, OpenError> {
    let mut connection = options.connect().await.map_err(OpenError::Open)?;
    // The migrator holds a lock of the database meanwhile.
    let migrator = sqlx::migrate!("../../migrations/postgres");
    migrator.run(&mut connection).await.map_err(refused)?;
    warn_of_loss(&mut connection).await.map_err(OpenError::Open)?;
    connection.close().await.map_err(OpenError::Open)?;
    Ok(Store {
        writer: Writer::Postgres {
            commits: Line::new(options.clone()),
            rest: Line::new(options.clone()),
        },
        reader: Reader {
            pool: Pool::Postgres(Arc::new(Lines::new(options.clone()))),
            patience: Duration::ZERO,
        },
        executions: Pool::Postgres(Arc::new(Lines::new(options.clone()))),
        side: Some(Line::new(options)),
        numbers: Arc::default(),
        vault: Arc::new(vault),
    })
}

fn refused(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer { version },
        other => OpenError::Migrate(other),
    }
}

/// Warns if Postgres may lose commits with the machine. A commit is promised to outlive it; an
/// operator may switch that off, but must be told.
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
