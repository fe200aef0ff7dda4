//! The machine's own clock. A guest reads it too, through WASI, so what we
//! tell a guest about time (its deadline) and note about it (its log) is of
//! this clock and of no other. Nothing is decided by it.

use std::time::SystemTime;

use exosphere_domain::ids::Millis;

/// The time by the machine.
#[allow(clippy::disallowed_methods)] // See above: no other clock would do.
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// The same in milliseconds since 1970.
pub(crate) fn now() -> Millis {
    let since = system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
