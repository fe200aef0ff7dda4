//! Probe of a shared database: asks it for a word while nothing is committed, so
//! that `/health` tells of an outage within two seconds.
//!
//! Not here: commits that fail, of which the committer tells. SQLite needs no
//! probe: it is in this process, and what fails is its disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Parts;

/// How often the database is asked, and for how long a commit speaks for it.
const INTERVAL: Duration = Duration::from_millis(400);

/// How long an answer may take. With twice the interval before it, less than two
/// seconds pass from an outage to the word of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What is known of the database beside the commits.
pub(crate) struct Probe {
    seen: Mutex<Seen>,
}

struct Seen {
    /// When it last answered, by a commit or to the probe.
    at: Instant,
    trouble: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { seen: Mutex::new(Seen { at: Instant::now(), trouble: None }) }
    }
}

impl Probe {
    /// Notes that a commit went through.
    pub(crate) fn committed(&self) {
        *self.lock() = Seen { at: Instant::now(), trouble: None };
    }

    /// Returns why the database does not answer, if it does not.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.lock().trouble.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to probe, if there is something to probe.
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
