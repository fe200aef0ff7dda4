//! The clock: a parameter, so that tests can set the time.

use crate::ids::Millis;

/// A source of the current time.
pub trait Clock: Send + Sync {
    /// Returns the milliseconds since 1970 (UTC).
    fn now(&self) -> Millis;
}
