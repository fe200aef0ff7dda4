//! A case of the target `budget`: a guest with its schemas and acts, its graph, secrets, and
//! requests to the host. Large parts are recipes (`crate::expand`), so that a saved case is
//! readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Mutator, NAME, schema};
use crate::acts::{self, Act, Text};
use crate::expand::random_letters;

/// Bytes of all outputs of one execution: a little more than its limit.
const OUTPUT_BYTES: usize = 34 << 20;

/// Lengths of secrets near thresholds, up to the longest secret.
const SECRET_LENGTHS: [usize; 7] = [0, 1, 7, 64, 1_000, 60_000, 65_536];

/// One case.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    inputs: Value,
    outputs: Value,
    pub acts: Vec<Act>,
    /// The secrets, each a text or the recipe of one.
    pub secrets: BTreeMap<String, Value>,
    /// The graph without the secrets.
    graph: Value,
    /// Inputs of each run.
    pub start: Value,
    pub runs: usize,
    /// Number of simultaneous requests for its validation.
    pub validations: usize,
}

impl Case {
    pub(super) fn random(mutator: &mut Mutator) -> Case {
        let secrets = secrets(mutator);
        let acts = acts(mutator, &secrets);
        // Most cases have one kind of expensive part: with more, most would be rejected.
        let plain = json!({"type": "object"});
        let (heavy_inputs, heavy_outputs) = (mutator.once_in(3), mutator.once_in(2));
        Case {
            inputs: if heavy_inputs { schema::random(mutator) } else { plain.clone() },
            outputs: if heavy_outputs { schema::random(mutator) } else { plain },
            acts,
            secrets,
            graph: graph(mutator),
            start: if mutator.once_in(3) { json!({"x": large(mutator)}) } else { json!({}) },
            runs: 1 + mutator.below(4),
            validations: mutator.below(4),
        }
    }

    /// Returns the description of the guest, with recipes.
    pub(super) fn description(&self) -> Value {
        let secrets: Vec<&str> = self.secrets.keys().map(String::as_str).collect();
        json!({"nodes": [acts::node(NAME, &self.inputs, &self.outputs, &secrets)]})
    }

    /// Returns the graph as it is applied, with recipes.
    pub(super) fn whole_graph(&self) -> Value {
        let mut graph = self.graph.clone();
        if let Value::Object(map) = &mut graph {
            map.insert("secrets".to_owned(), json!(self.secrets));
        }
        graph
    }
}

fn secrets(mutator: &mut Mutator) -> BTreeMap<String, Value> {
    let count = if mutator.once_in(2) { 0 } else { 1 + mutator.below(10) };
    let mut secrets = BTreeMap::new();
    for number in 0..count {
        let length = *mutator.pick(&SECRET_LENGTHS);
        let secret = match mutator.below(4) {
            0 => json!({"@random": [length, mutator.below(1_000)]}),
            1 => json!({"@text": [length, mutator.pick(&["a", "\n", " ", "0"])]}),
            2 => {
                let period = 1 + mutator.below(40);
                let pattern = random_letters(period, mutator.below(1_000) as u64);
                json!({"@text": [length / period, pattern]})
            }
            _ => json!({"@text": [length / 20, "a line of a secret\r\n"]}),
        };
        secrets.insert(format!("s{number}"), secret);
    }
    secrets
}

fn acts(mutator: &mut Mutator, secrets: &BTreeMap<String, Value>) -> Vec<Act> {
    let mut acts = Vec::new();
    for name in secrets.keys() {
        if mutator.once_in(2) {
            acts.push(Act::LogSecret(name.clone(), mutator.below(20) as u32));
        }
    }
    if mutator.once_in(2) {
        let again = *mutator.pick(&["x", "ab", "a line of a secret\r\n", "\u{1b}[31m", "ä", "\n"]);
        let times = mutator.below(9_000) / again.len();
        let text = Text { again: again.to_owned(), times, ..Text::default() };
        acts.push(Act::Log(text, mutator.below(1_500) as u32));
    }
    match mutator.below(8) {
        0 => acts.push(Act::Fail(Text {
            again: "no ".into(),
            times: mutator.below(100_000),
            ..Text::default()
        })),
        1 => {}
        _ => {
            let text = output(mutator);
            let max = (OUTPUT_BYTES / text.len().max(1)).min(200_001);
            let times = *mutator.pick(&[1, 1, 1, 8, 100, 20_000, 200_000]);
            acts.push(Act::Output(text, times.min(max) as u32));
        }
    }
    acts
}

/// Draws the text of an output: an object that is large, deep or heavy, or not an object.
fn output(mutator: &mut Mutator) -> Text {
    let name = *mutator.pick(&schema::NAMES);
    let whole = |before: &str, again: &str, times: usize, after: &str| Text {
        before: format!("{{\"{name}\":{before}"),
        again: again.to_owned(),
        times,
        after: format!("{after}}}"),
    };
    let times = *mutator.pick(&[0, 10, 1_000, 30_000, 1_000_000]);
    match mutator.below(10) {
        0..=2 => Text::plain("{}"),
        3 => whole("[", "1,", times, "1]"),
        4 => whole("[", "{},", times, "{}]"),
        5 => {
            let piece = *mutator.pick(&["a", "needle ", "\\u0000", "x y "]);
            whole("\"", piece, times / 4, "\"")
        }
        6 => {
            let deep = mutator.below(70);
            let (open, shut) = *mutator.pick(&[("[", "]"), ("{\"x\":", "}")]);
            whole(&open.repeat(deep), "", 0, &format!("1{}", shut.repeat(deep)))
        }
        7 => whole("[", "[[1],[1]],", times / 4, "1]"),
        8 => whole("[", "1e-300,0.1,18446744073709551615,", times / 20, "1]"),
        _ => whole(&mutator.random_json(4).to_string(), "", 0, ""),
    }
}

fn large(mutator: &mut Mutator) -> Value {
    let times = *mutator.pick(&[0, 100, 10_000, 300_000]);
    match mutator.below(6) {
        0 => json!({"@list": [times, 1]}),
        1 => json!({"@list": [times / 10, {"x": 0.1}]}),
        2 => json!({"@text": [times, mutator.pick(&["a", "needle ", "ab"])]}),
        3 => json!({"@raw": {"@text": [times, "[1],"]}}),
        4 => json!({"@list": [times / 100, {"@list": [10, "n@n"]}]}),
        _ => mutator.random_json(6),
    }
}

/// Draws a graph of the guest: one node, a chain, a fan, or a wide one.
fn graph(mutator: &mut Mutator) -> Value {
    let mut inputs = Map::new();
    if mutator.once_in(2) {
        inputs.insert((*mutator.pick(&schema::NAMES)).to_owned(), large(mutator));
    }
    let attack = |identifier: &str, next: Value| {
        json!({"node_name": NAME, "plugin": NAME, "identifier": identifier, "inputs": inputs,
               "next_nodes": next})
    };
    let fan = |n: usize, next: &str| {
        json!({"node_name": "fan", "plugin": "lab", "identifier": "fan", "inputs": {"n": n},
               "next_nodes": [next]})
    };
    let nodes = match mutator.below(6) {
        0 => json!([attack("root", json!([]))]),
        1 => {
            let last = 1 + mutator.below(60);
            let next =
                |at: usize| if at == last { json!([]) } else { json!([format!("n{}", at + 1)]) };
            (0..=last).map(|at| attack(&format!("n{at}"), next(at))).collect()
        }
        2 | 3 => {
            let width = *mutator.pick(&[2, 4, 50, 1_000, 20_000]);
            json!([fan(width, "root"), attack("root", json!([]))])
        }
        4 => {
            let width = 1 + mutator.below(100);
            json!({"@join": [
                [attack("root", json!({"@list": [width, "n@n"]}))],
                {"@list": [width, attack("n@n", json!([]))]},
            ]})
        }
        _ => {
            let mut last = attack("root", json!(["last"]));
            last["inputs"] = json!({});
            json!([fan(1 + mutator.below(300), "root"), last, {
                "node_name": "collect", "plugin": "lab", "identifier": "last", "next_nodes": [],
                "inputs": {"values": "${{ fan.outputs.value }}"}, "unites": {"identifier": "fan"},
            }])
        }
    };
    let retries = *mutator.pick(&[0, 0, 3, 100_000]);
    let mut graph = json!({
        "nodes": nodes,
        "retry_policy": {"max_retries": retries, "strategy": "FIXED", "backoff_factor": mutator.below(2)},
    });
    if mutator.once_in(3) {
        graph["limits"] = json!({"cpu_ms": 1 + mutator.below(1_000)});
    }
    graph
}
