//! Plugins written by hand to be hostile: the minimal node with some places
//! changed (`fixtures/hostile-edits.json`). Each is refused at the door or
//! fails alone, with the kind that is said here.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use exosphere_tests::{Host, checkout, good, problem};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Edits {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    edits: Vec<(String, String)>,
}

/// What becomes of each: refused with a word of the reason, or the kind of the
/// failure and a part of its message.
fn expected() -> BTreeMap<&'static str, (Option<&'static str>, &'static str)> {
    BTreeMap::from([
        ("describe-loops", (None, "describe")),
        ("describe-traps", (None, "describe")),
        ("describe-is-not-json", (None, "description")),
        ("describe-is-out-of-bounds", (None, "describe")),
        ("start-loops", (None, "describe")),
        ("start-traps", (None, "describe")),
        ("execute-loops", (Some("limit"), "cpu")),
        ("output-is-not-utf8", (Some("invalid-output"), "")),
        ("output-is-out-of-bounds", (Some("invalid-output"), "")),
        ("outputs-without-end", (Some("invalid-output"), "")),
        ("completion-of-no-case", (Some("invalid-output"), "")),
        ("realloc-lies", (Some("invalid-output"), "realloc")),
        ("realloc-loops", (Some("limit"), "cpu")),
        ("realloc-traps", (Some("trap"), "unreachable")),
        ("four-memories-of-100-mib", (Some("limit"), "memory_bytes")),
        ("grows-a-table", (Some("limit"), "table_elements")),
    ])
}

#[test]
fn hand_made_hostile_plugins_are_refused_or_fail_alone() -> Result<()> {
    let host = Host::start()?;
    let text = std::fs::read_to_string(checkout().join("tests/fixtures/minimal.wat"))?;
    let edits = std::fs::read_to_string(checkout().join("tests/fixtures/hostile-edits.json"))?;
    let edits: Edits = serde_json::from_str(&edits)?;
    good(host.upload("minimal", wat::parse_str(&text)?)?)?;
    let mut seen = Vec::new();
    for case in edits.cases {
        let mut changed = text.clone();
        for (from, to) in &case.edits {
            ensure!(
                changed.matches(from).count() == 1,
                "{}: {from:?} is not there once",
                case.name
            );
            changed = changed.replace(from, to);
        }
        let bytes = wat::parse_str(&changed).with_context(|| case.name.clone())?;
        seen.push((case.name.clone(), outcome(&host, &case.name, bytes).context(case.name)?));
    }
    let expected = expected();
    let mut wrong = Vec::new();
    for (name, (kind, words)) in &seen {
        // What is not in the table is refused, whatever the words.
        let (wanted, part) = expected.get(name.as_str()).copied().unwrap_or((None, ""));
        if kind.as_deref() != wanted || !words.contains(part) {
            wrong.push(format!("{name}: {kind:?} {words}"));
        }
    }
    ensure!(wrong.is_empty(), "{} are not as said:\n{}", wrong.len(), wrong.join("\n"));
    let graph = json!({"nodes": [{"node_name": "minimal", "identifier": "only", "plugin": "minimal", "inputs": {}, "next_nodes": []}]});
    let found = host.result_of("healthy", &graph, &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(())
}

/// The kind and the message of what becomes of a plugin; no kind if it is
/// refused at the door.
fn outcome(host: &Host, name: &str, bytes: Vec<u8>) -> Result<(Option<String>, String)> {
    let response = host.upload(name, bytes)?;
    if !response.status().is_success() {
        let (status, refused) = problem(response)?;
        ensure!(status == 422, "{refused:#}");
        return Ok((None, refused["detail"].as_str().unwrap().to_owned()));
    }
    good(response)?;
    let graph = json!({
        "nodes": [{"node_name": "minimal", "identifier": "only", "plugin": name, "inputs": {}, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    });
    let found = host.result_of(name, &graph, &json!({}))?;
    let failure = &found["failures"][0]["failure"];
    let text = |key: &str| failure[key].as_str().map(str::to_owned);
    Ok((text("kind").or(Some("none".into())), text("message").unwrap_or_default()))
}
