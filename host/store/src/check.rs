//! `exosphere check`: verifies ARCHITECTURE.md's invariants against a database, live or stopped,
//! and reports each row that violates one.
//!
//! The check writes, creates and migrates nothing. It reads everything in one snapshot, so that a
//! transaction in flight is seen before or after it, never in between. States are read in the order
//! of their paths, one run after the other. For each state only its ancestors are in memory, so
//! memory does not grow with a run. The time grows with the stored rows and bytes, each of which is
//! read once (docs/guides/check.md has figures).
//!
//! Not here: invariants 6 (no guest outside of a sandbox), 7 (the domain has no IO) and 9
//! (committed data survives): a database does not show them. Nor the soundness of the database's
//! own files, which `PRAGMA integrity_check` and `amcheck` verify. Nor the host's decisions:
//! `exosphere_domain` judges a unite's counts.

mod snapshot;
mod report;
mod row_reader;
mod catalog;
mod runs;
mod run_row;
mod state;
mod walk;
mod ancestry;
mod orphans;
mod labels;
mod bulk;

use crate::error::{OpenError, StoreError};
use crate::open::Database;

pub use report::{CheckedRows, Kind, MAX_REPORTED_PER_KIND, More, Report, Rule, Violation};

use report::Findings;
use snapshot::{PgSnapshot, Snapshot, SqliteSnapshot};

/// The reason why a database was not checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file does not exist.
    #[error("there is no database {0}: name the data folder of a host, or a Postgres database")]
    NoFile(String),
    /// The database exists, but no host has ever used it.
    #[error("this is not a database of exosphere: no host has ever been started on it")]
    Foreign,
    /// The database lacks migrations of this version.
    #[error(
        "the database is at migration {has}, and this version of exosphere knows migration \
         {expected}: use the version that wrote it, or start a host of this one on it first"
    )]
    Older {
        /// The database's last migration.
        has: i64,
        /// The last migration of this version.
        expected: i64,
    },
    /// The migration of this number is incomplete, or differs from this version's.
    #[error("migration {0} of the database is not as this version of exosphere would have made it")]
    Otherwise(i64),
    /// The database cannot be opened, or is newer than this version.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read to the end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks a database against the invariants.
///
/// # Errors
///
/// If the database is missing, belongs to another version, or cannot be read to the end. A
/// violation is not an error: it is part of the report.
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

/// Refuses a database that is missing or has another schema version. The database stays as it is.
///
/// # Errors
///
/// If the database is refused, or cannot be read.
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
    orphans::check(snapshot, &mut findings).await?;
    labels::check(snapshot, &mut findings).await?;
    bulk::check(snapshot, &mut findings).await?;
    Ok(findings.report())
}
