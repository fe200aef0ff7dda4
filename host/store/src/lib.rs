//! The database of a host: what is written commits together or not at all, and
//! what was committed survives. SQLite in a file, for one host, or Postgres, for
//! many on the same work.
//!
//! This crate alone knows SQL. Commits ([`Store::commit`], for everything on the
//! street of a state) come one after the other, and on SQLite all other writes with
//! them; reads go through a pool beside. Not here: what an outcome means; that is
//! planned by `exosphere_domain` and only applied here.

mod batch;
mod catalog;
mod check;
mod commit;
mod entries;
mod error;
mod inputs;
mod keyring;
mod lists;
mod namespaces;
mod notifications;
mod numbers;
mod open;
mod sql;
mod postgres;
mod reader;
mod reencrypt;
mod rows;
mod key_check;
mod session;
mod sqlite;
mod run_row;
mod text;
mod cipher;
mod view;

use std::sync::Arc;
use std::time::Duration;

pub use batch::{
    Answer, Batch, Committed, Finished, KnownRun, Leased, Leftover, Member, NewRun, RedrivePart,
    RunInfo, RunShare, Shares, Stage, Staged, Touched, Want,
};
pub use catalog::{
    AppliedGraph, ExporterRow, GraphRow, NewPlugin, PluginRow, Pushed, RevisionRow, SecretRows,
    description,
};
pub use check::{
    CheckError, Checked, Kind, More, Report, Rule, SHOWN, Violation, check, is_up_to_date,
};
pub use cipher::SecretCipher;
pub use error::{OpenError, StoreError};
pub use inputs::{MemberRow, OutputSize};
pub use keyring::{BadKeys, KEY_BYTES, KeyId, Keyring, MAX_KEYS};
pub use lists::{GraphEntry, Part, PluginEntry};
pub use namespaces::{Expected, NamespaceRow, Setting, grants_version, settings_version};
pub use notifications::{Listener, ListenerEvent, Notification, RunChange};
pub use numbers::Numbers;
pub use open::Database;
pub use reencrypt::{Resealed, Unopened};
pub use session::{Beat, LEASE, Lost, Unswept};
pub use view::{AttemptRow, FailureView, Page, RunFilter, RunView, StateFilter, StateView};

use numbers::Blocks;
use reader::{Pool, Reader};
use text::Tx;

/// A host's database. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    /// What executions read by: large gathers of one tenant are not to hold up
    /// what people, and cancels, read.
    executions: Pool,
    /// On Postgres: what a host's own beat and word go by, whatever else is
    /// busy.
    side: Option<postgres::Line>,
    numbers: Arc<Blocks>,
    vault: Arc<SecretCipher>,
}

/// Who writes.
#[derive(Clone)]
enum Writer {
    Sqlite(sqlite::Line),
    /// Commits have a connection of their own: a large plugin that is written
    /// meanwhile does not hold them up.
    Postgres {
        commits: postgres::Line,
        rest: postgres::Line,
    },
}

/// A transaction on a connection to SQLite, where work never waits.
macro_rules! on_sqlite {
    ($connection:expr, $now:expr, |$tx:ident| $work:expr) => {{
        let mut tx = $crate::sqlite::SqliteTx::begin($connection, $now)?;
        let $tx = &mut tx;
        let done = futures::FutureExt::now_or_never($work);
        let waited = || $crate::StoreError::Data("a transaction on SQLite waited".into());
        let done = done.ok_or_else(waited)??;
        tx.commit()?;
        Ok(done)
    }};
}
pub(crate) use on_sqlite;

/// A transaction on a line to Postgres.
macro_rules! on_postgres {
    ($line:expr, |$tx:ident| $work:expr) => {{
        let is_asked = std::sync::atomic::AtomicBool::new(false);
        let transaction = async {
            let mut tx = $line.begin().await?;
            let $tx = &mut tx;
            let done = $work.await;
            tx.end(done, &is_asked).await
        };
        let ended = $crate::postgres::within($crate::postgres::MOST, transaction).await;
        match is_asked.into_inner() {
            true => ended.map_err($crate::StoreError::of_commit),
            false => ended,
        }
    }};
}
pub(crate) use on_postgres;

/// Does something in a transaction: `write!(store, now, |tx| work(tx, ..))`.
/// The work is one text for both databases.
macro_rules! write {
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
pub(crate) use write;

/// Commits pieces on SQLite, where the next commit that is synced syncs them, too.
fn commit_unsynced(
    connection: &mut rusqlite::Connection,
    batch: &Batch,
) -> Result<Committed, StoreError> {
    on_sqlite!(connection, batch.now, |tx| commit::commit(tx, batch))
}

impl Store {
    /// The same database for executions: with connections of their own to read
    /// by, and reads that try again for so long if it is unavailable.
    pub fn patient(&self, patience: Duration) -> Store {
        let reader = Reader { pool: self.executions.clone(), patience };
        Store { reader, ..self.clone() }
    }

    /// Whether other hosts may work on it, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.writer, Writer::Postgres { .. })
    }

    /// Applies a batch in one transaction, and claims what there is room for.
    /// On SQLite it does so on the thread that asks for it and holds that up: a
    /// committer has one of its own, and saves the hand-over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Data`] if one of its members cannot be written; nothing
    /// of the batch is then, and the caller may try its parts.
    /// [`StoreError::Unavailable`] if it has not been written.
    /// [`StoreError::Unknown`] if it may have been; a member that is repeated then
    /// has no second effect, but what the commit claimed is to be looked for
    /// ([`Store::held_by`]).
    pub async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        match &self.writer {
            Writer::Sqlite(writer) => {
                let mut connection = writer.hold().await;
                if batch.is_durable() {
                    return on_sqlite!(&mut connection, batch.now, |tx| commit::commit(tx, &batch));
                }
                sqlite::sync_commits(&connection, false)?;
                let done = commit_unsynced(&mut connection, &batch);
                sqlite::sync_commits(&connection, true)?;
                done
            }
            Writer::Postgres { commits, .. } if batch.is_durable() => {
                on_postgres!(commits, |tx| commit::commit(tx, &batch))
            }
            Writer::Postgres { commits, .. } => {
                on_postgres!(commits, |tx| async {
                    tx.execute(sql::UNSYNCED, &[]).await?;
                    commit::commit(tx, &batch).await
                })
            }
        }
    }

    /// Gives up the connection by which it was committed, if it has one of its
    /// own: to be called on the runtime that committed, at its end.
    pub async fn end_commits(&self) {
        if let Writer::Postgres { commits, .. } = &self.writer {
            commits.close().await;
        }
    }

    /// Closes it, after the last commit: on SQLite, what is still in the log is
    /// written into the file itself.
    pub async fn close(&self) {
        self.reader.close().await;
        self.executions.close().await;
        if let Some(side) = &self.side {
            side.close().await;
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
