//! The metrics of this host. Counters are made of what was committed (`exosphere_store`, `commit_counts`);
//! histograms of times are observed where the time passes; gauges are read when the text is asked
//! for.
//!
//! Layout: `graphs` has the counters by graph, `database` the figures of the database, `process`
//! those of the process, and `histogram` and `text` what they are made of. `families` lists all of
//! them, with names and help texts.
//!
//! Not here: the metrics of the API, and the route (`exosphere-api`).

mod histogram;
mod text;
mod graphs;
mod database;
mod process;
mod families;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use exosphere_domain::ids::Millis;
use exosphere_domain::limits::Limit;
use exosphere_store::{ClaimedState, RunCommitCounts};
use parking_lot::Mutex;

pub use histogram::Histogram;
pub use text::{CONTENT_TYPE, Families, Labels, Series, encode};

use crate::Host;
use crate::system::wall_clock;
use database::DatabaseFigures;
use graphs::GraphTable;
use histogram::{OPERATIONS, SECONDS};

/// The metrics of a host.
pub(crate) struct Metrics {
    /// The time from which a state is due until it is claimed.
    pub claim_wait: Histogram,
    /// The time from a claim until the state has a slot.
    pub slot_wait: Histogram,
    /// The time of a guest.
    pub invoke: Histogram,
    /// The time of a transaction that has succeeded.
    commit: Histogram,
    /// The number of its operations.
    commit_batch: Histogram,
    /// Transactions that have failed because the database was unavailable.
    pub commit_failures: AtomicU64,
    /// Sessions of other hosts that this host has expired.
    pub sessions_lost: AtomicU64,
    /// Attempts that have reached a limit, in the order of [`Limit::ALL`].
    breaches: Box<[AtomicU64]>,
    graphs: Mutex<GraphTable>,
    database: DatabaseFigures,
    /// The lines that the log has dropped.
    dropped_log_lines: Arc<AtomicU64>,
    /// The start of the process, in seconds since 1970.
    started_at: f64,
}

impl Metrics {
    pub(crate) fn new(dropped_log_lines: Arc<AtomicU64>) -> Self {
        Metrics {
            claim_wait: Histogram::new(SECONDS),
            slot_wait: Histogram::new(SECONDS),
            invoke: Histogram::new(SECONDS),
            commit: Histogram::new(SECONDS),
            commit_batch: Histogram::new(OPERATIONS),
            commit_failures: AtomicU64::default(),
            sessions_lost: AtomicU64::default(),
            breaches: Limit::ALL.iter().map(|_| AtomicU64::default()).collect(),
            graphs: Mutex::new(GraphTable::new(Instant::now())),
            database: DatabaseFigures::default(),
            dropped_log_lines,
            started_at: wall_clock().as_secs_f64(),
        }
    }

    /// Counts the changes of commits that have succeeded.
    pub(crate) fn add_counts(&self, counts: RunCommitCounts) {
        if counts.is_empty() {
            return;
        }
        let (mut graphs, now) = (self.graphs.lock(), Instant::now());
        for (run, counts) in counts {
            graphs.add(&run, &counts, now);
            for limit in &counts.breaches {
                self.breaches[*limit as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records a transaction that has succeeded.
    pub(crate) fn committed(&self, operations: usize, time: Duration) {
        self.commit.observe_time(time);
        self.commit_batch.observe(operations as f64);
    }

    /// Records how long states were due before a commit at this time claimed them.
    pub(crate) fn claimed<'c>(&self, now: Millis, states: impl Iterator<Item = &'c ClaimedState>) {
        for state in states {
            self.claim_wait.observe(now.saturating_sub(state.due_at) as f64 / 1_000.0);
        }
    }
}

impl Host {
    /// Returns the metrics of this host as text. If the database does not answer at once, its
    /// figures are those of the last seconds, or are missing.
    pub async fn metrics(&self) -> String {
        let inner = self.inner.clone();
        let figures = database::read(&inner).await;
        // It takes some milliseconds if there are many series.
        let written = tokio::task::spawn_blocking(move || families::text(inner, figures)).await;
        written.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_counted_at_their_limit() {
        for (at, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, at, "{limit}");
        }
    }
}
