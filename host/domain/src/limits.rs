//! What one attempt may use, and what it used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What one attempt may use. [`Limits::default`] is the host's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all linear memories together.
    pub memory_bytes: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Core instances, memories and tables of one component.
    pub instances: u32,
    /// Time on the CPU, counted in ticks of the engine's epoch.
    pub cpu: Duration,
    /// Time by the clock on the wall, unless the node has its own.
    pub wall: Duration,
    /// Bytes of the rendered inputs.
    pub input_bytes: u64,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
    /// Bytes of one output.
    pub output_bytes_each: u64,
    /// Number of outputs.
    pub outputs: u32,
    /// Depth of nesting of one output.
    pub output_depth: u32,
    /// Bytes of the log; the rest is dropped, with a mark.
    pub log_bytes: u64,
    /// Lines of the log; the rest is dropped, with a mark.
    pub log_lines: u32,
    /// Calls of host functions.
    pub host_calls: u32,
    /// Keys that a run's store may hold.
    pub store_keys: u32,
    /// Bytes of one value of the store.
    pub store_value_bytes: u64,
    /// Bytes of a run's store, keys and values.
    pub store_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 128 * MIB,
            table_elements: 100_000,
            instances: 100,
            cpu: Duration::from_secs(5),
            wall: Duration::from_secs(30),
            input_bytes: 32 * MIB,
            output_bytes: 32 * MIB,
            output_bytes_each: 4 * MIB,
            outputs: 200_000,
            output_depth: 64,
            log_bytes: 256 * KIB,
            log_lines: 1_000,
            host_calls: 100_000,
            store_keys: 1_000,
            store_value_bytes: 64 * KIB,
            store_bytes: 4 * MIB,
        }
    }
}

/// What an attempt used, so that limits can be set from evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time in which the guest was running, in microseconds.
    pub cpu_us: u64,
    /// The most bytes that its linear memories had together.
    pub peak_memory_bytes: u64,
    /// Calls of host functions.
    pub host_calls: u32,
    /// Bytes of its outputs.
    pub output_bytes: u64,
}
