//! The database of a host: the writes of a transaction commit together or not at all, and committed
//! data survives. SQLite in a file, for one host, or Postgres, for many hosts on the same work.
//!
//! This crate alone knows SQL. Commits ([`Store::commit`], for everything on the path of a state)
//! come one after the other, and on SQLite all other writes with them. Reads use a separate pool.
//! Not here: what an outcome means; `exosphere_domain` plans that, and this crate only applies the
//! plan.

//!
//! Layout: `open` opens a database, and `types` has the values that the modules exchange. A
//! statement in two dialects, its parameters and its rows belong to `dialect`; the statements
//! themselves are in `sql`, and the connections that run them in `backend`. `commit` applies a
//! batch of the committer in one transaction. Further modules have the sessions of hosts and
//! the blocks of numbers, the catalog with namespaces and secrets, and the reads. `check`
//! verifies all of it.

mod open;
mod error;
mod types;
mod dialect;
mod sql;
mod codec;
mod backend;
mod commit;
mod id_blocks;
mod sessions;
mod gauges;
mod unknown_commits;
mod catalog;
mod deletion;
mod revisions;
mod pauses;
mod bulk;
mod namespaces;
mod quotas;
mod api_keys;
mod audit;
mod secrets;
mod reads;
mod check;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use api_keys::{ApiKeyRow, KeyCreation, MAX_API_KEYS, NewApiKey, Revocation};
pub use audit::{AuditEntry, AuditFilter, AuditRow};
pub use backend::notifications::{Listener, ListenerEvent, Notification, RunChange};
pub use bulk::{BulkBegin, BulkCancel, BulkPage, BulkView, MAX_RUNNING_BULKS, NewBulk, RunCount};
pub use catalog::{
    AppliedGraph, ExporterRow, GraphRow, NewPlugin, PluginRow, Pushed, RevisionRow, SecretRows,
    description,
};
pub use check::{
    CheckError, CheckedRows, Kind, MAX_REPORTED_PER_KIND, More, Report, Rule, Violation, check,
    ensure_current_schema,
};
pub use commit::batch::{
    Batch, ClaimMode, ClaimShares, Committed, Control, ExistingRun, Finished, Leftover, NewRun,
    Operation, RedrivePart, Reply, RunShare, Stage, Staged, StagedQueues,
};
pub use commit::bulk::BulkStep;
pub use commit::commit_counts::{ByKind, CommitCounts, RunCommitCounts};
pub use commit::deadlines::PendingDeadline;
pub use commit::report::{AttemptEnd, CommitReport, EndedAttempt, EndedRun, ReportedRun};
pub use deletion::{GraphDeletion, MAX_RUNS_WITH_GRAPH, PluginRemoval, Removal, Uploads};
pub use error::{OpenError, StoreError};
pub use gauges::{DatabaseGauges, MAX_COUNTED_STATES};
pub use id_blocks::IdBlock;
pub use namespaces::{Expected, NamespaceRow, Setting, grants_version, settings_version};
pub use open::Database;
pub use pauses::{GraphPause, NewPause, Pause, PendingPause, RunsFrom};
pub use quotas::quotas_version;
pub use reads::inputs::{MemberRow, OutputSize};
pub use reads::lists::{GraphEntry, PageRequest, PluginEntry};
pub use reads::logs::{AttemptLog, BadLogCursor, LogCursor, LogPageRequest};
pub use reads::open_states::{Holder, LeafKind, OpenState};
pub use reads::results::{ResultState, RunStart, StateSources};
pub use reads::run_list::{BadCursor, ListedRun, RunCursor, RunPageRequest};
pub use reads::spans::{StateRange, SuccessfulAttempt};
pub use reads::state_list::StatePageRequest;
pub use reads::views::{AttemptRow, FailureView, Page, RunCounters, RunView, StateView};
pub use revisions::RevisionEntry;
pub use secrets::keyring::{BadKeys, KEY_BYTES, KeyId, Keyring, MAX_KEYS};
pub use secrets::reencrypt::{LostSecrets, Reencrypted};
pub use secrets::secret_cipher::SecretCipher;
pub use secrets::settings::{SecretName, SecretSetting};
pub use sessions::{Heartbeat, HostIdentity, HostView, LEASE, LostClaim, PendingSweep};
pub use types::{ClaimedState, RunInfo, RunUpdate};

use exosphere_domain::access::Actor;

use backend::postgres::ConnectionSlot;
use backend::reader::{Pool, Reader};
use backend::sqlite::{self, WriterConnection};
use dialect::Tx;
use id_blocks::IdBlocks;
use unknown_commits::UnknownCommits;

/// A host's database. Cheap to clone: all clones share it.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    /// The read pool of executions: large gathers of one tenant must not delay API reads and
    /// cancels.
    executions: Pool,
    /// The connection for heartbeats and notifications on Postgres, which works while the others
    /// are busy.
    side: Option<ConnectionSlot>,
    /// The connection for figures of the whole database on Postgres.
    gauges: Option<ConnectionSlot>,
    id_blocks: Arc<IdBlocks>,
    cipher: Arc<SecretCipher>,
    /// The caller whose changes this handle records in the audit log.
    actor: Option<Arc<Actor>>,
}

/// The connections that write.
#[derive(Clone)]
enum Writer {
    Sqlite(WriterConnection),
    /// Commits have a connection of their own, so that writing a large plugin does not delay them.
    Postgres {
        commits: ConnectionSlot,
        rest: ConnectionSlot,
        unknown: UnknownCommits,
    },
}

/// Runs a transaction on a connection to SQLite, where work never waits.
macro_rules! on_sqlite {
    ($connection:expr, $now:expr, |$tx:ident| $work:expr) => {{
        let mut tx = $crate::backend::sqlite::SqliteTx::begin($connection, $now)?;
        let $tx = &mut tx;
        let done = futures::FutureExt::now_or_never($work);
        let waited = || $crate::StoreError::Data("a transaction on SQLite waited".into());
        let done = done.ok_or_else(waited)??;
        tx.commit()?;
        Ok(done)
    }};
}
pub(crate) use on_sqlite;

/// Runs a transaction on a connection to Postgres.
macro_rules! on_postgres {
    ($slot:expr, |$tx:ident| $work:expr) => {{
        let is_asked = std::sync::atomic::AtomicBool::new(false);
        let transaction = async {
            let mut tx = $slot.begin().await?;
            let $tx = &mut tx;
            let done = $work.await;
            tx.end(done, &is_asked).await
        };
        let limit = $crate::backend::postgres::TRANSACTION_TIMEOUT;
        let ended = $crate::backend::postgres::with_timeout(limit, transaction).await;
        if is_asked.into_inner() { ended.map_err($crate::StoreError::of_commit) } else { ended }
    }};
}
pub(crate) use on_postgres;

/// Runs work in a transaction: `in_transaction!(store, now, |tx| work(tx, ..))`. The same code
/// serves both databases.
macro_rules! in_transaction {
    ($store:expr, $now:expr, |$tx:ident| $work:expr) => {
        match &$store.writer {
            $crate::Writer::Sqlite(writer) => {
                let now = $now;
                writer.call(move |it| $crate::on_sqlite!(it, now, |$tx| $work)).await
            }
            $crate::Writer::Postgres { rest, .. } => $crate::on_postgres!(rest, |$tx| $work),
        }
    };
}
pub(crate) use in_transaction;

/// Commits staged pieces on SQLite unsynced; the next synced commit syncs them, too.
fn commit_unsynced(
    connection: &mut rusqlite::Connection,
    batch: &Batch,
) -> Result<Committed, StoreError> {
    on_sqlite!(connection, batch.now, |tx| commit::commit(tx, batch))
}

impl Store {
    /// Returns a handle to the same database for executions. It has read connections of its own,
    /// and retries reads for `retry_for` while the database is unavailable.
    pub fn with_read_retries(&self, retry_for: Duration) -> Store {
        let reader = Reader { pool: self.executions.clone(), retry_for };
        Store { reader, ..self.clone() }
    }

    /// Returns whether other hosts may use this database, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.writer, Writer::Postgres { .. })
    }

    /// Applies a batch in one transaction, and claims states up to its quotas. On SQLite this
    /// blocks the calling thread: a committer has one of its own, and saves the hand-over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Data`] if an operation cannot be written; then none of the batch is, and the
    /// caller may try its parts. [`StoreError::Unavailable`] if the batch was not written.
    /// [`StoreError::Unknown`] if it may have been. Repeating an operation then has no second
    /// effect, but the caller must look for states that the commit claimed ([`Store::held_by`]).
    pub async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        match &self.writer {
            Writer::Sqlite(writer) => {
                let mut connection = writer.acquire().await;
                if batch.is_durable() {
                    return on_sqlite!(&mut connection, batch.now, |tx| commit::commit(tx, &batch));
                }
                sqlite::sync_commits(&connection, false)?;
                let done =
                    catch_unwind(AssertUnwindSafe(|| commit_unsynced(&mut connection, &batch)));
                // This runs after a panic, too, so that later commits of this connection are durable.
                let synced = sqlite::sync_commits(&connection, true);
                let done = done.unwrap_or_else(|panic| resume_unwind(panic))?;
                synced.map_err(|error| StoreError::Unknown(error.to_string()))?;
                Ok(done)
            }
            Writer::Postgres { commits, unknown, .. } => {
                let committed = on_postgres!(commits, |tx| async {
                    if !batch.is_durable() {
                        tx.execute(sql::UNSYNCED, &[]).await?;
                    }
                    unknown.resolve(tx).await?;
                    let mut done = commit::commit(tx, &batch).await?;
                    unknown.begin(tx.id(), &mut done);
                    Ok(done)
                });
                unknown.settle(committed)
            }
        }
    }

    /// Closes the connection of commits, if they have their own. Call it at the end, on the runtime
    /// that committed.
    pub async fn end_commits(&self) {
        if let Writer::Postgres { commits, .. } = &self.writer {
            commits.close().await;
        }
    }

    /// Closes the database, after the last commit. On SQLite this writes the rest of the log into
    /// the file itself.
    pub async fn close(&self) {
        self.reader.close().await;
        self.executions.close().await;
        for connection in self.side.iter().chain(&self.gauges) {
            connection.close().await;
        }
        match &self.writer {
            Writer::Sqlite(writer) => {
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                let _ = writer.call(|connection| Ok(connection.execute_batch(checkpoint)?)).await;
            }
            Writer::Postgres { rest, .. } => rest.close().await,
        }
    }
}
