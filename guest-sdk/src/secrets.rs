//! The secrets of the graph. A node sees those that it declared by `reads` in
//! [`export!`](crate::export!), and always the current values.
//!
//! Nothing hides a secret that a node puts into its outputs, its log or the
//! store: that is up to the node.

use crate::imports::secrets as host;

/// The current value of a secret; nothing for one that was not declared.
pub fn get(name: &str) -> Option<String> {
    host::get(name)
}
