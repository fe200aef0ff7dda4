//! Checks of a start request: its inputs override those of the root, its store
//! values override the defaults.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::input_check::{InputNames, Values};
use super::problems::{Problems, kind, member};
use super::raw::read_store_values;
use super::{Graph, Problem};
use crate::budget::Budget;
use crate::limits::{Limit, Limits};
use crate::node::DescribedNode;

/// The inputs and store values with which a run starts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Start {
    /// Inputs of the root, which override those of the graph. They are values,
    /// not templates.
    pub inputs: Map<String, Value>,
    /// The whole store, defaults included.
    pub store: BTreeMap<String, String>,
}

/// Checks a start request within a budget. `root` describes the node at which
/// the run begins.
///
/// # Errors
/// All problems found, at least one. Paths begin at the request: `$.inputs`,
/// `$.store`.
pub fn check_start(
    graph: &Graph,
    root: &DescribedNode,
    (inputs, store): (Option<&Value>, Option<&Value>),
    limits: &Limits,
    budget: &dyn Budget,
) -> Result<Start, Vec<Problem>> {
    let mut problems = Problems::default();
    let inputs = check_inputs(root, inputs, limits, budget, &mut problems);
    let store = check_store(graph, store, limits, &mut problems);
    problems.or(Some(Start { inputs, store }))
}

fn without_null(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

fn check_inputs(
    root: &DescribedNode,
    inputs: Option<&Value>,
    limits: &Limits,
    budget: &dyn Budget,
    problems: &mut Problems,
) -> Map<String, Value> {
    const PATH: &str = "$.inputs";
    let Some(inputs) = without_null(inputs) else { return Map::new() };
    let Value::Object(inputs) = inputs else {
        problems.add(PATH, format!("this is {}, and must be an object", kind(inputs)));
        return Map::new();
    };
    let bytes = serde_json::to_vec(inputs).map_or(0, |text| text.len() as u64);
    if let Some(cause) = too_much(bytes, Limit::InputBytes, limits) {
        problems.add(PATH, cause);
        return Map::new();
    }
    let names = InputNames::new(&root.description);
    let values = Values::within(budget);
    for (name, value) in inputs {
        if names.check(name, PATH, problems) {
            values.check(root, (name, value), PATH, problems);
        }
    }
    inputs.clone()
}

fn check_store(
    graph: &Graph,
    store: Option<&Value>,
    limits: &Limits,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    const PATH: &str = "$.store";
    let mut values = graph.store().default_values.clone();
    if let Some(store) = without_null(store) {
        values.extend(read_store_values(store, PATH, problems));
    }
    // A value that could not be read is not reported as missing, too.
    let unread = |key: &String| match store {
        None | Some(Value::Null) => false,
        Some(Value::Object(entries)) => entries.contains_key(key),
        Some(_) => true,
    };
    let is_present = |key: &String| values.contains_key(key) || unread(key);
    for key in graph.store().required_keys.iter().filter(|key| !is_present(key)) {
        problems.add(PATH, format!("the required store key {key:?} is missing; give it"));
    }
    for (key, value) in &values {
        let cause = too_much(value.len() as u64, Limit::StoreValueBytes, limits);
        cause.into_iter().for_each(|cause| problems.add(member(PATH, key), cause));
    }
    let bytes: u64 = values.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    for (number, limit) in [(values.len() as u64, Limit::StoreKeys), (bytes, Limit::StoreBytes)] {
        let cause = too_much(number, limit, limits);
        cause.into_iter().for_each(|cause| problems.add(PATH, cause));
    }
    values
}

fn too_much(number: u64, limit: Limit, limits: &Limits) -> Option<String> {
    let max = limits.get(limit);
    (number > max).then(|| {
        let (unit, bounded) = (limit.unit(), limit.bounded());
        format!(
            "too much: {bounded}: {}; the limit is {} (`{limit}`)",
            unit.show(number),
            unit.show(max)
        )
    })
}
