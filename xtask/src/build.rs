//! Compiles the programs that other tasks run: the host and the example plugins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;
use crate::project::Project;
use crate::toolchain::{self, TARGET};

/// Compiles plugins and returns all components, in order of name. Without names, compiles
/// all plugins.
pub fn plugins(project: &Project, names: &[&str]) -> Result<Vec<PathBuf>> {
    let toolchain = toolchain::setup(project, true)?;
    let mut cargo = project.plugins_cargo("build");
    cargo.args(["--release", "--target", TARGET]);
    cargo.args(names.iter().flat_map(|name| ["--package", name]));
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

/// Compiles the host, and returns the `exosphere` command.
pub fn host(project: &Project) -> Result<PathBuf> {
    program(project, &["exosphere"], &[])
}

/// Compiles programs, and returns the path of the first one.
///
/// Compiles only what these programs need. The features are those of the whole workspace
/// (`--workspace`), so that the tests use the same engine and do not compile it again.
pub fn program(project: &Project, names: &[&str], options: &[&str]) -> Result<PathBuf> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--workspace", "--message-format", "json-render-diagnostics"]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name])).args(options);
    let first = names.first().copied().unwrap_or_default();
    for line in command::output(&mut cargo)?.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == first
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no program named {first}")
}
