//! Probe of a shared database: pings it while nothing is committed, so that `/health`
//! reports an outage within two seconds.
//!
//! Not here: failing commits, which the committer reports. SQLite needs no probe: it is
//! in this process, and only its disk can fail.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::inner::HostInner;
use parking_lot::{Mutex, MutexGuard};

/// Interval between pings, and the time for which a commit replaces them.
const PING_INTERVAL: Duration = Duration::from_millis(400);

/// Time within which the database must answer. With twice the interval before it, an
/// outage is reported in less than two seconds.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the database as the probe knows it.
pub(crate) struct Probe {
    state: Mutex<ProbeState>,
}

struct ProbeState {
    /// The time of the last answer, to a commit or to a ping.
    at: Instant,
    last_error: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { state: Mutex::new(ProbeState { at: Instant::now(), last_error: None }) }
    }
}

impl Probe {
    /// Records that a commit succeeded.
    pub(crate) fn committed(&self) {
        *self.lock() = ProbeState { at: Instant::now(), last_error: None };
    }

    /// Returns the reason why the database does not answer, if it does not.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.lock().last_error.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, ProbeState> {
        self.state.lock()
    }
}

/// Starts the probe, if the database is shared.
pub(crate) fn start(inner: &Arc<HostInner>) {
    if inner.db.store.is_shared() {
        tokio::spawn(run(inner.clone()));
    }
}

async fn run(inner: Arc<HostInner>) {
    loop {
        sleep(PING_INTERVAL).await;
        let started = Instant::now();
        if inner.db.probe.lock().at + PING_INTERVAL > started {
            continue;
        }
        let answer = inner.db.store.ping(PING_TIMEOUT).await;
        let mut state = inner.db.probe.lock();
        match answer {
            Ok(()) => {
                if state.last_error.is_some() {
                    tracing::info!("the database answers again");
                }
                *state = ProbeState { at: started, last_error: None };
            }
            // A commit succeeded meanwhile.
            Err(_) if state.at > started => {}
            Err(error) => {
                if state.last_error.is_none() {
                    tracing::warn!(%error, "the database does not answer");
                }
                state.last_error = Some(error.to_string());
            }
        }
    }
}
