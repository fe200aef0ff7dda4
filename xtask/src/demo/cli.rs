//! Calls of the `exosphere` command, as a program would make them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;

/// The client of one host.
pub struct Cli {
    exosphere: PathBuf,
    data: PathBuf,
    url: String,
}

impl Cli {
    /// Returns a client of the host at this address, whose key is in its data folder.
    pub fn new(exosphere: &Path, data: &Path, url: &str) -> Self {
        Cli { exosphere: exosphere.to_owned(), data: data.to_owned(), url: url.to_owned() }
    }

    /// Makes a call and parses its answer. Progress and errors are shown, because they
    /// go to standard error.
    pub fn json(&self, arguments: &[&str], arguments_os: &[&OsStr]) -> Result<Value> {
        let mut call = Command::new(&self.exosphere);
        call.args(["--json", "--namespace", "default", "--host", &self.url]);
        call.env("EXOSPHERE_DATA", &self.data);
        call.args(arguments).args(arguments_os).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = call.output().with_context(|| format!("`{}`", command::line(&call)))?;
        let answer = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            // The host's answer: for a run, its failures.
            bail!("`{}` failed ({})\n{}", command::line(&call), output.status, answer.trim());
        }
        serde_json::from_str(&answer)
            .with_context(|| format!("`{}` printed no JSON", command::line(&call)))
    }
}
