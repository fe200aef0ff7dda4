//! The calls of the front ends, as methods of [`Host`](crate::Host): each checks a
//! request, reads or commits, and returns a typed answer.
//!
//! Not here: HTTP and the command line, and the execution of what was started.

pub(crate) mod request;
pub(crate) mod deletion;
mod revisions;
pub(crate) mod pauses;
pub(crate) mod bulk;
pub(crate) mod start;
pub(crate) mod run_control;
pub(crate) mod queries;
mod watch;
pub(crate) mod live;
pub(crate) mod logs;
mod why;
pub(crate) mod given;
pub(crate) mod results;
pub(crate) mod insight;
pub(crate) mod lookup;
mod secrets;
pub(crate) mod catalog;
pub(crate) mod admission;
pub(crate) mod namespaces;
mod hosts;
pub(crate) mod keys;
pub(crate) mod quotas;
pub(crate) mod large_json;
