//! Time, chance and fresh ids as the machine gives them: the one place that
//! asks for them. Everything further in takes them as parameters.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use uuid::Uuid;

/// The clock on the wall.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
    }
}

/// A uniform number in [0, 1), for the delay of a retry.
pub(crate) fn jitter() -> f64 {
    rand::random()
}

/// An id that nothing has, later than those before it.
pub(crate) fn fresh_id() -> Uuid {
    Uuid::now_v7()
}
