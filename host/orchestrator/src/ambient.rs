//! Time, chance and fresh ids as the machine gives them: the one place that
//! asks for them. Everything further in takes them as parameters.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use uuid::Uuid;

/// The clock on the wall, so many milliseconds off.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock {
    offset: Millis,
}

impl SystemClock {
    /// A clock that is off: what a host must be able to live with.
    pub(crate) fn off_by(offset: Millis) -> Self {
        SystemClock { offset }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now =
            since.map_or(0, |since| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX));
        now.saturating_add(self.offset)
    }
}

/// A uniform number in [0, 1), for the delay of a retry.
pub(crate) fn jitter() -> f64 {
    rand::random()
}

/// An id that nothing has. Ids of a later time sort behind.
pub(crate) fn fresh_id(now: Millis) -> Uuid {
    let now = now.max(0).unsigned_abs();
    let since = uuid::Timestamp::from_unix(
        uuid::NoContext,
        now / 1000,
        u32::try_from(now % 1000 * 1_000_000).unwrap_or(0),
    );
    Uuid::new_v7(since)
}

/// An id for a mistake of ours, or for a host.
pub(crate) fn random_id() -> Uuid {
    Uuid::now_v7()
}
