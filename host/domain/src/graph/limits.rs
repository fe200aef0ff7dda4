//! The limits that a graph sets for all its nodes, and a node for itself. Reads
//! them, and checks that they only lower those of the host and the namespace.
//!
//! Not here: what a limit is; see [`crate::limits`].

use std::borrow::Cow;

use serde_json::Value;

use super::problems::{Object, Problems, member, whole};
use super::raw::RawGraph;
use crate::limits::{Level, Limit, LimitValues, Limits};

/// Reads the `limits` of a graph or a node. The limits in `own` have a field of
/// their own and are not valid keys here.
pub fn read(value: &Value, path: &str, own: &[Limit], problems: &mut Problems) -> LimitValues {
    let here = || Limit::ALL.iter().copied().filter(|limit| !own.contains(limit));
    let names: Vec<&str> = here().map(Limit::name).collect();
    let mut value = Cow::Borrowed(value);
    for name in own.iter().map(|limit| limit.name()) {
        if value.get(name).is_none() {
            continue;
        }
        problems.add(member(path, name), format!("`{name}` stands beside `limits`; move it there"));
        // The problem is reported once.
        value.to_mut().as_object_mut().and_then(|map| map.remove(name));
    }
    let Some(object) = Object::read(&value, path, &names, problems) else {
        return LimitValues::default();
    };
    let read = |limit: Limit| Some((limit, number(&object, limit, problems)?));
    here().filter_map(read).collect()
}

/// Reads the number of a limit, if it is set.
pub fn number(object: &Object<'_>, limit: Limit, problems: &mut Problems) -> Option<u64> {
    let range = limit.range();
    object.read_as(limit.name(), problems, |value| whole(value, *range.start(), *range.end()))
}

/// Records a problem for each limit that is higher than the level above allows.
pub fn check(raw: &RawGraph, allowed: &Limits, problems: &mut Problems) {
    let mut note = |allowed: &Limits, limit: Limit, value: u64, path: String| {
        if let Some(why) = allowed.forbids(limit, value) {
            problems.add(path, why);
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
