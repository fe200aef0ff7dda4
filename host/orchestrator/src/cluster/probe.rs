//! Probe of a shared database: pings it while nothing is committed, so that `/health`
//! reports an outage within two seconds.
//!
//! Not here: failing commits, which the committer reports. SQLite needs no probe: it is
//! in this process, and only its disk can fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Parts;

/// Interval between pings, and the time for which a commit replaces them.
const INTERVAL: Duration = Duration::from_millis(400);

/// Time within which the database must answer. With twice the interval before it, an
/// outage is reported in less than two seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The state of the database as the probe knows it.
pub(crate) struct Probe {
    seen: Mutex<Seen>,
}

struct Seen {
    /// The time of the last answer, to a commit or to a ping.
    at: Instant,
    trouble: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { seen: Mutex::new(Seen { at: Instant::now(), trouble: None }) }
    }
}

impl Probe {
    /// Records that a commit went through.
    pub(crate) fn committed(&self) {
        *self.lock() = Seen { at: Instant::now(), trouble: None };
    }

    /// Returns the reason for which the database does not answer, if it does not.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.lock().trouble.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the probe, if the database is shared.
pub(crate) fn start(parts: &Arc<Parts>) {
    if parts.store.is_shared() {
        tokio::spawn(run(parts.clone()));
    }
}

async fn run(parts: Arc<Parts>) {
    loop {
        sleep(INTERVAL).await;
        let begun = Instant::now();
        if parts.probe.lock().at + INTERVAL > begun {
            continue;
        }
        let answer = parts.store.ping(ANSWER_WITHIN).await;
        let mut seen = parts.probe.lock();
        match answer {
            Ok(()) => {
                if seen.trouble.is_some() {
                    tracing::info!("the database answers again");
                }
                *seen = Seen { at: begun, trouble: None };
            }
            // A commit went through meanwhile.
            Err(_) if seen.at > begun => {}
            Err(error) => {
                if seen.trouble.is_none() {
                    tracing::warn!(%error, "the database does not answer");
                }
                seen.trouble = Some(error.to_string());
            }
        }
    }
}
