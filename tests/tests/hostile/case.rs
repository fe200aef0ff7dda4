//! The format of a case: a folder of `tests/hostile` with a `case.json` and, if the guest is
//! written for it, a `guest.wat`.
//!
//! Not here: running a case (`harness`), and building its uploads (`exosphere_tests::guest`,
//! `generated_uploads`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use exosphere_tests::acts::Act;
use exosphere_tests::checkout;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::generated_uploads::GeneratedUpload;
use crate::trial::Trial;

/// A case, read from its folder.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub file: CaseFile,
}

/// The contents of a `case.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The guest's behaviour, in one sentence.
    #[serde(rename = "what")]
    _what: String,
    /// A node of a plugin of this project, `plugin/node`, instead of a `guest.wat`.
    pub node: Option<String>,
    /// The recipe of the bytes, instead of a `guest.wat`.
    pub recipe: Option<GeneratedUpload>,
    /// The acts of the guest in their order, instead of a `guest.wat`.
    pub acts: Option<Vec<Act>>,
    /// The guest's description, instead of the frame's.
    pub description: Option<Value>,
    /// Texts of the frame that occur there once, and their replacements.
    #[serde(default)]
    pub edits: Vec<(String, String)>,
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    limits: Map<String, Value>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    secrets: Map<String, Value>,
    /// The plugin's grants, set before the case runs.
    pub grants: Option<Value>,
    /// The number of repetitions. RSS is measured after the second and the last one.
    #[serde(default = "twenty")]
    pub repeat: u32,
    /// The reason for fewer than twenty repetitions.
    why_so_seldom: Option<String>,
    pub expect: Expect,
}

/// The expected result of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Expect {
    /// The upload is rejected with this answer.
    Upload(Answer),
    /// The upload is accepted; the graph is rejected with this answer.
    Apply(Answer),
    /// The guest runs and fails.
    Failure(Failure),
    /// The guest runs and succeeds, without a gain.
    Success(Success),
    /// The case runs in steps on a host of its own, beside honest runs.
    Trial(Trial),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The possible statuses.
    pub status: Vec<u16>,
    /// A part of the problem.
    #[serde(default)]
    pub words: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub kind: String,
    /// A part of the message, such as the name of the limit.
    #[serde(default)]
    pub words: String,
    /// The run's store afterwards.
    pub store: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Success {
    /// Some fields of the output.
    #[serde(default)]
    pub output: BTreeMap<String, Value>,
    pub log: Option<Log>,
    pub store: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Maximum number of lines.
    pub most_lines: usize,
    /// Maximum bytes of all lines.
    pub most_bytes: usize,
    /// A part of some line.
    #[serde(default)]
    pub has: String,
    /// A part of the last line.
    #[serde(default)]
    pub last: String,
}

fn twenty() -> u32 {
    20
}

/// Reads all cases, in the order of their names. `origin` is the authority of a misbehaving server,
/// which cases call `@origin@`.
pub fn all(origin: &str) -> Result<Vec<Case>> {
    let root = checkout().join("tests/hostile");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(folder.join("case.json")).context(name.clone())?;
        let text = text.replace("@origin@", origin);
        let file: CaseFile =
            serde_json::from_str(&text).with_context(|| format!("{name}: case.json"))?;
        let in_steps = matches!(file.expect, Expect::Trial(_));
        let explained = file.repeat >= 20 || file.why_so_seldom.is_some() || in_steps;
        ensure!(
            explained && file.repeat >= 1,
            "{name}: `why_so_seldom` must explain fewer than 20 repetitions"
        );
        cases.push(Case { name, folder, file });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!cases.is_empty(), "tests/hostile has no cases");
    Ok(cases)
}

impl Case {
    /// Returns the plugin and the node.
    pub fn node(&self) -> (&str, &str) {
        let named = self.file.node.as_deref().and_then(|node| node.split_once('/'));
        named.unwrap_or((&self.name, "attack"))
    }

    /// Returns a graph of the one node, which has one attempt, and of a node that reads secrets if
    /// there are some.
    pub fn graph(&self) -> Value {
        let file = &self.file;
        let (plugin, node) = self.node();
        let mut attack = json!({
            "node_name": node, "identifier": "attack", "plugin": plugin,
            "inputs": file.inputs, "next_nodes": [],
        });
        if !file.limits.is_empty() {
            attack["limits"] = json!(file.limits);
        }
        if let Some(millis) = file.timeout_ms {
            attack["timeout_ms"] = json!(millis);
        }
        let mut graph = json!({
            "nodes": [attack],
            "retry_policy": {"max_retries": 0},
            "store_config": {"keep": true},
        });
        if !file.secrets.is_empty() {
            // A graph has only secrets that a node declares: a reader after the attack.
            graph["secrets"] = json!(file.secrets);
            graph["nodes"][0]["next_nodes"] = json!(["reader"]);
            let inputs = json!({"name": "token"});
            let reader = json!({"node_name": "secret", "identifier": "reader", "plugin": "lab",
                                "inputs": inputs, "next_nodes": []});
            graph["nodes"].as_array_mut().into_iter().for_each(|nodes| nodes.push(reader.clone()));
        }
        graph
    }
}
