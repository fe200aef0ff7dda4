//! Checks that the limits of a graph and its nodes only lower those of the host
//! and the namespace.
//!
//! Not here: reading them (`limit_fields`), and what a limit is; see
//! [`crate::limits`].

use super::problems::Problems;
use super::raw::RawGraph;
use crate::limits::{Level, Limit, Limits};

/// Records a problem for each limit that is higher than the level above allows.
pub fn check(raw: &RawGraph, allowed: &Limits, problems: &mut Problems) {
    let mut note = |allowed: &Limits, limit: Limit, value: u64, path: String| {
        if let Some(cause) = allowed.forbids(limit, value) {
            problems.add(path, cause);
        }
    };
    for (limit, value) in raw.limits.iter() {
        note(allowed, limit, value, format!("$.limits.{limit}"));
    }
    let mut allowed = allowed.clone();
    allowed.lower_all(Level::Graph, &raw.limits);
    for node in &raw.nodes {
        for (limit, value) in node.limits.iter() {
            let within = if limit == Limit::TimeoutMs { "" } else { ".limits" };
            note(&allowed, limit, value, format!("{}{within}.{limit}", node.path));
        }
    }
}
