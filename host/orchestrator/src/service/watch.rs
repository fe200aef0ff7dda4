//! Waits of callers for an event of a run, or for its end.
//!
//! Not here: which callers an event wakes (`watchers`).

use std::time::Duration;

use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::state::RunStatus;
use exosphere_store::RunView;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Host;
use crate::error::Error;
use crate::service::queries::RunDetails;
use crate::watchers::{Latest, WaitFor};

/// Poll interval while waiting for a run that another host may be executing.
pub(super) const WATCH_POLL_INTERVAL: Duration = Duration::from_millis(500);

impl Host {
    /// Waits until a run has an event after number `after` or the wait is over, and reads
    /// the run.
    pub async fn watch_run(
        &self,
        namespace: &Name,
        id: RunId,
        after: i64,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        self.run_when(namespace, id, WaitFor::Version(after), wait).await
    }

    /// Waits until a run meets the condition or the wait is over, and reads the run.
    pub(crate) async fn run_when(
        &self,
        namespace: &Name,
        id: RunId,
        wait_for: WaitFor,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        let key = self.run_info(namespace, id).await?.key;
        // The run is watched before it is read, so that no event is missed between.
        let events = self.inner.pipeline.watchers.watch(key, wait_for);
        let run = self.run(namespace, id).await?;
        if wait.is_zero() || wait_for.is_reached(&latest(&run)) {
            return Ok(run);
        }
        self.await_run(namespace, id, events, run.snapshot.run.version, wait_for, wait).await
    }

    /// Waits until a watched run, which was read at version `seen`, meets the condition
    /// or the wait is over, and reads the run.
    pub(crate) async fn await_run(
        &self,
        namespace: &Name,
        id: RunId,
        mut events: watch::Receiver<Latest>,
        mut seen: i64,
        wait_for: WaitFor,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        let end = Instant::now() + wait;
        loop {
            // Other hosts notify when the status of a run changes. Other events of theirs
            // are found by polling, as long as a caller waits.
            let left = end.saturating_duration_since(Instant::now());
            let turn =
                if self.inner.db.store.is_shared() { left.min(WATCH_POLL_INTERVAL) } else { left };
            let changed = async {
                // An event older than the version that was seen does not count: the run
                // may have been reopened since.
                let reached =
                    |latest: &Latest| latest.version > seen && wait_for.is_reached(latest);
                events.wait_for(reached).await.ok()?.run.clone()
            };
            if let Ok(Some(run)) = tokio::time::timeout(turn, changed).await {
                return self.run_details(RunView::clone(&run)).await;
            }
            let run = self.run(namespace, id).await?;
            if wait_for.is_reached(&latest(&run)) || Instant::now() >= end {
                return Ok(run);
            }
            seen = run.snapshot.run.version;
        }
    }
}

fn latest(details: &RunDetails) -> Latest {
    let run = &details.snapshot.run;
    Latest { version: run.version, over: run.status != RunStatus::Running, run: None }
}
