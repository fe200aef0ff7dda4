//! One-time installation of a peer with its registry's own client. It stays until the list of
//! packages changes.
//!
//! Not here: the versions, which the checked-in lists define.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The list of the installed packages, which is written last.
const INSTALLED: &str = "installed.txt";

/// Calls `install` to fill the folder, unless it did so before with the same list.
pub fn once(folder: &Path, list: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let installed = folder.join(INSTALLED);
    if fs::read_to_string(&installed).is_ok_and(|found| found == list) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    install()?;
    Ok(fs::write(installed, list)?)
}

/// Returns the output of a program, which must succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("there is no `{name}` to run"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // The first error is the clearest: warnings come before it, and the path of a log after it.
    let error = |line: &&str| line.trim_start_matches("npm ").to_lowercase().starts_with("error");
    let cause = stderr.lines().find(error).or(stderr.lines().last()).unwrap_or_default().trim();
    ensure!(output.status.success(), "{name}: {}: {cause}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
