//! The pause after a slow commit: while it lasts, no other heavy operation is committed, so that
//! a run of another namespace waits for one slow commit and not for one at each of its steps.
//!
//! Not here: which operations are heavy, and the order of the others (`lanes`). All of it is
//! plain data.

use std::time::Duration;

use exosphere_domain::ids::NamespaceKey;
use tokio::time::Instant;

/// The time that a commit may take without a pause after it: batches are cut for commits of this
/// length, and only one operation that is larger than a batch takes longer.
const MAX_COMMIT: Duration = Duration::from_millis(50);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// How long the light operations of a namespace count as its traffic. Without traffic of others
/// there is no pause, since nobody would gain by it.
const TRAFFIC_WINDOW: Duration = Duration::from_millis(500);

/// The pause after a slow commit. It is as long as the commit was.
#[derive(Debug, Default)]
pub(super) struct HeavyPause {
    /// The namespace of the newest heavy operation.
    heavy_namespace: Option<NamespaceKey>,
    /// The time of the newest light operation of another namespace.
    others_active_at: Option<Instant>,
    /// The start of the commit under way, if it has a heavy operation.
    commit_began_at: Option<Instant>,
    /// The end of the pause.
    until: Option<Instant>,
}

impl HeavyPause {
    /// Records an operation that arrives.
    pub(super) fn record_arrival(&mut self, namespace: NamespaceKey, is_heavy: bool, now: Instant) {
        if is_heavy {
            self.heavy_namespace = Some(namespace);
        } else if self.heavy_namespace.is_some_and(|heavy| heavy != namespace) {
            self.others_active_at = Some(now);
        }
    }

    /// Records that a commit begins.
    pub(super) fn begin_commit(&mut self, has_heavy: bool, now: Instant) {
        self.commit_began_at = has_heavy.then_some(now);
    }

    /// Records that the commit has ended.
    pub(super) fn end_commit(&mut self, now: Instant) {
        let Some(began_at) = self.commit_began_at.take() else { return };
        let duration = now.saturating_duration_since(began_at);
        self.until = (duration > MAX_COMMIT).then(|| now + duration.min(MAX_PAUSE));
    }

    /// Returns the rest of the pause, or `None` if a heavy operation may be committed.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        let since = now.saturating_duration_since(self.others_active_at?);
        (!left.is_zero() && since < TRAFFIC_WINDOW).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAVY: NamespaceKey = NamespaceKey(1);
    const OTHER: NamespaceKey = NamespaceKey(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Commits a heavy operation for this time, after an arrival of each of these namespaces;
    /// returns the pause, with the time of the commit's end.
    fn commit(arrivals: &[NamespaceKey], duration: Duration) -> (HeavyPause, Instant) {
        let start = Instant::now();
        let mut pause = HeavyPause::default();
        pause.record_arrival(HEAVY, true, start);
        arrivals.iter().for_each(|namespace| pause.record_arrival(*namespace, false, start));
        pause.begin_commit(true, start);
        pause.end_commit(start + duration);
        (pause, start + duration)
    }

    #[test]
    fn a_pause_is_as_long_as_the_commit() {
        let (pause, end) = commit(&[OTHER], ms(120));
        assert_eq!(pause.time_left(end), Some(ms(120)));
        assert_eq!(pause.time_left(end + ms(20)), Some(ms(100)));
        assert_eq!(pause.time_left(end + ms(120)), None);
    }

    #[test]
    fn pauses_are_bounded() {
        let (pause, end) = commit(&[OTHER], ms(400));
        assert_eq!(pause.time_left(end), Some(MAX_PAUSE));
    }

    #[test]
    fn short_commits_have_no_pause() {
        let (pause, end) = commit(&[OTHER], ms(50));
        assert_eq!(pause.time_left(end), None);
    }

    #[test]
    fn without_other_traffic_there_is_no_pause() {
        for arrivals in [&[][..], &[HEAVY]] {
            let (pause, end) = commit(arrivals, ms(120));
            assert_eq!(pause.time_left(end), None, "{arrivals:?}");
        }
        let (pause, end) = commit(&[OTHER], ms(600));
        assert_eq!(pause.time_left(end), None, "the traffic is over");
    }
}
