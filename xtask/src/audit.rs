//! `cargo xtask audit`: what we depend on, checked by cargo-deny against
//! `deny.toml`.

use anyhow::{Result, bail};

use crate::command;
use crate::project::Project;

/// Checks the host's workspace and the plugins'.
pub fn run(project: &Project) -> Result<()> {
    if !command::succeeds(project.cargo().args(["deny", "--version"])) {
        bail!("cargo-deny is not installed; `cargo install --locked cargo-deny` gets it");
    }
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        let mut deny = project.cargo();
        deny.args(["deny", "--manifest-path"]).arg(project.at(manifest));
        deny.args(["check", "--config"]).arg(project.at("deny.toml"));
        command::run(&mut deny)?;
    }
    Ok(())
}
