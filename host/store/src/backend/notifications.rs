//! LISTEN and NOTIFY between hosts that share a database: there is work, or a run has changed.
//! Correctness does not depend on notifications: the next heartbeat finds what a host has missed.

use std::time::Duration;

use exosphere_domain::ids::RunKey;
use exosphere_domain::json;
use exosphere_domain::outage_backoff::Backoff;
use exosphere_domain::state::RunStatus;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgListener;

use crate::error::StoreError;
use crate::types::RunUpdate;
use crate::{Store, sql};

/// Backoff before the listener reconnects: the first pause and the longest.
const RECONNECT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5));

/// The timeout of a NOTIFY.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// A notification from one host to the others. Postgres carries less than 8,000 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The session of the sending host, which ignores its own notifications.
    pub from: i64,
    /// Set if there are states to claim.
    pub work: bool,
    /// Set if keys of the API were revoked.
    #[serde(default)]
    pub keys: bool,
    /// Runs whose status or pause changed.
    pub runs: Vec<RunChange>,
    /// Those of them that ended although states of theirs were open.
    #[serde(default)]
    pub stopped: Vec<i64>,
}

impl json::Typed for Notification {}

impl Notification {
    /// Adds the change of a run.
    pub fn add(&mut self, run: RunUpdate) {
        self.runs.push(run.into());
        if run.is_stopped {
            self.stopped.push(run.run.0);
        }
    }

    /// Returns the changes of the runs.
    pub fn run_updates(&self) -> Vec<RunUpdate> {
        let stopped = |update: RunUpdate| {
            let is_stopped = update.is_stopped || self.stopped.contains(&update.run.0);
            RunUpdate { is_stopped, ..update }
        };
        self.runs.iter().copied().map(RunUpdate::from).map(stopped).collect()
    }

    /// Removes up to `count` changes of runs, and returns a notification of these and of the work.
    pub fn take(&mut self, count: usize) -> Notification {
        let rest = self.runs.split_off(count.min(self.runs.len()));
        let taken = std::mem::take(self);
        let is_left = |run: &&i64| rest.iter().any(|change: &RunChange| change.0 == **run);
        self.stopped = taken.stopped.iter().filter(is_left).copied().collect();
        self.runs = rest;
        taken
    }
}

/// The change of a run that ended, was paused or was resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChange(i64, i64, RunStatus, bool);

impl From<RunUpdate> for RunChange {
    fn from(run: RunUpdate) -> Self {
        RunChange(run.run.0, run.version, run.status, run.paused)
    }
}

impl From<RunChange> for RunUpdate {
    fn from(RunChange(run, version, status, paused): RunChange) -> Self {
        // Cancelled runs were the only stopped ones before others had deadlines.
        let is_stopped = status == RunStatus::Cancelled;
        RunUpdate { run: RunKey(run), version, status, paused, status_changed: true, is_stopped }
    }
}

/// An event of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// A notification from another host.
    Received(Notification),
    /// Notifications may have been lost.
    Lagged,
}

/// A listener for the notifications of other hosts.
pub struct Listener {
    pool: PgPool,
    open: Option<PgListener>,
    backoff: Backoff,
}

impl Store {
    /// Returns a listener for other hosts' notifications; `None` on SQLite, which has no other
    /// hosts.
    pub fn listener(&self) -> Option<Listener> {
        let side = self.side.as_ref()?;
        let options = side.options().clone();
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).idle_timeout(None);
        let pool = pool.max_lifetime(None).connect_lazy_with(options);
        Some(Listener {
            pool,
            open: None,
            backoff: Backoff::new(RECONNECT_BACKOFF.0, RECONNECT_BACKOFF.1),
        })
    }

    /// Sends a notification to the other hosts.
    pub async fn notify(&self, notice: &Notification) -> Result<(), StoreError> {
        let Some(side) = &self.side else { return Ok(()) };
        let text = serde_json::to_string(notice).map_err(|e| StoreError::Data(e.to_string()))?;
        let notify = sqlx::query(sql::NOTIFY).bind(sql::CHANNEL).bind(text);
        side.row(notify, NOTIFY_TIMEOUT).await.map(drop)
    }
}

impl Listener {
    /// Waits for the next event. Reconnects with a backoff when the connection is lost.
    pub async fn next(&mut self) -> ListenerEvent {
        loop {
            let Some(open) = &mut self.open else {
                match self.connect().await {
                    Ok(open) => {
                        self.open = Some(open);
                        self.backoff.reset();
                        return ListenerEvent::Lagged;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot listen to the other hosts yet");
                        tokio::time::sleep(self.backoff.advance()).await;
                        continue;
                    }
                }
            };
            match open.try_recv().await {
                // A payload that cannot be parsed comes from another version.
                Ok(Some(received)) => match json::from_text(received.payload()) {
                    Ok(notice) => return ListenerEvent::Received(notice),
                    Err(_) => return ListenerEvent::Lagged,
                },
                Ok(None) | Err(_) => self.open = None,
            }
        }
    }

    /// Drops the connection, which may have died silently; the next call of `next` reconnects.
    pub fn reset(&mut self) {
        self.open = None;
    }

    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        let mut open = PgListener::connect_with(&self.pool).await?;
        open.eager_reconnect(false);
        open.listen(sql::CHANNEL).await?;
        Ok(open)
    }
}
