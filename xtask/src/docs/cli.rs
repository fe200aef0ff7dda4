//! The reference of the command line, made from the help of the compiled `exosphere`.
//!
//! The help is what users see, so it needs no second renderer: the page holds the output of
//! `--help` for each command.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command;

/// The width of the help, in columns, whatever the terminal.
const COLUMNS: &str = "100";

/// The beginning of the page.
const PAGE_HEAD: &str = "\
# Command line

The help of `exosphere` and of each of its commands. `cargo xtask docs` writes this page.

Not here: the problems with which a host refuses a request ([problems.md](problems.md)).
";

/// Returns the page of a program.
pub fn page(program: &Path) -> Result<String> {
    let mut page = PAGE_HEAD.to_owned();
    add(&mut page, program, &[])?;
    Ok(page)
}

/// Adds the section of a command, and those of its subcommands.
fn add(page: &mut String, program: &Path, command: &[&str]) -> Result<()> {
    let help = help(program, command)?;
    let line = [&["exosphere"][..], command].concat().join(" ");
    write!(page, "\n## {line}\n\n```text\n{help}\n```\n")?;
    for name in subcommands(&help) {
        add(page, program, &[command, &[name]].concat())?;
    }
    Ok(())
}

/// Returns the help of a command, without the spaces at the ends of its lines.
fn help(program: &Path, command: &[&str]) -> Result<String> {
    let mut help = Command::new(program);
    // The help shows the values of variables; here it shows none.
    help.args(command).arg("--help").env_clear().env("COLUMNS", COLUMNS).stdin(Stdio::null());
    let output = help.output().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "`{}` failed", command::line(&help));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned())
}

/// Returns the commands that a help lists, without `help` itself.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let lines = list.lines().take_while(|line| !line.is_empty());
    // Further lines of a description are indented more.
    let entries =
        lines.filter_map(|line| line.strip_prefix("  ").filter(|it| !it.starts_with(' ')));
    entries.filter_map(|entry| entry.split(' ').next()).filter(|name| *name != "help")
}

#[cfg(test)]
mod tests {
    use super::subcommands;

    #[test]
    fn listed_commands_are_found() {
        let help = "Does it\n\nUsage: x\n\nCommands:\n  serve  Run a host\n         and more\n  run\n  \
                    help   Print this\n\nOptions:\n  -h\n";
        assert_eq!(subcommands(help).collect::<Vec<_>>(), ["serve", "run"]);
        assert_eq!(subcommands("Does it\n\nOptions:\n  -h\n").count(), 0);
    }
}
