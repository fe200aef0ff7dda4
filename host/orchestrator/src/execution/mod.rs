//! The way of a state through the host: claimed by the committer, handed to the executor
//! by the dispatcher, invoked, and committed by the committer again.
//!
//! Not here: requests of callers (`service`), and the other hosts (`cluster`).

pub(crate) mod committer;
pub(crate) mod dispatcher;
pub(crate) mod claims;
pub(crate) mod prefetch;
pub(crate) mod recall;
pub(crate) mod executor;
pub(crate) mod plugins;
pub(crate) mod inputs;
pub(crate) mod json_budget;
pub(crate) mod secrets;
pub(crate) mod output_check;
pub(crate) mod staging;
pub(crate) mod sweeps;
