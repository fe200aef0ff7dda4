//! Manners of the command line, with the real binary: what a run was given and what it gave, names
//! of runs and states, inputs from files, refusals that suggest, and stops.
//!
//! Not here: starts in outages (`starts`), and the client without a host (`host/cli/tests`).

mod given;
mod inputs;
mod names;
mod words;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use serde_json::{Value, json};

/// Returns a command of the client.
fn client(host: &Host, words: &[&str]) -> Result<Command> {
    let mut command = host.command()?;
    command.args(words);
    Ok(command)
}

/// Runs a command that must succeed, and returns its output.
fn prints(host: &Host, words: &[&str]) -> Result<String> {
    let output = client(host, words)?.output()?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that must fail, and returns its message.
fn fails(host: &Host, words: &[&str], code: i32) -> Result<String> {
    let output = client(host, words)?.output()?;
    ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    ensure!(output.stdout.is_empty(), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

/// Runs a command with text on its standard input.
fn with_input(host: &Host, words: &[&str], input: &str) -> Result<Output> {
    let mut command = client(host, words)?;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Returns a graph that fans out, works on each branch, and collects.
fn split_graph() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 3, "value": "${{ store.word }}"},
             "next_nodes": ["count"]},
            {"node_name": "echo", "identifier": "count",
             "inputs": {"value": {"i": "${{ split.outputs.i }}", "of": "${{ split.outputs.value }}"}},
             "next_nodes": ["all"]},
            {"node_name": "collect", "identifier": "all", "inputs": {"values": "${{ count.outputs.value }}"},
             "unites": {"identifier": "split"}, "next_nodes": []},
        ],
        "store_config": {"default_values": {"word": "none"}},
    })
}

/// Starts a run of the graph above, and returns its id once it has ended.
fn run_words(host: &Host) -> Result<String> {
    host.push("lab")?;
    host.apply("words", &split_graph())?;
    let body = json!({
        "inputs": {"n": 4}, "store": {"word": "tide"}, "idempotency_key": "first", "delay_ms": 20,
    });
    let run = host.send("POST", "/graphs/words/runs", &body)?;
    let run = run["run"].as_str().context("an id")?.to_owned();
    let ended = host.wait_for(&run)?;
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    Ok(run)
}
