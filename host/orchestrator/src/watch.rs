//! Who waits for news of which run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exosphere_domain::ids::RunKey;
use exosphere_domain::state::RunStatus;
use exosphere_store::{RunView, Touched};
use tokio::sync::watch;

/// What is known of a run by its news alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latest {
    /// The number of its latest event.
    pub version: i64,
    /// Whether it is over.
    pub over: bool,
    /// The run itself, if it ended by that event, and here.
    pub run: Option<Arc<RunView>>,
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
        let latest = |news: &Touched| {
            let over = news.status != RunStatus::Running;
            (news.run, Latest { version: news.version, over, run: None })
        };
        self.tell_all(touched.iter().map(latest));
    }

    /// Tells those who wait of runs that ended, so that they need not read them.
    pub(crate) fn tell_ends(&self, ended: Vec<RunView>) {
        let latest = |run: RunView| {
            (run.key, Latest { version: run.version, over: true, run: Some(Arc::new(run)) })
        };
        self.tell_all(ended.into_iter().map(latest));
    }

    fn tell_all(&self, news: impl Iterator<Item = (RunKey, Latest)>) {
        let mut news = news.peekable();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.is_empty() || news.peek().is_none() {
            return;
        }
        for (run, news) in news {
            if let Some(sender) = runs.get(&run) {
                // What comes late from another host is no news.
                sender.send_if_modified(|latest| {
                    let newer = news.version > latest.version;
                    if newer {
                        *latest = news;
                    }
                    newer
                });
            }
        }
        runs.retain(|_, sender| sender.receiver_count() > 0);
    }
}
