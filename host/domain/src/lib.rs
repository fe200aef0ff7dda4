//! The pure core of Exosphere: the rules of graphs, runs and states, and how
//! their status changes. Data in, data out.
//!
//! Not here: databases, HTTP, WebAssembly, clocks, threads. Time, random
//! numbers and new ids are parameters. This crate depends on no other crate of
//! the workspace.

pub mod unicode;
pub mod json;
pub mod ids;
pub mod role;
pub mod change_reason;
pub mod run_ref;
pub mod access;
pub mod api_key;
pub mod rate_limit;
pub mod quota;
pub mod clock;
pub mod outage_backoff;
pub mod path;
pub mod failure;
pub mod reason;
pub mod budget;
pub mod schema;
pub mod node;
pub mod template;
pub mod retry;
pub mod graph;
pub mod limits;
pub mod json_size;
pub mod grant;
pub mod journal;
pub mod outcome;
pub mod start_digest;
pub mod deadline;
pub mod state;
pub mod label;
pub mod filter;
pub mod bulk;
pub mod node_counts;
pub mod insight;
pub mod repeat;
pub mod plan;
pub mod plural;
pub mod unite;
pub mod wait_reason;
pub mod manual_retry;
pub mod render;
pub mod trace;
#[cfg(feature = "openapi")]
mod openapi;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
