//! What time it is: a parameter, so that tests may say so.

use crate::ids::Millis;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 (UTC).
    fn now(&self) -> Millis;
}
