//! The secrets of the graph. A node can read those that it declared by `reads` in
//! [`export!`](crate::export!), always with their current values.
//!
//! The host replaces secrets by `[secret NAME]` in logs and failures, as a guard against
//! accidents. It does not redact outputs and the store: keep secrets out of them.

use crate::imports::secrets as host;

/// Returns the current value of a secret, or `None` if the node did not declare it.
pub fn get(name: &str) -> Option<String> {
    host::get(name)
}
