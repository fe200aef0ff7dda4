//! Runs nodes: each execution of a guest in a separate sandbox, with limits on everything that
//! it can use, and a typed result whatever the guest does.
//!
//! This is the only crate that knows wasmtime. It reads the run's store through a trait and
//! returns the writes as a journal. It knows no database, no graph, no retry, and no HTTP but
//! that of guests.
//!
//! Layout, in the order in which a plugin passes the modules:
//!
//! [`Sandbox`] owns an `engine`, its clock and the queue in which guests that run for long take
//! turns (`fair_semaphore`). An upload passes `admission`, which has it counted
//! (`admission::inspect`) and compiled by a separate process ([`compiler`]). `load` makes a
//! plugin ready to run; `plugins` keeps it in memory, `artifact_cache` on disk.
//!
//! `invoke` runs a node in a separate `guest`, whose capabilities are one file each. `limits`
//! bounds its use; `failure` and `output` classify its end. `sanitize` cleans its messages, and
//! `redact` hides its secrets in them.

mod sandbox;

mod engine;
mod fair_semaphore;

mod admission;
pub mod compiler;
mod artifact;
mod artifact_cache;
mod load;
mod plugins;

mod bindings;
mod invoke;
mod guest;

mod clock;
mod limits;

mod failure;
mod output;
mod redact;
mod sanitize;

pub use admission::error::{AdmissionError, CompileLimit};
pub use admission::inspect::{ComponentSummary, CustomSection};
pub use admission::{Admitted, Candidate};
pub use artifact_cache::DEFAULT_CACHE_BYTES;
pub use compiler::{AdmissionLimits, Compiler};
pub use fair_semaphore::{FairPermit, FairSemaphore};
pub use guest::context::Context;
pub use guest::http::HttpConfig;
pub use guest::log::{LogLevel, LogLine};
pub use guest::run_store::{RunStore, Unavailable};
pub use guest::secrets::{Secret, SecretSet, Secrets};
pub use invoke::{Cancel, Completion, Invocation};
pub use ipnet::IpNet;
pub use load::LoadError;
pub use plugins::Plugin;
pub use sandbox::{Sandbox, SandboxConfig, SetupError};
