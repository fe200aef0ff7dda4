//! `cargo xtask test`: the format, the lints and every test. It stops at the
//! first step that fails; a step of tests runs all of them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::PROGRAMS;
use crate::build;
use crate::clock::Clock;
use crate::command;
use crate::docs;
use crate::postgres;
use crate::project::Project;
use crate::promtool;
use crate::schemathesis;
use crate::tidy;

/// The tools that some tests need. Without one of them, those tests do less.
#[derive(Debug, Clone, Copy)]
pub struct Tools {
    pub schemathesis: bool,
    pub promtool: bool,
}

/// Checks everything; with a filter, runs only the tests that match.
pub fn run(project: &Project, filter: Option<&str>, tools: Tools) -> Result<()> {
    let mut clock = Clock::default();
    let mut results = Vec::new();
    postgres::ensure()?;
    let schemathesis = if tools.schemathesis {
        clock.step("schemathesis found", || schemathesis::installed(project))?
    } else {
        println!("schemathesis is not run, because of --without-schemathesis");
        "skip".into()
    };
    let promtool = if tools.promtool {
        clock.step("promtool found", || promtool::installed(project))?
    } else {
        println!("promtool is not run, because of --without-promtool");
        "skip".into()
    };
    clock.step("plugins compiled", || build::plugins(project, &[]))?;
    if filter.is_none() {
        lints(project, &mut clock)?;
    }
    // Also builds the binary, which the end-to-end tests run.
    clock.step("host compiled", || {
        command::run(project.cargo().args(["test", "--workspace", "--no-run"]))
    })?;
    let mut host = project.cargo();
    host.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    host.env(schemathesis::PROGRAM_VARIABLE, schemathesis);
    host.env(promtool::PROGRAM_VARIABLE, promtool);
    results.extend(clock.step("host tested", || tests(&mut host))?);
    let mut plugins = project.plugins_cargo("test");
    plugins.args(["--workspace", "--no-fail-fast"]).args(filter);
    results.extend(clock.step("plugins tested", || tests(&mut plugins))?);
    if filter.is_none() {
        clock.step("reference compared", || docs::check(project))?;
        clock.step("speed compared", || {
            let bench = build::program(project, &PROGRAMS, &[])?;
            command::run(Command::new(bench).arg("--guard"))
        })?;
    }

    // With a filter, most runners have nothing to run.
    results.retain(|line| passed(line) > 0);
    ensure!(!results.is_empty(), "no test has {:?} in its name", filter.unwrap_or_default());
    println!("\n{}", results.join("\n"));
    println!("\n{}", clock.summary());
    println!("\nall {} tests passed", results.iter().map(|line| passed(line)).sum::<u64>());
    Ok(())
}

fn lints(project: &Project, clock: &mut Clock) -> Result<()> {
    clock.step("rules checked", || tidy::run(project))?;
    clock.step("format checked", || {
        command::run(project.cargo().args(["fmt", "--all", "--check"]))?;
        command::run(
            Command::new(project.cargo_path())
                .args(["fmt", "--all", "--check"])
                .current_dir(project.at("plugins")),
        )
    })?;
    const STRICT_ARGUMENTS: [&str; 5] = ["--workspace", "--all-targets", "--", "-D", "warnings"];
    clock.step("host linted", || {
        command::run(project.cargo().arg("clippy").args(STRICT_ARGUMENTS))
    })?;
    clock.step("plugins linted", || {
        command::run(project.plugins_cargo("clippy").args(STRICT_ARGUMENTS))
    })
}

/// Runs tests, shows their output, and returns the closing lines of the runners. The
/// error names the failed tests.
fn tests(cargo: &mut Command) -> Result<Vec<String>> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", command::line(cargo)))?;
    let mut closing = Vec::new();
    let mut failed = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("test result: ") {
            closing.push(line);
        } else if let Some(name) = failure(&line) {
            failed.push(name.to_owned());
        }
    }
    let status = child.wait()?;
    match (status.success(), failed.is_empty()) {
        (true, _) => Ok(closing),
        (false, true) => bail!("`{}` failed ({status})", command::line(cargo)),
        (false, false) => bail!("these tests failed:\n  {}", failed.join("\n  ")),
    }
}

/// Returns the name of the test, if this line reports a failure.
fn failure(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Returns the number of passed tests, from a runner's closing line.
fn passed(line: &str) -> u64 {
    let count = line.strip_prefix("test result: ok. ").and_then(|line| line.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{failure, passed};

    #[test]
    fn result_lines_of_runners_are_parsed() {
        assert_eq!(failure("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failure("test a::b ... ok"), None);
        assert_eq!(failure("test result: FAILED. 1 passed; 1 failed"), None);
        assert_eq!(passed("test result: ok. 23 passed; 0 failed; 0 ignored"), 23);
        assert_eq!(passed("test result: FAILED. 1 passed; 1 failed"), 0);
    }
}
