//! The secrets of the graph. A node can read those that it declared by `reads` in
//! [`export!`](crate::export!), always with their current values.
//!
//! Nothing redacts a secret that a node writes to its outputs, its log or the store:
//! that is the node's responsibility.

use crate::imports::secrets as host;

/// Returns the current value of a secret, or `None` if the node did not declare it.
pub fn get(name: &str) -> Option<String> {
    host::get(name)
}
