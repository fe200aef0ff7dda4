//! The limits that a graph sets for all its nodes, and a node for itself: how
//! they are read, and that they lower what the host and the namespace allow.
//!
//! Not here: what a limit is; see [`crate::limits`].

use std::borrow::Cow;

use serde_json::Value;

use super::problems::{Object, Problems, member, whole};
use super::raw::RawGraph;
use crate::limits::{Level, Limit, LimitValues, Limits};

/// Reads `limits` of a graph or a node. `own` are those that have a field of
/// their own, and are no members here.
pub fn read(value: &Value, path: &str, own: &[Limit], problems: &mut Problems) -> LimitValues {
    let here = || Limit::ALL.iter().copied().filter(|limit| !own.contains(limit));
    let names: Vec<&str> = here().map(Limit::name).collect();
    let mut value = Cow::Borrowed(value);
    for name in own.iter().map(|limit| limit.name()) {
        if value.get(name).is_none() {
            continue;
        }
        problems.add(member(path, name), format!("`{name}` stands beside `limits`; move it there"));
        // It is told once.
        value.to_mut().as_object_mut().and_then(|map| map.remove(name));
    }
    let Some(object) = Object::read(&value, path, &names, problems) else {
        return LimitValues::default();
    };
    let read = |limit: Limit| Some((limit, number(&object, limit, problems)?));
    here().filter_map(read).collect()
}

/// Reads the number of a limit, if it is there.
pub fn number(object: &Object<'_>, limit: Limit, problems: &mut Problems) -> Option<u64> {
    let range = limit.range();
    object.read_as(limit.name(), problems, |value| whole(value, *range.start(), *range.end()))
}

/// Notes whatever is higher than the limits of whoever stands above.
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
