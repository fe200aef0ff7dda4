//! LISTEN and NOTIFY between hosts that share a database: there is work, or a run has
//! changed. Correctness does not depend on it: the next heartbeat finds what a host
//! has not heard.

use std::time::Duration;

use exosphere_domain::ids::RunKey;
use exosphere_domain::json;
use exosphere_domain::state::RunStatus;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgListener;

use crate::batch::Touched;
use crate::error::StoreError;
use crate::{Store, sql};

/// How long to wait before listening anew: from, and up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The longest that a word may take.
const WITHIN: Duration = Duration::from_secs(3);

/// What one host says. Postgres carries it if it is shorter than 8,000 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Who says it, so that it need not listen to itself.
    pub from: i64,
    /// There is something to claim.
    pub work: bool,
    /// Runs that have turned.
    pub runs: Vec<RunChange>,
}

impl json::Typed for Notification {}

/// A run that ended, was paused or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChange(i64, i64, RunStatus, bool);

impl From<Touched> for RunChange {
    fn from(run: Touched) -> Self {
        RunChange(run.run.0, run.version, run.status, run.paused)
    }
}

impl From<RunChange> for Touched {
    fn from(RunChange(run, version, status, paused): RunChange) -> Self {
        Touched { run: RunKey(run), version, status, paused, turned: true }
    }
}

/// What a host hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// What another said.
    Received(Notification),
    /// Something may have been said that was not heard.
    Lagged,
}

/// Who listens.
pub struct Listener {
    pool: PgPool,
    open: Option<PgListener>,
    pause: Duration,
}

impl Store {
    /// A listener to the other hosts; nothing if there can be none.
    pub fn listener(&self) -> Option<Listener> {
        let side = self.side.as_ref()?;
        let options = side.options().clone();
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).idle_timeout(None);
        let pool = pool.max_lifetime(None).connect_lazy_with(options);
        Some(Listener { pool, open: None, pause: PAUSE.0 })
    }

    /// Tells the other hosts.
    pub async fn notify(&self, notice: &Notification) -> Result<(), StoreError> {
        let Some(side) = &self.side else { return Ok(()) };
        let text = serde_json::to_string(notice).map_err(|e| StoreError::Data(e.to_string()))?;
        let notify = sqlx::query(sql::NOTIFY).bind(sql::CHANNEL).bind(text);
        side.row(notify, WITHIN).await.map(drop)
    }
}

impl Listener {
    /// The next news. Connects anew, patiently, when the connection is lost.
    pub async fn next(&mut self) -> ListenerEvent {
        loop {
            let Some(open) = &mut self.open else {
                match self.connect().await {
                    Ok(open) => {
                        self.open = Some(open);
                        self.pause = PAUSE.0;
                        return ListenerEvent::Lagged;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot listen to the other hosts yet");
                        tokio::time::sleep(self.pause).await;
                        self.pause = (self.pause * 2).min(PAUSE.1);
                        continue;
                    }
                }
            };
            match open.try_recv().await {
                // What cannot be read was written by another version.
                Ok(Some(said)) => match json::from_text(said.payload()) {
                    Ok(notice) => return ListenerEvent::Received(notice),
                    Err(_) => return ListenerEvent::Lagged,
                },
                Ok(None) | Err(_) => self.open = None,
            }
        }
    }

    /// Begins to listen anew: the connection may be one that swallows
    /// everything.
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
