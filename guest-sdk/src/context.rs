//! The context of an execution: its run, state and attempt.
//!
//! None of it changes while a node runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::imports::context as host;

/// Returns the namespace of the run.
pub fn namespace() -> String {
    host::namespace()
}

/// Returns the name of the graph.
pub fn graph() -> String {
    host::graph()
}

/// Returns the id of the run, a UUID.
pub fn run() -> String {
    host::run()
}

/// Returns the id of the state, as users see it: `{run}/{number}`.
pub fn state() -> String {
    host::state()
}

/// Returns the identifier of this node in the graph.
pub fn identifier() -> String {
    host::identifier()
}

/// Returns the number of this attempt, from 1. Every execution of the state counts,
/// including those after a requeue.
pub fn attempt() -> u32 {
    host::attempt()
}

/// Returns the idempotency key, which is the same for every attempt of the same work. A
/// node may be executed more than once; pass the key to outside systems, so that
/// repeated work takes effect there only once.
pub fn idempotency_key() -> String {
    host::idempotency_key()
}

/// Returns the deadline, at which the host stops this attempt.
pub fn deadline() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(host::deadline())
}
