//! The pure core of Exosphere: what graphs, runs and states are, and what may
//! become of them. Data in, data out.
//!
//! Not here: databases, HTTP, WebAssembly, clocks, threads. Time, random
//! numbers and new ids are parameters. This crate knows no other of ours.

pub mod text;
pub mod json;
pub mod ids;
pub mod clock;
pub mod path;
pub mod failure;
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
pub mod state;
pub mod repeat;
pub mod plan;
pub mod unite;
pub mod manual_retry;
pub mod inputs;
