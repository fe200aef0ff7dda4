//! Resource usage of one attempt.

use serde::{Deserialize, Serialize};

/// Resource usage of one attempt, so that limits can be set from evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// CPU time of the guest, in microseconds.
    pub cpu_us: u64,
    /// Peak size of all its linear memories together, in bytes.
    pub peak_memory_bytes: u64,
    /// Calls of host functions.
    pub host_calls: u32,
    /// Bytes of its inputs and of the HTTP responses that it received.
    pub input_bytes: u64,
    /// Bytes of its outputs and of the HTTP requests that it sent.
    pub output_bytes: u64,
}
