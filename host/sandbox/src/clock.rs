//! The machine's own clock. A guest reads it too, through WASI. So a time that the host
//! gives a guest (its deadline) or records of it (its log) comes from this clock only.
//! No decision depends on it.

use std::time::SystemTime;

use exosphere_domain::ids::Millis;

/// Returns the machine's time.
#[allow(clippy::disallowed_methods)] // See above: no other clock would do.
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Returns the machine's time in milliseconds since 1970.
pub(crate) fn now() -> Millis {
    let elapsed = system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX)
}
