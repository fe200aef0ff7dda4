//! The numbers of spans that were sent and dropped, and the log lines about them: at most one a
//! minute of each kind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two log lines of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The numbers of spans since the host started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TraceCounts {
    /// Spans that a collector has taken.
    pub sent: u64,
    /// Spans that were not sent, or that a collector has refused.
    pub dropped: u64,
}

/// Counts spans, and logs what goes wrong.
#[derive(Default)]
pub(super) struct SpanCounters {
    sent: AtomicU64,
    dropped: AtomicU64,
    log: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    /// Drops that no line has reported yet, with the cause of the latest.
    unreported: u64,
    cause: String,
    drops_logged_at: Option<Instant>,
    outage_logged_at: Option<Instant>,
    is_outage: bool,
}

/// Returns whether another line may be logged, and records that it is.
fn may_log(logged_at: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let may_log = logged_at.is_none_or(|before| now - before >= LOG_INTERVAL);
    if may_log {
        *logged_at = Some(now);
    }
    may_log
}

impl SpanCounters {
    pub(super) fn counts(&self) -> TraceCounts {
        TraceCounts { sent: self.sent.load(Relaxed), dropped: self.dropped.load(Relaxed) }
    }

    /// Counts spans that a collector has taken, after which it is available again.
    pub(super) fn add_sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Relaxed);
        let mut log = self.log.lock();
        if std::mem::take(&mut log.is_outage) && log.outage_logged_at.is_some() {
            tracing::info!("the collector takes spans again");
        }
        drop(log);
        self.log_drops();
    }

    /// Counts dropped spans.
    pub(super) fn add_dropped(&self, spans: u64, cause: &str) {
        if spans == 0 {
            return;
        }
        self.dropped.fetch_add(spans, Relaxed);
        let mut log = self.log.lock();
        log.unreported += spans;
        cause.clone_into(&mut log.cause);
        drop(log);
        self.log_drops();
    }

    /// Logs the drops that no line has reported yet, unless a line was logged a moment ago.
    pub(super) fn log_drops(&self) {
        let mut log = self.log.lock();
        if log.unreported > 0 && may_log(&mut log.drops_logged_at) {
            let (dropped, cause) = (std::mem::take(&mut log.unreported), &log.cause);
            tracing::warn!(dropped, cause, "spans of traces were dropped");
        }
    }

    /// Logs the drops that no line has reported yet: the host stops.
    pub(super) fn log_rest(&self) {
        self.log.lock().drops_logged_at = None;
        self.log_drops();
    }

    /// Logs that a request has failed and is tried again.
    pub(super) fn log_retry(&self, endpoint: &str, cause: &str) {
        let mut log = self.log.lock();
        log.is_outage = true;
        if may_log(&mut log.outage_logged_at) {
            tracing::warn!(endpoint, cause, "cannot send spans of traces; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_logged_once_a_minute() {
        let counters = SpanCounters::default();
        let unreported = || counters.log.lock().unreported;
        counters.add_dropped(3, "full");
        assert_eq!(unreported(), 0);
        counters.add_dropped(4, "full");
        counters.add_dropped(0, "nothing");
        assert_eq!(unreported(), 4);
        counters.log.lock().drops_logged_at = Instant::now().checked_sub(LOG_INTERVAL);
        counters.log_drops();
        assert_eq!(unreported(), 0);
        // A collector that takes spans again makes no drops that would be logged.
        counters.add_dropped(2, "full");
        counters.log.lock().drops_logged_at = Instant::now().checked_sub(LOG_INTERVAL);
        counters.add_sent(1);
        assert_eq!(unreported(), 0);
        assert_eq!(counters.counts(), TraceCounts { sent: 1, dropped: 9 });
    }
}
