//! Runs nodes: each execution of a guest in a sandbox of its own, with limits
//! on everything that it can use, and a typed answer whatever it does.
//!
//! This is the only crate that knows wasmtime. It reads the run's store by a
//! trait and gives the writes back as a journal; it knows no database, no
//! graph, no retry, and no HTTP but that of guests.
//!
//! How the parts lie, in the order in which a plugin meets them: [`Sandbox`]
//! owns an engine (`engine`), a clock for it (`ticker`) and an order in which
//! guests that run for long go on (`fair_semaphore`); an upload passes `admit`, which has
//! it counted (`inspect`) and compiled by a process of its own ([`compiler`]);
//! `plugins` keeps what was compiled, in memory and in the `cache` on disk;
//! `invoke` runs a node in a `host` of its own, whose capabilities are one file
//! each (`context`, `store`, `secrets`, `log`, `wasi`, `config`, `http`), whose
//! use is bounded by `limiter`, `meter` and `breach`, and whose end is judged by
//! `failure` and `output`. What it says is cleaned by `text`, and kept clear of
//! its secrets by `redact`.

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
