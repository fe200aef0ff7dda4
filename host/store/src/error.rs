//! Database errors, split by what the caller can do.

use exosphere_domain::plan::GraphMismatch;
use exosphere_domain::quota::QuotaBreach;
use rusqlite::ErrorCode;
use sqlx::migrate::MigrateError;

/// The reason why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be parsed.
    #[error("{0}; a Postgres database is named postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(sqlx::Error),
    /// The URL's scheme is not that of Postgres.
    #[error("a Postgres database is named postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Scheme,
    /// The database cannot be opened or created.
    #[error("the database cannot be opened: {}", message(.0))]
    Open(sqlx::Error),
    /// The writer's connection cannot be opened.
    #[error("the database cannot be opened for writing: {0}")]
    Writer(#[from] rusqlite::Error),
    /// A migration failed.
    #[error("the database cannot be brought up to date: {}", migration_message(.0))]
    Migrate(MigrateError),
    /// The database was written by a newer version.
    #[error(
        "the database has migration {version}, which this version of exosphere does not know: \
         it was written by a newer one; use that"
    )]
    Newer {
        /// The first unknown migration.
        version: i64,
    },
    /// The database was opened but cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A reader thread cannot be started.
    #[error("a thread that reads the database cannot be started: {0}")]
    Thread(std::io::Error),
    /// Secrets are encrypted under keys that this host lacks.
    #[error(
        "the secrets in this database are encrypted with the key {lacking}, and this host has {has}: \
         give it the key file of the other hosts with --key, or their keys in EXOSPHERE_MASTER_KEY. \
         If that key is lost, so is what it encrypted: `exosphere secrets reseal --forget-lost` gives it up, \
         and the graphs are applied again with their secrets"
    )]
    OtherKey {
        /// The ids of the missing keys.
        lacking: String,
        /// The ids of this host's keys.
        has: String,
    },
}

/// The reason why a read or write failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Invalid data: a violated constraint, a row that no transition could have written, or a value
    /// that is too big. A retry does not help.
    #[error("the data are refused: {0}")]
    Data(String),
    /// The current contents of the database do not allow the write. The message is for callers.
    #[error("{0}")]
    Refused(String),
    /// The value to replace is not the expected one.
    #[error("it has changed since it was read")]
    Changed,
    /// A quota of the namespace forbids the change; nothing was written.
    #[error("the quota {} is {}, and {} are used", .0.quota, .0.value, .0.used)]
    Quota(QuotaBreach),
    /// A conflict between two transactions, of which this one was rolled back. An immediate retry
    /// helps.
    #[error("another transaction was in the way: {0}")]
    Contention(String),
    /// The database is full, read-only or unreachable. A later retry may help. If this was a
    /// commit, it has not succeeded.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database was asked to commit and did not answer: the commit may have succeeded.
    #[error("it is not known whether the database has committed: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Converts the error of a COMMIT to one with an unknown result, if there was no answer.
    pub(crate) fn of_commit(self) -> Self {
        match self {
            StoreError::Unavailable(cause) => StoreError::Unknown(cause),
            other => other,
        }
    }
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
        if data {
            StoreError::Data(error.to_string())
        } else {
            StoreError::Unavailable(error.to_string())
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let message = message(&error);
        match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Data(message),
            sqlx::Error::Database(refused) => match refused.code() {
                Some(code) => by_code(&code, message),
                None => StoreError::Unavailable(message),
            },
            _ => StoreError::Unavailable(message),
        }
    }
}

/// Returns the message of an error. That of a database comes without the line of its own source
/// where it arose, which the library adds.
fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refused) => match refused.code() {
            Some(code) => format!("{} (code {code})", refused.message()),
            None => refused.message().to_owned(),
        },
        other => other.to_string(),
    }
}

/// Returns the message of a failed migration, like [`message`].
fn migration_message(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) => message(error),
        MigrateError::ExecuteMigration(error, version) => {
            format!("migration {version}: {}", message(error))
        }
        other => other.to_string(),
    }
}

/// Classifies an SQLSTATE (appendix A of Postgres's manual; the first two characters are its
/// class). SQLite's codes are shorter.
fn by_code(code: &str, message: String) -> StoreError {
    match code.get(..2).filter(|_| code.len() == 5) {
        // Data, integrity, an invalid statement of this crate, a value too big.
        Some("22" | "23" | "42" | "54") => StoreError::Data(message),
        // A serialization failure or a deadlock.
        Some("40") => StoreError::Contention(message),
        _ => StoreError::Unavailable(message),
    }
}

impl From<GraphMismatch> for StoreError {
    fn from(misfit: GraphMismatch) -> Self {
        StoreError::Data(misfit.to_string())
    }
}

/// Returns the error for a value that no transition could have written.
pub(crate) fn corrupt_row(table: &str, column: &str, row: impl std::fmt::Display) -> StoreError {
    StoreError::Data(format!(
        "table {table}, column {column}, row {row}: not a value that exosphere writes"
    ))
}
