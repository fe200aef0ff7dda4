//! Watchers of runs: callers that wait for events of a run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exosphere_domain::ids::RunKey;
use exosphere_domain::state::RunStatus;
use exosphere_store::{RunView, Touched};
use tokio::sync::watch;

use crate::service::queries::WaitFor;

/// The latest event of a run, as its watchers know it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latest {
    /// The number of the event.
    pub version: i64,
    /// Set if the run is over.
    pub over: bool,
    /// The run itself, if it ended by that event on this host.
    pub run: Option<Arc<RunView>>,
}

/// The watchers of all runs. A run without watchers has no entry.
#[derive(Default)]
pub(crate) struct Watchers {
    runs: Mutex<HashMap<RunKey, Watched>>,
}

/// The watchers of a run.
struct Watched {
    events: watch::Sender<Latest>,
    /// Watchers of the end alone, which are not woken by each event: a run may have
    /// thousands.
    ends: watch::Sender<Latest>,
}

impl Watched {
    fn new() -> Self {
        let nothing = || watch::Sender::new(Latest::default());
        Watched { events: nothing(), ends: nothing() }
    }

    fn tell(&self, news: &Latest) {
        let told = |latest: &mut Latest| {
            // An event that comes late from another host is outdated.
            let newer = news.version > latest.version;
            if newer {
                latest.clone_from(news);
            }
            newer
        };
        self.events.send_if_modified(told);
        self.ends.send_if_modified(|latest| told(latest) && latest.over);
    }

    fn is_watched(&self) -> bool {
        self.events.receiver_count() + self.ends.receiver_count() > 0
    }
}

impl Watchers {
    /// Watches a run from now on: every event, or its end alone.
    pub(crate) fn watch(&self, run: RunKey, until: WaitFor) -> watch::Receiver<Latest> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = runs.entry(run).or_insert_with(Watched::new);
        match until {
            WaitFor::Version(_) => watched.events.subscribe(),
            WaitFor::End => watched.ends.subscribe(),
        }
    }

    /// Returns the runs that have watchers.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Notifies the watchers. For a run that ended here they receive the whole run, so
    /// that they need not read it.
    pub(crate) fn tell(&self, touched: &[Touched], ended: Vec<RunView>) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.is_empty() {
            return;
        }
        let mut ended: HashMap<_, _> = ended.into_iter().map(|run| (run.key, run)).collect();
        for news in touched {
            if let Some(watched) = runs.get(&news.run) {
                let (version, over) = (news.version, news.status != RunStatus::Running);
                let run = ended.remove(&news.run).map(Arc::new);
                watched.tell(&Latest { version, over, run });
            }
        }
        runs.retain(|_, watched| watched.is_watched());
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::RunId;

    use super::*;

    fn touched(version: i64, status: RunStatus) -> Touched {
        Touched { run: RunKey(1), version, status, paused: false, turned: true }
    }

    fn view(version: i64) -> RunView {
        RunView {
            key: RunKey(1),
            id: RunId(uuid::Uuid::nil()),
            graph: "g".parse().unwrap(),
            revision: 1,
            status: RunStatus::Failed,
            paused: false,
            version,
            created_at: 0,
            ended_at: Some(1),
            states: 1,
            succeeded: 0,
            pruned: 0,
            errored: 1,
            cancelled: 0,
            retries: 0,
            requeues: 0,
            store_keys: 0,
        }
    }

    #[test]
    fn an_end_is_told_whole_and_forgotten_when_the_run_goes_on() {
        let watchers = Watchers::default();
        let news = watchers.watch(RunKey(1), WaitFor::Version(0));
        watchers.tell(&[touched(5, RunStatus::Failed)], vec![view(5)]);
        let told = |version, over| {
            let latest = news.borrow();
            assert_eq!((latest.version, latest.over), (version, over));
            latest.run.as_ref().map(|run| run.version)
        };
        assert_eq!(told(5, true), Some(5));
        watchers.tell(&[touched(6, RunStatus::Running)], Vec::new());
        assert_eq!(told(6, false), None);
        watchers.tell(&[touched(5, RunStatus::Failed)], vec![view(5)]);
        assert_eq!(told(6, false), None, "what comes late");
        // Another host ended it, and its notification has no run.
        watchers.tell(&[touched(7, RunStatus::Failed)], Vec::new());
        assert_eq!(told(7, true), None);
    }

    #[test]
    fn the_end_alone_wakes_those_who_wait_for_it() {
        let watchers = Watchers::default();
        let mut end = watchers.watch(RunKey(1), WaitFor::End);
        let mut any = watchers.watch(RunKey(1), WaitFor::Version(0));
        watchers.tell(&[touched(5, RunStatus::Running)], Vec::new());
        assert_eq!((any.has_changed().ok(), end.has_changed().ok()), (Some(true), Some(false)));
        drop(any.borrow_and_update());
        watchers.tell(&[touched(6, RunStatus::Failed)], Vec::new());
        assert_eq!((any.has_changed().ok(), end.has_changed().ok()), (Some(true), Some(true)));
        assert_eq!(end.borrow_and_update().version, 6);
        watchers.tell(&[touched(7, RunStatus::Running)], Vec::new());
        assert!(!end.borrow().over, "it goes on");
    }
}
