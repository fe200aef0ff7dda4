//! Compiles the programs that other tasks run: the host and the example plugins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;
use crate::project::Project;
use crate::toolchain::{self, TARGET};

/// Compiles the example plugins and returns their components, in order of name.
pub fn plugins(project: &Project) -> Result<Vec<PathBuf>> {
    let toolchain = toolchain::setup(project, true)?;
    let mut cargo = project.plugins_cargo("build");
    cargo.args(["--release", "--target", TARGET]);
    toolchain.use_in(&mut cargo);
    command::run(&mut cargo)?;
    let folder = project.at("plugins/target").join(TARGET).join("release");
    let mut components = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "wasm") {
            components.push(path);
        }
    }
    components.sort();
    Ok(components)
}

/// Compiles the host as the tests need it, and returns the `exosphere` command.
pub fn host(project: &Project) -> Result<PathBuf> {
    program(project, "exosphere", &[])
}

/// Compiles the whole workspace and returns one of its programs. Compiling all at once
/// compiles shared dependencies once.
pub fn program(project: &Project, name: &str, further: &[&str]) -> Result<PathBuf> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--workspace", "--message-format", "json-render-diagnostics"]);
    cargo.args(further);
    for line in command::output(&mut cargo)?.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == name
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no command named {name}")
}
