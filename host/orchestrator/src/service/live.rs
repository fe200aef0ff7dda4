//! Followers for live views: each waits for the next change of a run, or of any run of a list, and
//! reads what its view shows. A change on this host is noticed at once, and so is a change of a
//! run's status on another host; other changes there are found by reading.
//!
//! Not here: the pace and the text of snapshots, which all readers share (`exosphere-api`).

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::{Name, RunId, RunKey};
use exosphere_domain::state::RunStatus;
use exosphere_store::RunView;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Host;
use crate::error::Error;
use crate::service::queries::RunSnapshot;
use crate::service::watch::WATCH_POLL_INTERVAL;
use crate::watchers::{Latest, WaitFor};

/// The longest time between two reads of a view. A pause of the namespace is no event of a run, and
/// is found by the next read.
const MAX_AGE: Duration = Duration::from_secs(2);

/// That time of a run that has ended: only a redrive on another host, whose notification is lost, is
/// found by a read.
const MAX_AGE_OF_ENDED: Duration = Duration::from_secs(10);

/// Follows one run.
pub struct RunFollower {
    host: Host,
    namespace: Name,
    id: RunId,
    events: watch::Receiver<Latest>,
    /// The version that was read last.
    version: i64,
    /// Set if the run was RUNNING when it was read last.
    is_running: bool,
    /// The run, if its last event was its end on this host.
    ended: Option<Arc<RunView>>,
}

impl Host {
    /// Follows a run from now on.
    pub async fn follow_run(&self, namespace: &Name, id: RunId) -> Result<RunFollower, Error> {
        let key: RunKey = self.run_view(namespace, id).await?.key;
        Ok(RunFollower {
            events: self.inner.pipeline.watchers.watch(key, WaitFor::Version(0)),
            host: self.clone(),
            namespace: namespace.clone(),
            id,
            version: 0,
            is_running: true,
            ended: None,
        })
    }

    /// Follows every run from now on.
    pub fn follow_runs(&self) -> RunsFollower {
        let is_shared = self.inner.db.store.is_shared();
        RunsFollower { changes: self.inner.pipeline.watchers.watch_all(), is_shared }
    }
}

impl RunFollower {
    /// Reads the run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it was deleted.
    pub async fn read(&mut self) -> Result<RunSnapshot, Error> {
        let run = match self.ended.take() {
            Some(run) => RunView::clone(&run),
            None => self.host.run_view(&self.namespace, self.id).await?,
        };
        (self.version, self.is_running) = (run.version, run.status == RunStatus::Running);
        self.host.run_snapshot(run, false).await
    }

    /// Waits until the run may have changed since it was read.
    pub async fn changed(&mut self) {
        let max_age = if !self.is_running {
            MAX_AGE_OF_ENDED
        } else if self.host.inner.db.store.is_shared() {
            WATCH_POLL_INTERVAL
        } else {
            MAX_AGE
        };
        let seen = self.version;
        let newer = self.events.wait_for(|latest| latest.version > seen);
        if let Ok(Ok(latest)) = timeout(max_age, newer).await {
            self.ended = latest.run.clone();
        }
    }
}

/// Follows the runs of all namespaces.
pub struct RunsFollower {
    changes: watch::Receiver<()>,
    is_shared: bool,
}

impl RunsFollower {
    /// Waits until some run may have changed since the last call.
    pub async fn changed(&mut self) {
        let max_age = if self.is_shared { WATCH_POLL_INTERVAL } else { MAX_AGE };
        let _ = timeout(max_age, self.changes.changed()).await;
    }
}
