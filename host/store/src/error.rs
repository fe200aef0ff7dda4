//! What can go wrong with a database, split by what the caller can do.

use exosphere_domain::plan::Misfit;
use rusqlite::ErrorCode;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Where it is cannot be read.
    #[error("{0}; a Postgres database is named postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(sqlx::Error),
    /// It is named in another way than Postgres is.
    #[error("a Postgres database is named postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Scheme,
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
    Store(#[from] StoreError),
    /// A thread that reads cannot be started.
    #[error("a thread that reads the database cannot be started: {0}")]
    Thread(std::io::Error),
    /// Its secrets are sealed under keys that are not here.
    #[error(
        "the secrets in this database are sealed under the key {lacking}, and this host has {has}: \
         give it the key file of the other hosts with --key, or their keys in EXOSPHERE_MASTER_KEY. \
         If that key is lost, what it has sealed is, too: `exosphere secrets reseal --forget-lost` gives it up, \
         and the graphs are applied again with their secrets"
    )]
    OtherKey {
        /// The ids of keys that are needed.
        lacking: String,
        /// The ids of those that are here.
        has: String,
    },
}

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data themselves: a constraint, a row that no transition has
    /// written, a value that is too big. Trying again will not help.
    #[error("the data are refused: {0}")]
    Data(String),
    /// Two transactions stood in each other's way, and this one is undone.
    /// Trying again at once will help.
    #[error("another transaction was in the way: {0}")]
    Contention(String),
    /// The database: full, read-only, gone. Trying again later may help. If it
    /// was a commit, it has not gone through.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database was asked to commit and did not answer: the commit may have
    /// gone through.
    #[error("it is not known whether the database has committed: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Returns the error of a transaction whose end was asked for.
    pub(crate) fn of_commit(self) -> Self {
        match self {
            StoreError::Unavailable(why) => StoreError::Unknown(why),
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
        match data {
            true => StoreError::Data(error.to_string()),
            false => StoreError::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let words = error.to_string();
        match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Data(words),
            sqlx::Error::Database(refused) => match refused.code() {
                Some(code) => by_code(&code, words),
                None => StoreError::Unavailable(words),
            },
            _ => StoreError::Unavailable(words),
        }
    }
}

/// What an SQLSTATE means to the caller (appendix A of Postgres's manual; its
/// first two characters are its class). SQLite's codes are shorter.
fn by_code(code: &str, words: String) -> StoreError {
    match code.get(..2).filter(|_| code.len() == 5) {
        // Data, integrity, a statement of ours that is wrong, a value too big.
        Some("22" | "23" | "42" | "54") => StoreError::Data(words),
        // A serialization failure or a deadlock.
        Some("40") => StoreError::Contention(words),
        _ => StoreError::Unavailable(words),
    }
}

impl From<Misfit> for StoreError {
    fn from(misfit: Misfit) -> Self {
        StoreError::Data(misfit.to_string())
    }
}
