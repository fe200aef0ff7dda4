//! What is being executed: which run, which state, which attempt.
//!
//! Nothing here changes while a node runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::imports::context as host;

/// The namespace that the run belongs to.
pub fn namespace() -> String {
    host::namespace()
}

/// The name of the graph.
pub fn graph() -> String {
    host::graph()
}

/// The id of the run, a UUID.
pub fn run() -> String {
    host::run()
}

/// The id of the state, as people see it: `{run}/{number}`.
pub fn state() -> String {
    host::state()
}

/// The identifier of this node in the graph.
pub fn identifier() -> String {
    host::identifier()
}

/// Which attempt this is, from 1. Every execution of the state counts, those
/// after a requeue too.
pub fn attempt() -> u32 {
    host::attempt()
}

/// The same for every attempt of the same work. A node may be executed more
/// than once; hand this to outside systems, so that work which is done again
/// has its effect there once.
pub fn idempotency_key() -> String {
    host::idempotency_key()
}

/// When this attempt will be stopped.
pub fn deadline() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(host::deadline())
}
