//! A node in Python, built by componentize-py from `tests/fixtures/python`. Skipped with a message
//! if pip cannot reach its registry.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use exosphere_tests::{Host, checkout, good};
use serde_json::json;

#[test]
fn a_python_node_runs() -> Result<()> {
    let Some(component) = build()? else { return Ok(()) };
    let host = Host::start()?;
    good(host.upload("shout", std::fs::read(component)?)?)?;
    let graph = json!({
        "nodes": [{"node_name": "shout", "identifier": "only", "inputs": {"text": "hello"}, "next_nodes": []}],
        "store_config": {"keep": true},
    });
    let found = host.result_of("shout", &graph, &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    let run = found["run"].as_str().unwrap();
    ensure!(host.output(run, "only")? == json!({"text": "HELLO", "length": 5}));
    ensure!(!found["store"].as_object().unwrap().is_empty(), "it writes to the store");
    let states = host.states(run, "only")?;
    ensure!(
        !states[0]["attempts"][0]["logs"].as_array().unwrap().is_empty(),
        "it writes to the log"
    );
    Ok(())
}

/// Builds the component if its tools can be installed, and caches it beside the test.
fn build() -> Result<Option<PathBuf>> {
    let root = checkout();
    let sources = root.join("tests/fixtures/python");
    let executable = std::env::current_exe()?;
    let folder = executable.ancestors().nth(2).unwrap_or(Path::new(".")).join("python-fixture");
    let component = folder.join("shout.wasm");
    let is_newer = |file: &str| -> Result<bool> {
        let built_at = std::fs::metadata(&component)?.modified()?;
        Ok(built_at > std::fs::metadata(sources.join(file))?.modified()?)
    };
    if component.exists() && is_newer("app.py")? && is_newer("requirements.txt")? {
        return Ok(Some(component));
    }
    let tool = |name: &str| folder.join("bin").join(name);
    let steps = [
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder)),
        run(Command::new(tool("pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(sources.join("requirements.txt"))),
    ];
    for step in steps {
        if let Err(cause) = step {
            println!("skipped: componentize-py cannot be had here: {cause}");
            return Ok(None);
        }
    }
    let built_at = run(Command::new(tool("componentize-py"))
        .current_dir(&root)
        .args(["-d", "wit", "-w", "plugin", "componentize", "app", "-p"])
        .arg(&sources)
        .arg("-o")
        .arg(&component));
    ensure!(built_at.is_ok(), "{built_at:?}");
    Ok(Some(component))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
