//! The one connection that writes, on a thread of its own: work is handed to
//! it and answered one after the other.
//!
//! rusqlite rather than sqlx writes here: its prepared statements need no
//! hand-over between threads for each statement (docs/performance.md has the
//! figures).

use std::path::Path;
use std::sync::mpsc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{OpenError, StoreError};

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Hands work to the writing thread, which ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(crate) fn open(file: &Path) -> Result<Self, OpenError> {
        let mut connection = Connection::open(file)?;
        // FULL: a commit is on the disk when it returns. Checkpoints of 16 MiB
        // at a time, since each costs two more syncs.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA busy_timeout = 5000;
             PRAGMA wal_autocheckpoint = 1000;
             PRAGMA cache_size = -65536;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Writer { jobs })
    }

    /// Runs `work` on the writing thread. Once handed over it is done, whether
    /// or not anyone waits for the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Unavailable("the writer has ended".into());
        let job = Box::new(move |connection: &mut Connection| {
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
