//! `exosphere check`: verifies the invariants of a database and reports every row that
//! violates one. Not here: the verification.

use std::fmt::Write as _;

use clap::Args;
use exosphere_domain::plural::counted;
use exosphere_orchestrator::{Report, Violation};

use crate::database::DatabaseArgs;
use crate::error::Error;
use crate::output::Output;
use crate::sanitize;

/// Verify the invariants of a database, and report every row that violates one.
#[derive(Debug, Args)]
#[command(after_help = "\
The command reads every row once, from one snapshot, and writes, creates and
migrates nothing: hosts may be running on the database. During the check,
Postgres removes no dead rows, and the write-ahead log of SQLite grows.

Exit codes: 0 if there is no violation, 1 if there is one or the database cannot
be read.")]
pub struct Check {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the check, and fails if there is a violation.
pub fn run(args: Check, output: Output) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checked = runtime
        .block_on(exosphere_orchestrator::check(&args.database.data, args.database.database));
    let report = checked.map_err(|error| Error::Failed(error.to_string()))?;
    output.report(&report, &report_text(&report))?;
    match report.count {
        0 => Ok(()),
        count => Err(Error::Failed(format!("{} found", violations(count)))),
    }
}

/// Formats a report: a line for each violation, the number of further violations of
/// each kind, and the number of runs, states and other rows checked.
fn report_text(report: &Report) -> String {
    let mut text = String::new();
    let mut listed = report.violations.iter().peekable();
    while let Some(violation) = listed.next() {
        let _ = writeln!(text, "{}", line(violation));
        if listed.peek().is_some_and(|next| next.kind == violation.kind) {
            continue;
        }
        if let Some(unlisted) = report.more.iter().find(|unlisted| unlisted.kind == violation.kind)
        {
            let (table, column) = (unlisted.kind.table, unlisted.kind.column);
            let _ =
                writeln!(text, "table {table}, column {column}: {} more like this", unlisted.count);
        }
    }
    let checked = &report.checked;
    let _ = writeln!(
        text,
        "checked {} with {} ({}, {}, {}, {}) of {}: {}",
        counted(checked.runs, "run", "runs"),
        counted(checked.states, "state", "states"),
        counted(checked.unites, "unite", "unites"),
        counted(checked.outputs, "output", "outputs"),
        counted(checked.attempts, "attempt", "attempts"),
        counted(checked.entries, "store entry", "store entries"),
        counted(checked.revisions, "graph revision", "graph revisions"),
        violations(report.count),
    );
    text
}

/// Formats one violation. A database may contain untrusted text.
fn line(violation: &Violation) -> String {
    let Violation { kind, row, message, run, .. } = violation;
    let run = run.as_ref().map_or_else(String::new, |run| format!(" (run {run})"));
    let (table, column) = (kind.table, kind.column);
    sanitize::line(&format!("table {table}, column {column}, row {row}: {message}{run}"))
}

fn violations(count: u64) -> String {
    match count {
        0 => "no violations".into(),
        count => counted(count, "violation", "violations"),
    }
}
