//! Reads the limits that a graph sets for all its nodes, and a node for itself.
//!
//! Not here: whether they are allowed; see `limits`.

use std::borrow::Cow;

use serde_json::Value;

use super::problems::{Object, Problems, member, whole_number};
use crate::limits::{Limit, LimitValues};

/// Reads the `limits` of a graph or a node. The limits in `own` have a field of
/// their own and are not valid keys here.
pub fn read_limits(
    value: &Value,
    path: &str,
    own_fields: &[Limit],
    problems: &mut Problems,
) -> LimitValues {
    let allowed = || Limit::ALL.iter().copied().filter(|limit| !own_fields.contains(limit));
    let names: Vec<&str> = allowed().map(Limit::name).collect();
    let mut value = Cow::Borrowed(value);
    for name in own_fields.iter().map(|limit| limit.name()) {
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
    let read = |limit: Limit| Some((limit, read_limit(&object, limit, problems)?));
    allowed().filter_map(read).collect()
}

/// Reads the number of a limit, if it is set.
pub fn read_limit(object: &Object<'_>, limit: Limit, problems: &mut Problems) -> Option<u64> {
    let range = limit.range();
    object
        .read_as(limit.name(), problems, |value| whole_number(value, *range.start(), *range.end()))
}
