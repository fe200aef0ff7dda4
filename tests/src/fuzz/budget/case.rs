//! A case of the target `budget`: a guest with its schemas and acts, a graph of it, secrets, and
//! requests to the host. Large parts are recipes (`crate::expand`), so that a kept case can be
//! read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Chance, NAME, schema};
use crate::acts::{self, Act, Text};
use crate::expand::random_letters;

/// Bytes of all outputs of one execution: a little more than its limit.
const OUTPUT_BYTES: usize = 34 << 20;

/// Lengths near thresholds, up to the longest secret.
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
    pub(super) fn by_chance(chance: &mut Chance) -> Case {
        let secrets = secrets(chance);
        let acts = acts(chance, &secrets);
        // Mostly one kind of weight at a time, or most cases would be refused.
        let plain = json!({"type": "object"});
        let (heavy_inputs, heavy_outputs) = (chance.once_in(3), chance.once_in(2));
        Case {
            inputs: if heavy_inputs { schema::by_chance(chance) } else { plain.clone() },
            outputs: if heavy_outputs { schema::by_chance(chance) } else { plain },
            acts,
            secrets,
            graph: graph(chance),
            start: if chance.once_in(3) { json!({"x": large(chance)}) } else { json!({}) },
            runs: 1 + chance.below(4),
            validations: chance.below(4),
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

fn secrets(chance: &mut Chance) -> BTreeMap<String, Value> {
    let count = if chance.once_in(2) { 0 } else { 1 + chance.below(10) };
    let mut secrets = BTreeMap::new();
    for number in 0..count {
        let length = *chance.one(&SECRET_LENGTHS);
        let secret = match chance.below(4) {
            0 => json!({"@random": [length, chance.below(1_000)]}),
            1 => json!({"@text": [length, chance.one(&["a", "\n", " ", "0"])]}),
            2 => {
                let period = 1 + chance.below(40);
                let pattern = random_letters(period, chance.below(1_000) as u64);
                json!({"@text": [length / period, pattern]})
            }
            _ => json!({"@text": [length / 20, "a line of a secret\r\n"]}),
        };
        secrets.insert(format!("s{number}"), secret);
    }
    secrets
}

fn acts(chance: &mut Chance, secrets: &BTreeMap<String, Value>) -> Vec<Act> {
    let mut acts = Vec::new();
    for name in secrets.keys() {
        if chance.once_in(2) {
            acts.push(Act::LogSecret(name.clone(), chance.below(20) as u32));
        }
    }
    if chance.once_in(2) {
        let again = *chance.one(&["x", "ab", "a line of a secret\r\n", "\u{1b}[31m", "ä", "\n"]);
        let times = chance.below(9_000) / again.len();
        let text = Text { again: again.to_owned(), times, ..Text::default() };
        acts.push(Act::Log(text, chance.below(1_500) as u32));
    }
    match chance.below(8) {
        0 => acts.push(Act::Fail(Text {
            again: "no ".into(),
            times: chance.below(100_000),
            ..Text::default()
        })),
        1 => {}
        _ => {
            let text = output(chance);
            let most = (OUTPUT_BYTES / text.len().max(1)).min(200_001);
            let times = *chance.one(&[1, 1, 1, 8, 100, 20_000, 200_000]);
            acts.push(Act::Output(text, times.min(most) as u32));
        }
    }
    acts
}

/// Draws the text of an output: an object that is large, deep or heavy, or not an object.
fn output(chance: &mut Chance) -> Text {
    let name = *chance.one(&schema::NAMES);
    let whole = |before: &str, again: &str, times: usize, after: &str| Text {
        before: format!("{{\"{name}\":{before}"),
        again: again.to_owned(),
        times,
        after: format!("{after}}}"),
    };
    let times = *chance.one(&[0, 10, 1_000, 30_000, 1_000_000]);
    match chance.below(10) {
        0..=2 => Text::plain("{}"),
        3 => whole("[", "1,", times, "1]"),
        4 => whole("[", "{},", times, "{}]"),
        5 => {
            let piece = *chance.one(&["a", "needle ", "\\u0000", "x y "]);
            whole("\"", piece, times / 4, "\"")
        }
        6 => {
            let deep = chance.below(70);
            let (open, shut) = *chance.one(&[("[", "]"), ("{\"x\":", "}")]);
            whole(&open.repeat(deep), "", 0, &format!("1{}", shut.repeat(deep)))
        }
        7 => whole("[", "[[1],[1]],", times / 4, "1]"),
        8 => whole("[", "1e-300,0.1,18446744073709551615,", times / 20, "1]"),
        _ => whole(&chance.value(4).to_string(), "", 0, ""),
    }
}

fn large(chance: &mut Chance) -> Value {
    let times = *chance.one(&[0, 100, 10_000, 300_000]);
    match chance.below(6) {
        0 => json!({"@list": [times, 1]}),
        1 => json!({"@list": [times / 10, {"x": 0.1}]}),
        2 => json!({"@text": [times, chance.one(&["a", "needle ", "ab"])]}),
        3 => json!({"@raw": {"@text": [times, "[1],"]}}),
        4 => json!({"@list": [times / 100, {"@list": [10, "n@n"]}]}),
        _ => chance.value(6),
    }
}

/// Draws a graph of the guest: one node, a chain, a fan, or a wide one.
fn graph(chance: &mut Chance) -> Value {
    let mut inputs = Map::new();
    if chance.once_in(2) {
        inputs.insert((*chance.one(&schema::NAMES)).to_owned(), large(chance));
    }
    let attack = |identifier: &str, next: Value| json!({"node_name": NAME, "plugin": NAME, "identifier": identifier, "inputs": inputs, "next_nodes": next});
    let fan = |n: usize, next: &str| json!({"node_name": "fan", "plugin": "lab", "identifier": "fan", "inputs": {"n": n}, "next_nodes": [next]});
    let nodes = match chance.below(6) {
        0 => json!([attack("root", json!([]))]),
        1 => {
            let last = 1 + chance.below(60);
            let next =
                |at: usize| if at == last { json!([]) } else { json!([format!("n{}", at + 1)]) };
            (0..=last).map(|at| attack(&format!("n{at}"), next(at))).collect()
        }
        2 | 3 => {
            let width = *chance.one(&[2, 4, 50, 1_000, 20_000]);
            json!([fan(width, "root"), attack("root", json!([]))])
        }
        4 => {
            let width = 1 + chance.below(100);
            json!({"@join": [
                [attack("root", json!({"@list": [width, "n@n"]}))],
                {"@list": [width, attack("n@n", json!([]))]},
            ]})
        }
        _ => {
            let mut last = attack("root", json!(["last"]));
            last["inputs"] = json!({});
            json!([fan(1 + chance.below(300), "root"), last, {
                "node_name": "collect", "plugin": "lab", "identifier": "last", "next_nodes": [],
                "inputs": {"values": "${{ fan.outputs.value }}"}, "unites": {"identifier": "fan"},
            }])
        }
    };
    let retries = *chance.one(&[0, 0, 3, 100_000]);
    let mut graph = json!({
        "nodes": nodes,
        "retry_policy": {"max_retries": retries, "strategy": "FIXED", "backoff_factor": chance.below(2)},
    });
    if chance.once_in(3) {
        graph["limits"] = json!({"cpu_ms": 1 + chance.below(1_000)});
    }
    graph
}
