//! Checkpoints of SQLite's log (WAL): they copy the pages of the log into the database file,
//! with two syncs, so that the log can restart. A thread of its own does most of them, so that
//! commits need not wait.
//!
//! A log restarts only after a checkpoint that no commit followed. Under steady load the thread
//! never reaches that point; so the writer itself does a checkpoint when the log is large. It
//! copies the few pages that the thread has left.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::error::OpenError;

/// Number of pages by which the log grows between two checkpoints of the thread: 16 MiB.
const BACKGROUND_PAGES: i32 = 2_000;

/// Number of pages of the log from which the writer runs a checkpoint: 128 MiB.
const WRITER_PAGES: i32 = 8 * BACKGROUND_PAGES;

thread_local! {
    /// Number of pages of the log after the last commit of this thread, until they are reported
    /// to the thread of checkpoints.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The thread that does checkpoints. It ends when this is dropped.
pub(super) struct Checkpoints {
    wanted: SyncSender<()>,
    /// Held during a checkpoint. SQLite does one at a time, and a second one returns at once
    /// without having copied anything; the writer waits here instead, so that the log is bounded
    /// on a slow disk, too.
    under_way: Arc<Mutex<()>>,
    /// Pages of the log when the last checkpoint was asked for; 0 in a log that has restarted.
    asked_at: i32,
}

impl Checkpoints {
    /// Starts the thread for the database of `writer`. [`Checkpoints::after_commit`] then
    /// requests the checkpoints of `writer`'s commits instead of SQLite.
    pub(super) fn start(file: &Path, writer: &Connection) -> Result<Self, OpenError> {
        writer.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(pages);
            Ok(())
        }));
        let connection = Connection::open(file)?;
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        // One signal is enough: it covers all commits before the checkpoint.
        let (wanted, signals) = sync_channel(1);
        let under_way = Arc::<Mutex<()>>::default();
        let lock = under_way.clone();
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || run(&connection, &signals, &lock))
            .map_err(OpenError::Thread)?;
        Ok(Checkpoints { wanted, under_way, asked_at: 0 })
    }

    /// Requests a checkpoint if the commits of this thread have made the log large enough.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let pages = LOG_PAGES.take();
        if pages == 0 {
            return;
        }
        if pages < self.asked_at {
            self.asked_at = 0;
        }
        if pages >= WRITER_PAGES {
            let _lock = self.under_way.lock();
            checkpoint(writer);
        } else if pages - self.asked_at >= BACKGROUND_PAGES {
            self.asked_at = pages;
            // An error means that a signal is there already.
            let _ = self.wanted.try_send(());
        }
    }
}

fn run(connection: &Connection, signals: &Receiver<()>, under_way: &Mutex<()>) {
    while signals.recv().is_ok() {
        let _lock = under_way.lock();
        checkpoint(connection);
    }
}

/// Runs a checkpoint that does not wait for other connections. If it fails, the log still has
/// all pages, and a later one copies them.
fn checkpoint(connection: &Connection) {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::warn!(%error, "the log of the database cannot be copied into it yet");
    }
}
