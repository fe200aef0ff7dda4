//! promtool, the program of Prometheus that checks metrics and rules. `cargo xtask promtool`
//! installs it, and `cargo xtask test` names it in `EXOSPHERE_PROMTOOL`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use exosphere_tests::checkout;
use exosphere_tests::tool::Tool;

const PROGRAM: Tool = Tool {
    name: "promtool",
    variable: "EXOSPHERE_PROMTOOL",
    installed: "target/tools/prometheus/usr/bin/promtool",
};

/// Runs promtool with a text as its input; fails unless it succeeds and prints no finding.
pub fn run(arguments: &[&str], input: &str) -> Result<()> {
    let Some(program) = PROGRAM.find()? else { return Ok(()) };
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut to = child.stdin.take().context("promtool has no input")?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || to.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writer.join();
    let printed = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    ensure!(output.status.success(), "promtool {arguments:?}: {}", printed.concat());
    // Without input to read, it may end before it was given any.
    ensure!(written.is_ok(), "the input of promtool cannot be written");
    Ok(())
}

/// The alert rules.
pub fn rules() -> PathBuf {
    checkout().join("docs/operations/alerts.yml")
}

/// Returns a path as text.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
