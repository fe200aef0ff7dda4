//! Watchers of runs: callers that wait for events of a run or of any run, and which of them an event
//! wakes.
//!
//! Not here: the wait of a caller (`service::watch`, `service::live`).

use std::collections::HashMap;
use std::sync::Arc;

use exosphere_domain::ids::RunKey;
use exosphere_domain::state::RunStatus;
use exosphere_store::{RunUpdate, RunView};
use tokio::sync::watch;

use parking_lot::Mutex;

/// The condition that a caller waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitFor {
    /// Any event after the event of this number.
    Version(i64),
    /// The end of the run.
    End,
}

impl WaitFor {
    pub(crate) fn is_reached(self, latest: &Latest) -> bool {
        match self {
            WaitFor::Version(after) => latest.version > after,
            WaitFor::End => latest.over,
        }
    }
}

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
    /// Watchers of every run, for lists.
    any: watch::Sender<()>,
}

/// The watchers of a run.
struct Watched {
    events: watch::Sender<Latest>,
    /// Watchers of only the end, which are not woken by each event: a run may have thousands.
    ends: watch::Sender<Latest>,
}

impl Watched {
    fn new() -> Self {
        let new_sender = || watch::Sender::new(Latest::default());
        Watched { events: new_sender(), ends: new_sender() }
    }

    fn publish(&self, event: &Latest) {
        let publish_to = |latest: &mut Latest| {
            // An event that comes late from another host is outdated.
            let is_newer = event.version > latest.version;
            if is_newer {
                latest.clone_from(event);
            }
            is_newer
        };
        self.events.send_if_modified(publish_to);
        self.ends.send_if_modified(|latest| publish_to(latest) && latest.over);
    }

    fn is_watched(&self) -> bool {
        self.events.receiver_count() + self.ends.receiver_count() > 0
    }
}

impl Watchers {
    /// Watches a run from now on: every event, or its end alone.
    pub(crate) fn watch(&self, run: RunKey, wait_for: WaitFor) -> watch::Receiver<Latest> {
        let mut runs = self.runs.lock();
        let watched = runs.entry(run).or_insert_with(Watched::new);
        match wait_for {
            WaitFor::Version(_) => watched.events.subscribe(),
            WaitFor::End => watched.ends.subscribe(),
        }
    }

    /// Watches all runs from now on.
    pub(crate) fn watch_all(&self) -> watch::Receiver<()> {
        self.any.subscribe()
    }

    /// Returns the runs that have watchers.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        self.runs.lock().keys().copied().collect()
    }

    /// Notifies the watchers. For a run that ended here they receive the whole run, so
    /// that they need not read it.
    pub(crate) fn publish(&self, run_updates: &[RunUpdate], ended: Vec<RunView>) {
        if !run_updates.is_empty() {
            self.any.send_if_modified(|()| true);
        }
        let mut runs = self.runs.lock();
        if runs.is_empty() {
            return;
        }
        let mut ended: HashMap<_, _> = ended.into_iter().map(|run| (run.key, run)).collect();
        for event in run_updates {
            if let Some(watched) = runs.get(&event.run) {
                let (version, over) = (event.version, event.status != RunStatus::Running);
                let run = ended.remove(&event.run).map(Arc::new);
                watched.publish(&Latest { version, over, run });
            }
        }
        runs.retain(|_, watched| watched.is_watched());
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::RunId;
    use exosphere_domain::node_counts::NodeCounts;
    use exosphere_store::RunCounters;

    use super::*;

    fn run_updates(version: i64, status: RunStatus) -> RunUpdate {
        let (paused, status_changed, is_stopped) = (false, true, false);
        RunUpdate { run: RunKey(1), version, status, paused, status_changed, is_stopped }
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
            due_at: None,
            ended_at: Some(1),
            missed: None,
            deadline_at: None,
            start_by_at: None,
            node_counts: NodeCounts::default(),
            counters: RunCounters { states: 1, errored: 1, ..RunCounters::default() },
        }
    }

    #[test]
    fn a_reopened_run_drops_its_end() {
        let watchers = Watchers::default();
        let events = watchers.watch(RunKey(1), WaitFor::Version(0));
        watchers.publish(&[run_updates(5, RunStatus::Failed)], vec![view(5)]);
        let seen = |version, over| {
            let latest = events.borrow();
            assert_eq!((latest.version, latest.over), (version, over));
            latest.run.as_ref().map(|run| run.version)
        };
        assert_eq!(seen(5, true), Some(5));
        watchers.publish(&[run_updates(6, RunStatus::Running)], Vec::new());
        assert_eq!(seen(6, false), None);
        watchers.publish(&[run_updates(5, RunStatus::Failed)], vec![view(5)]);
        assert_eq!(seen(6, false), None, "what comes late");
        // Another host ended it, and its notification has no run.
        watchers.publish(&[run_updates(7, RunStatus::Failed)], Vec::new());
        assert_eq!(seen(7, true), None);
    }

    #[test]
    fn end_watchers_wake_at_the_end_alone() {
        let watchers = Watchers::default();
        let mut end = watchers.watch(RunKey(1), WaitFor::End);
        let mut any = watchers.watch(RunKey(1), WaitFor::Version(0));
        watchers.publish(&[run_updates(5, RunStatus::Running)], Vec::new());
        assert_eq!((any.has_changed().ok(), end.has_changed().ok()), (Some(true), Some(false)));
        drop(any.borrow_and_update());
        watchers.publish(&[run_updates(6, RunStatus::Failed)], Vec::new());
        assert_eq!((any.has_changed().ok(), end.has_changed().ok()), (Some(true), Some(true)));
        assert_eq!(end.borrow_and_update().version, 6);
        watchers.publish(&[run_updates(7, RunStatus::Running)], Vec::new());
        assert!(!end.borrow().over, "the run continues");
    }
}
