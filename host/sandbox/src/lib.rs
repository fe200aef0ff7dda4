//! Runs nodes: each execution of a guest in a separate sandbox, with limits on
//! everything that it can use, and a typed result whatever the guest does.
//!
//! This is the only crate that knows wasmtime. It reads the run's store through a trait
//! and returns the writes as a journal. It knows no database, no graph, no retry, and
//! no HTTP but that of guests.
//!
//! The modules, in the order in which a plugin meets them:
//!
//! [`Sandbox`] owns an engine (`engine`), its clock (`ticker`) and the queue in which
//! guests that run for long take turns (`fair_semaphore`). An upload passes `admit`,
//! which has it counted (`inspect`) and compiled by a separate process ([`compiler`]).
//! `plugins` keeps the compiled code in memory, `cache` on disk.
//!
//! `invoke` runs a node in a separate `host`, whose capabilities are one file each
//! (`context`, `store`, `secrets`, `log`, `wasi`, `config`, `http`). `limiter`, `meter`
//! and `breach` bound its use; `failure` and `output` judge its end. `text` cleans its
//! messages, and `redact` hides its secrets in them.

mod sandbox;

mod engine;
mod ticker;
mod fair_semaphore;

mod admit;
mod refused;
mod inspect;
pub mod compiler;
mod artifact;
mod cache;
mod plugins;

mod bindings;
mod host;
mod invoke;

mod config;
mod context;
mod http;
mod log;
mod secrets;
mod store;
mod wasi;

mod breach;
mod clock;
mod limiter;
mod meter;

mod failure;
mod output;
mod redact;
mod text;

pub use admit::{Admitted, Candidate};
pub use cache::DEFAULT_CACHE_BYTES;
pub use compiler::{AdmissionLimits, Compiler};
pub use context::Context;
pub use fair_semaphore::{FairPermit, FairSemaphore};
pub use http::HttpConfig;
pub use inspect::{CustomSection, Facts};
pub use invoke::{Cancel, Completion, Invocation};
pub use ipnet::IpNet;
pub use log::{LogLevel, LogLine};
pub use plugins::{LoadError, Plugin};
pub use refused::{CompileLimit, Refused};
pub use sandbox::{DEFAULT_SLOTS, Sandbox, SandboxConfig, SetupError};
pub use secrets::{Secret, SecretSet, Secrets};
pub use store::{RunStore, Unavailable};
