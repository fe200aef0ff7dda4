//! The configuration of a host, with its defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use exosphere_domain::ids::Millis;
use exosphere_domain::limits::Limits;
use exosphere_sandbox::{
    AdmissionLimits, DEFAULT_CACHE_BYTES as DEFAULT_CODE_CACHE_BYTES, HttpConfig,
};
use tokio::runtime::Handle;

use crate::keys::source::KeySource;
use crate::traces::TraceConfig;

/// The configuration of a host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder, which belongs to this host alone: key, code cache, and the database
    /// unless that is elsewhere.
    pub data: PathBuf,
    /// The name of this host, for people.
    pub host_name: String,
    /// The URL of a Postgres database, which many hosts may share.
    pub database: Option<String>,
    /// The source of the keys that encrypt secrets. Hosts that share a database share
    /// them.
    pub keys: KeySource,
    /// The number of slots: nodes that run at a time.
    pub slots: u32,
    /// The number of slots of one namespace, unless the namespace has a number of its own.
    pub namespace_slots: u32,
    /// Limits of an attempt.
    pub limits: Limits,
    /// Destinations of nodes' HTTP requests, beyond the public internet.
    pub http: HttpConfig,
    /// Limits of the admission of a plugin.
    pub admission: AdmissionLimits,
    /// Bytes of compiled code that the folder may hold.
    pub code_cache_bytes: u64,
    /// Requests a second that the host takes with one key, unless the key has a rate of its own.
    pub requests_per_key: u32,
    /// The time for which the audit log is kept.
    pub audit_retention: Duration,
    /// Set if the API asks for no keys; then the host creates none, either.
    pub no_auth: bool,
    /// The number of lines that the log of the process has dropped.
    pub dropped_log_lines: Arc<AtomicU64>,
    /// Where the host sends its traces; `None` if it sends none.
    pub traces: Option<TraceConfig>,
    /// Offset of this host's clock in milliseconds, for tests.
    pub clock_offset: Millis,
    /// The runtime for executions and other work on behalf of guests and callers
    /// [default: the runtime that starts the host]. Commits, heartbeats and answers do
    /// not depend on it.
    pub work: Option<Handle>,
}

impl Config {
    /// Creates the configuration of a host in a folder, with defaults for the rest.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Config {
            data: data.into(),
            host_name: machine_name(),
            database: None,
            keys: KeySource::default(),
            slots: DEFAULT_SLOTS,
            namespace_slots: share_of(DEFAULT_SLOTS),
            limits: Limits::default(),
            http: HttpConfig::default(),
            admission: AdmissionLimits::default(),
            code_cache_bytes: DEFAULT_CODE_CACHE_BYTES,
            requests_per_key: DEFAULT_REQUESTS_PER_KEY,
            audit_retention: DEFAULT_AUDIT_RETENTION,
            no_auth: false,
            dropped_log_lines: Arc::default(),
            traces: None,
            clock_offset: 0,
            work: None,
        }
    }
}

/// Returns the name of this machine, which names the host unless the operator does.
pub fn machine_name() -> String {
    let name = hostname::get().map(|name| name.to_string_lossy().into_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "host".to_owned())
}

/// Requests a second with one key, unless the operator or the key sets it.
pub const DEFAULT_REQUESTS_PER_KEY: u32 = 10_000;

/// The time for which the audit log is kept, unless the operator sets it: a year.
pub const DEFAULT_AUDIT_RETENTION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Number of slots of a host, unless the operator sets it.
pub const DEFAULT_SLOTS: u32 = 64;

/// Returns the number of a host's slots that one namespace may have by default. It is three of
/// four, so that other namespaces always have some.
pub fn share_of(slots: u32) -> u32 {
    slots.saturating_sub(slots / 4).max(1)
}
