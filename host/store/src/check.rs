//! `exosphere check`: counts again what ARCHITECTURE.md promises of a database,
//! live or stopped, and reports each row that breaks it.
//!
//! It writes, makes and migrates nothing. All is read in one snapshot, so what
//! is in flight is seen before or after it, never in between. States come in
//! the order of their paths, a run after the other, so that a state is seen
//! with no more in hand than what stands above it: memory does not grow with a
//! run. The time it takes grows with the rows and the bytes of what is stored,
//! each of which is read once (docs/check.md has figures).
//!
//! Not here: invariants 6 (no guest outside of a sandbox), 7 (the domain has no
//! IO) and 9 (what was committed survives): they are no facts of a database.
//! Nor whether the database's own files are sound: that is known to `PRAGMA
//! integrity_check` and `amcheck`. Nor what the host decides: what a unite's
//! counts come to is asked of `exosphere_domain`.

mod report;
mod snapshot;
mod cells;
mod catalog;
mod loose;
mod state;
mod runs;
mod walk;
mod place;

use crate::error::{OpenError, StoreError};
use crate::open::Database;

pub use report::{Checked, Kind, More, Report, Rule, SHOWN, Violation};

use report::Findings;
use snapshot::{PgSnapshot, Snapshot, SqliteSnapshot};

/// Why a database was not checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no such file.
    #[error("there is no database {0}: name the data folder of a host, or a Postgres database")]
    NoFile(String),
    /// It is there, and no host has ever used it.
    #[error("this is no database of exosphere's: no host has ever been started on it")]
    Foreign,
    /// It lacks what this version would have brought it up to.
    #[error(
        "the database is at migration {has}, and this version of exosphere knows migration {wants}: use the version that wrote it, or start a host of this one on it first"
    )]
    Older {
        /// The last that it has.
        has: i64,
        /// The last that there is.
        wants: i64,
    },
    /// A migration was begun and not ended, or is not the one that is known by
    /// this number.
    #[error("migration {0} of the database is not as this version of exosphere would have made it")]
    Otherwise(i64),
    /// It cannot be opened, or is newer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read to the end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks a database.
///
/// # Errors
///
/// If it is not there, is another version's, or cannot be read to the end.
/// What it breaks is no error, but in the report.
pub async fn check(database: &Database) -> Result<Report, CheckError> {
    match database {
        Database::Sqlite(file) => {
            let file = file.clone();
            let work = move || {
                let mut snapshot = SqliteSnapshot::open(&file)?;
                let done = futures::FutureExt::now_or_never(recount(&mut snapshot));
                done.ok_or_else(|| StoreError::Data("a read on SQLite waited".into()))?
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|error| StoreError::Unavailable(error.to_string()))?
        }
        Database::Postgres(url) => {
            let mut snapshot = PgSnapshot::open(url).await?;
            let done = recount(&mut snapshot).await;
            snapshot.close().await;
            done
        }
    }
}

/// Refuses a database that is not there, or not this version's. It is left as it
/// is.
///
/// # Errors
///
/// If it is so, or cannot be read.
pub async fn ensure_current_schema(database: &Database) -> Result<(), CheckError> {
    match database {
        Database::Sqlite(file) => {
            let mut snapshot = SqliteSnapshot::open(file)?;
            snapshot::ensure_current_schema(&mut snapshot).await
        }
        Database::Postgres(url) => {
            let mut snapshot = PgSnapshot::open(url).await?;
            let done = snapshot::ensure_current_schema(&mut snapshot).await;
            snapshot.close().await;
            done
        }
    }
}

async fn recount(snapshot: &mut impl Snapshot) -> Result<Report, CheckError> {
    snapshot::ensure_current_schema(snapshot).await?;
    let mut findings = Findings::default();
    catalog::check(snapshot, &mut findings).await?;
    runs::check(snapshot, &mut findings).await?;
    loose::check(snapshot, &mut findings).await?;
    Ok(findings.report())
}
