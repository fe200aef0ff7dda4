//! The system's time, random numbers and new ids. This module alone asks the machine for
//! them; all other code takes them as parameters.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use rand::Rng;
use uuid::Uuid;

/// The system clock with an offset, which never goes back. If the wall clock is set back, this
/// one continues by the elapsed time. It follows the wall clock forward, as after a suspension,
/// which the monotonic clock does not count.
#[derive(Debug, Clone)]
pub(crate) struct SystemClock {
    offset: Millis,
    started: Instant,
    /// The lead over the time since this clock began, in milliseconds: the largest that
    /// the wall clock has ever had.
    lead: Arc<AtomicI64>,
}

/// Returns the time since 1970, by the wall clock of the machine.
pub(crate) fn wall_clock() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

impl SystemClock {
    /// Creates a clock that is off by `offset` milliseconds, which a host must tolerate.
    pub(crate) fn with_offset(offset: Millis) -> Self {
        let (started, lead) = (Instant::now(), Arc::new(AtomicI64::new(Millis::MIN)));
        SystemClock { offset, started, lead }
    }

    /// Makes the clock show `time` or later from now on. Returns how far the wall clock
    /// lags, in milliseconds.
    pub(crate) fn advance_to(&self, time: Millis) -> Millis {
        let (wall, passed) = (self.wall(), self.passed());
        self.show(time, passed);
        time.saturating_sub(wall).max(0)
    }

    /// Returns the time to show when the wall clock shows `wall`, `passed` milliseconds
    /// after this clock began.
    fn show(&self, wall: Millis, passed: Millis) -> Millis {
        let lead = wall.saturating_sub(passed);
        self.lead.fetch_max(lead, Ordering::Relaxed).max(lead).saturating_add(passed)
    }

    fn wall(&self) -> Millis {
        millis(wall_clock()).saturating_add(self.offset)
    }

    fn passed(&self) -> Millis {
        millis(self.started.elapsed())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        // The wall clock is read first. If the thread is delayed between the two reads,
        // its lead is too small and never too large; other threads know the larger one.
        let wall = self.wall();
        self.show(wall, self.passed())
    }
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// Fills a buffer with random bytes of a cryptographic source.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

/// Returns a uniform random number in [0, 1), for the delay of a retry.
pub(crate) fn jitter() -> f64 {
    rand::random()
}

/// Returns a new id. Ids of a later time sort after it.
pub(crate) fn time_ordered_id(now: Millis) -> Uuid {
    let now = now.max(0).unsigned_abs();
    let elapsed = uuid::Timestamp::from_unix(
        uuid::NoContext,
        now / 1000,
        u32::try_from(now % 1000 * 1_000_000).unwrap_or(0),
    );
    Uuid::new_v7(elapsed)
}

/// Returns a random id, for an internal error, a request or a host.
pub fn random_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    #[test]
    fn a_clock_set_back_continues() {
        let clock = SystemClock::with_offset(0);
        assert_eq!(clock.show(10 * HOUR, 0), 10 * HOUR);
        assert_eq!(clock.show(10 * HOUR + 5, 5), 10 * HOUR + 5);
        // The wall clock was set back by an hour, and time continues to elapse.
        assert_eq!(clock.show(9 * HOUR + 10, 10), 10 * HOUR + 10);
        assert_eq!(clock.show(9 * HOUR + 1_010, 1_010), 10 * HOUR + 1_010);
    }

    #[test]
    fn a_clock_set_forward_is_followed() {
        let clock = SystemClock::with_offset(0);
        clock.show(10 * HOUR, 0);
        // After a suspension, hours have passed on the wall clock and none on the monotonic one.
        assert_eq!(clock.show(18 * HOUR, 7), 18 * HOUR);
        assert_eq!(clock.show(18 * HOUR + 1, 8), 18 * HOUR + 1);
    }

    #[test]
    fn a_clock_continues_from_the_latest_commit() {
        let clock = SystemClock::with_offset(-HOUR);
        let latest = clock.now() + HOUR;
        let lead_ms = clock.advance_to(latest);
        assert!((HOUR - 1_000..=HOUR).contains(&lead_ms), "{lead_ms}");
        assert!(clock.now() >= latest);
        assert_eq!(clock.advance_to(latest - 2 * HOUR), 0);
        assert!(clock.now() >= latest);
    }

    #[test]
    fn no_thread_sees_the_clock_go_back() {
        let clock = SystemClock::with_offset(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut before = clock.now();
                    for _ in 0..10_000 {
                        let now = clock.now();
                        assert!(now >= before);
                        before = now;
                    }
                });
            }
        });
    }
}
