//! What an attempt used.

use serde::{Deserialize, Serialize};

/// What an attempt used, so that limits can be set from evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time in which the guest was running, in microseconds.
    pub cpu_us: u64,
    /// The most bytes that its linear memories had together.
    pub peak_memory_bytes: u64,
    /// Calls of host functions.
    pub host_calls: u32,
    /// Bytes of its inputs, and of what it was sent over HTTP.
    pub input_bytes: u64,
    /// Bytes of its outputs, and of what it sent over HTTP.
    pub output_bytes: u64,
}
