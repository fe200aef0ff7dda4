//! The pipeline of a state through the host: claimed by the committer, handed to the executor
//! by the dispatcher, invoked, and committed by the committer again.
//!
//! Not here: requests of callers (`service`), and the other hosts (`cluster`).

pub(crate) mod committer;
mod dispatcher;
pub(crate) mod claims;
pub(crate) mod prefetch;
pub(crate) mod recall;
pub(crate) mod executor;
mod attempt;
mod planner;
mod plugins;
pub(crate) mod inputs;
pub(crate) mod json_budget;
pub(crate) mod secrets;
mod output_check;
mod run_store;
mod staging;
pub(crate) mod sweeps;
pub(crate) mod removals;
pub(crate) mod pauses;
pub(crate) mod bulk;
pub(crate) mod deadlines;
