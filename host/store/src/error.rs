//! What can go wrong with a database, split by what the caller can do.

use exosphere_domain::plan::Misfit;
use rusqlite::ErrorCode;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened or made at all.
    #[error("the database cannot be opened: {0}")]
    Open(sqlx::Error),
    /// The writer's connection cannot be opened.
    #[error("the database cannot be opened for writing: {0}")]
    Writer(#[from] rusqlite::Error),
    /// A migration failed.
    #[error("the database cannot be brought up to date: {0}")]
    Migrate(sqlx::migrate::MigrateError),
    /// It was written by a later version.
    #[error(
        "the database has migration {version}, which this version of exosphere does not know: it was written by a newer one; use that"
    )]
    Newer {
        /// The first unknown migration.
        version: i64,
    },
    /// It was opened and cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// The writer's thread cannot be started.
    #[error("the writer's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data themselves: a constraint, a row that no transition has
    /// written, a value that is too big. Trying again will not help.
    #[error("the data are refused: {0}")]
    Data(String),
    /// The database: full, read-only, gone. Trying again may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let data = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => matches!(
                failure.code,
                ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch
            ),
            _ => true,
        };
        match data {
            true => StoreError::Data(error.to_string()),
            false => StoreError::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                StoreError::Data(error.to_string())
            }
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}

impl From<Misfit> for StoreError {
    fn from(misfit: Misfit) -> Self {
        StoreError::Data(misfit.to_string())
    }
}
