//! Who waits for news of which run.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use exosphere_domain::ids::RunKey;
use exosphere_domain::state::RunStatus;
use exosphere_store::Touched;
use tokio::sync::watch;

/// What is known of a run by its news alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latest {
    /// The number of its latest event.
    pub version: i64,
    /// Whether it is over.
    pub over: bool,
}

/// Those who wait. A run that nobody watches has no entry.
#[derive(Default)]
pub(crate) struct Watchers {
    runs: Mutex<HashMap<RunKey, watch::Sender<Latest>>>,
}

impl Watchers {
    /// News of a run from now on.
    pub(crate) fn watch(&self, run: RunKey) -> watch::Receiver<Latest> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.entry(run).or_insert_with(|| watch::Sender::new(Latest::default())).subscribe()
    }

    /// The runs that someone waits for.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Tells those who wait.
    pub(crate) fn tell(&self, touched: &[Touched]) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.is_empty() {
            return;
        }
        for news in touched {
            if let Some(sender) = runs.get(&news.run) {
                // What comes late from another host is no news.
                sender.send_if_modified(|latest| {
                    let newer = news.version > latest.version;
                    if newer {
                        let over = news.status != RunStatus::Running;
                        *latest = Latest { version: news.version, over };
                    }
                    newer
                });
            }
        }
        runs.retain(|_, sender| sender.receiver_count() > 0);
    }
}
