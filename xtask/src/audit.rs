//! `cargo xtask audit`: checks the dependencies with cargo-deny against `deny.toml`.
//!
//! The checks that need no network decide: licences, bans and sources. The database of
//! known faults is remote; if it is unreachable, the exit status says so, unless the
//! caller accepts that.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::project::Project;

/// The workspaces: the host's and the plugins'.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "plugins/Cargo.toml"];

/// The checks that need only the packages themselves.
const OFFLINE_CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// The error of cargo-deny if it cannot fetch the database.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// The result of the search for known faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// No dependency has a known fault.
    None,
    /// The database of known faults could not be reached.
    Unknown,
}

/// Checks both workspaces.
pub fn run(project: &Project) -> Result<Faults> {
    let deny = found_or_installed(project)?;
    let mut unknown = false;
    for manifest in MANIFESTS {
        println!("{manifest}: licences, bans and sources");
        command::run(check(&mut Command::new(&deny), project, manifest).args(OFFLINE_CHECKS))?;
        println!("{manifest}: known faults");
        let advisories =
            check(&mut Command::new(&deny), project, manifest).arg("advisories").output();
        unknown |=
            !are_known(&advisories.with_context(|| format!("cannot run {}", deny.display()))?)?;
    }
    if unknown {
        println!(
            "warning: the database of known faults (github.com/RustSec/advisory-db) cannot be reached from here.\n\
             Known faults were NOT looked for: run this again where it can be, or accept \
             that with --allow-unreachable"
        );
        return Ok(Faults::Unknown);
    }
    Ok(Faults::None)
}

/// Returns a call of cargo-deny for a workspace.
fn check<'a>(deny: &'a mut Command, project: &Project, manifest: &str) -> &'a mut Command {
    deny.current_dir(project.at("")).arg("--manifest-path").arg(project.at(manifest));
    deny.arg("--config").arg(project.at("deny.toml")).arg("check")
}

/// Returns whether known faults could be looked up. A fault that was found is an error.
fn are_known(output: &Output) -> Result<bool> {
    let output_text =
        [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    let output_text = output_text.concat();
    if output.status.success() {
        print!("{output_text}");
        return Ok(true);
    }
    if !output_text.contains(NO_DATABASE) {
        bail!("cargo-deny found faults:\n{output_text}");
    }
    Ok(false)
}

/// Returns the installed cargo-deny, or else compiles one for this checkout only, which
/// takes some minutes once.
fn found_or_installed(project: &Project) -> Result<PathBuf> {
    let tools = project.at("target/tools");
    let cargo_deny = tools.join("bin/cargo-deny");
    for deny in [cargo_deny.clone(), PathBuf::from("cargo-deny")] {
        if command::succeeds(Command::new(&deny).arg("--version")) {
            return Ok(deny);
        }
    }
    println!("cargo-deny is not here; compiling it into target/tools");
    let mut install = project.cargo();
    command::run(install.args(["install", "--locked", "cargo-deny", "--root"]).arg(&tools))?;
    Ok(cargo_deny)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn an_unreachable_database_leaves_faults_unknown() -> Result<()> {
        let output = |code: i32, output_text: &str| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: output_text.as_bytes().to_vec(),
        };
        assert!(are_known(&output(0, ""))?);
        assert!(!are_known(&output(1, "[ERROR] failed to fetch advisory database x"))?);
        assert!(are_known(&output(1, "error[vulnerability]: a fault")).is_err());
        Ok(())
    }
}
