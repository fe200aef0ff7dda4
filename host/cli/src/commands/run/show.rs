//! `exosphere run show`: the status of a run, or every detail of a state.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::Cell;
use exosphere_api_types::{
    AttemptDetails, Failure, NodeCounts, RunDetails, RunStatus, RunSummary, StateDetails,
    StateSummary, Usage,
};
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::list::labels_text;
use crate::commands::run::result::SHOWN_OUTPUTS;
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::error::Error;
use crate::format::{self, bytes, cell, cpu_time, elapsed, optional_cell, record, table, utc};
use crate::sanitize;

/// Show a run, or one of its states with its outputs, attempts and logs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run show 0195b7f0-0000-7000-8000-000000000001
  exosphere run show latest
  exosphere run show latest split.count[3]
  exosphere run show 0195b7f0/split --json

A run is its id, the first digits of it, or `latest`. The path of a state has the
identifiers from the root on, each with the index of the output by which the
branch came to it.")]
pub struct Show {
    /// The run, or a state of it as RUN/STATE
    run: StateRef,
    /// The path of a state, as `run states` prints it
    state: Option<StatePath>,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let state = self.run.state(&self.state)?;
        let run = self.run.run(context)?.to_string();
        match state {
            None => {
                let answer = context.client.call(Method::GET, &["runs", &run]).send()?;
                context.output.answer(&answer, |answer| Ok(summary(&answer.read()?)))
            }
            Some(path) => {
                let path = ["runs", &run, "states", path];
                let answer = context.client.call(Method::GET, &path).send()?;
                context.output.answer(&answer, |answer: &Answer| Ok(self::state(&answer.read()?)))
            }
        }
    }
}

/// Formats a run: its status, its first failures, its store.
pub fn summary(details: &RunDetails) -> String {
    let run = &details.summary;
    let counts = run.counts;
    let mut text = record([
        ("RUN", cell(&run.run)),
        ("GRAPH", cell(format!("{}:{}", run.graph, run.revision))),
        ("STATUS", cell(status_text(run))),
        ("STATES", cell(counts.states)),
        ("OPEN", cell(counts.open)),
        ("SUCCESS", cell(counts.success)),
        ("PRUNED", cell(counts.pruned)),
        ("ERRORED", cell(counts.errored)),
        ("RETRIES", cell(counts.retries)),
        ("CPU", cell(cpu_time(counts.cpu_us))),
        ("MEMORY", cell(bytes(counts.peak_memory_bytes))),
        ("TOOK", elapsed(run.created_at, run.ended_at)),
    ]);
    if let Some(due) = run.due_at.filter(|_| is_delayed(run)) {
        let _ = write!(text, "\n\nit begins at {}", utc(due));
    }
    if !run.labels.is_empty() {
        text.push_str("\n\nlabels: ");
        text.push_str(&sanitize::line(&labels_text(&run.labels)));
    }
    if let Some(pause) = &details.pause {
        let subject = match pause.of.as_str() {
            "run" => "the run".to_owned(),
            of => format!("its {}", sanitize::line(of)),
        };
        let paused = pause.pause.as_ref().map_or_else(|| "paused".to_owned(), format::paused);
        text.push_str(&format!("\n\n{subject} is {paused}"));
    }
    let ran = |node: &&NodeCounts| !node.is_unused();
    if details.nodes.iter().any(|node| ran(&node)) {
        text.push_str("\n\n");
        text.push_str(&nodes(details.nodes.iter().filter(ran)));
    }
    if !details.failures.is_empty() {
        let rows = details.failures.iter().map(|failed| {
            [
                cell(&failed.path),
                optional_cell(failed.failure.as_ref().map(|failure| &failure.kind)),
                optional_cell(failed.failure.as_ref().map(|failure| &failure.message)),
            ]
        });
        text.push_str("\n\n");
        text.push_str(&table(["STATE", "FAILURE", "MESSAGE"], rows));
        let more = counts.errored.saturating_sub(details.failures.len() as u64);
        if more > 0 {
            let next = follow_up(&["run", "states", &run.run, "--status", "ERRORED"]);
            let _ = write!(text, "\n\n{more} more: {next}");
        }
    }
    if !details.store.is_empty() {
        text.push_str("\n\n");
        let rows = details.store.iter().map(|(key, value)| [cell(key), cell(value)]);
        text.push_str(&table(["KEY", "VALUE"], rows));
    }
    text
}

/// Formats the states of each node.
fn nodes<'a>(nodes: impl Iterator<Item = &'a NodeCounts>) -> String {
    let rows = nodes.map(|node| {
        [
            cell(&node.identifier),
            cell(node.waiting),
            cell(node.active),
            cell(node.success),
            cell(node.pruned),
            cell(node.errored),
            cell(node.retries),
        ]
    });
    let columns = ["NODE", "WAITING", "OPEN", "SUCCESS", "PRUNED", "ERRORED", "RETRIES"];
    table(columns, rows)
}

/// Returns the status of a run in a few words.
pub fn status_text(run: &RunSummary) -> String {
    let status = &run.status;
    if let Some(reason) = &run.reason {
        return format!("{status} ({reason})");
    }
    match (status.known(), run.counts.errored) {
        (Some(RunStatus::Running), _) if run.paused => format!("{status} (paused)"),
        (Some(RunStatus::Running), _) if is_delayed(run) => format!("{status} (delayed)"),
        (Some(RunStatus::Success), errored @ 1..) => {
            format!("{status} ({errored} errored, absorbed)")
        }
        _ => status.to_string(),
    }
}

/// Returns whether a run was started with a delay, and has not begun.
fn is_delayed(run: &RunSummary) -> bool {
    run.due_at.is_some_and(|due| due > run.created_at)
        && run.counts.states == 1
        && run.counts.open == 1
        && run.counts.retries == 0
        && run.counts.requeues == 0
        && run.due_at.is_some_and(|due| due > now_ms())
}

/// Returns the time of this machine, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the client has no injected clock")]
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a table cell with the time that the last attempt of a state took; none if no attempt
/// began.
pub fn took(state: &StateSummary) -> Cell {
    state.began_at.map_or_else(|| cell(""), |began| elapsed(began, state.ended_at))
}

/// Formats a state: its status, its outputs, its attempts.
fn state(details: &StateDetails) -> String {
    let state = &details.summary;
    let mut text = record([
        ("STATE", cell(&state.state)),
        ("IDENTIFIER", optional_cell(state.identifier.as_ref())),
        ("NODE", optional_cell(state.node_name.as_ref())),
        ("STATUS", cell(&state.status)),
        ("RETRIES", cell(state.retries)),
        ("REQUEUES", cell(state.requeues)),
        ("CREATED", cell(utc(state.created_at))),
        ("DUE", optional_cell(state.due_at.map(utc))),
        ("BEGAN", optional_cell(state.began_at.map(utc))),
        ("HOST", optional_cell(state.host)),
        ("TOOK", took(state)),
    ]);
    if let Some(failure) = &state.failure {
        section(&mut text, "failure", &failure_text(failure));
    }
    for (index, output) in details.outputs.iter().take(SHOWN_OUTPUTS as usize).enumerate() {
        section(&mut text, &format!("output {index}"), &format!("{output:#}"));
    }
    let outputs = state.output_count.map_or(details.outputs.len() as u64, u64::from);
    let more = outputs.saturating_sub(u64::from(SHOWN_OUTPUTS));
    if more > 0 {
        let after = SHOWN_OUTPUTS.to_string();
        let next = follow_up(&["run", "outputs", &state.state, "--after", &after]);
        let all = follow_up(&["run", "outputs", &state.state, "--all"]);
        let more = counted(more, "more output", "more outputs");
        let _ = write!(text, "\n\n{more}: {next}\nall: {all}");
    }
    if let Some(data) = &details.data {
        section(&mut text, "pruned with", &format!("{data:#}"));
    }
    if let Some(usage) = &details.usage {
        section(&mut text, "usage", &usage_text(usage));
    }
    for attempt in &details.attempts {
        section(&mut text, &format!("attempt {}", attempt.number), &attempt_text(attempt));
    }
    text
}

fn usage_text(usage: &Usage) -> String {
    format!(
        "{:.1} ms CPU, {} memory, {} host calls, {} in, {} out",
        usage.cpu_us as f64 / 1_000.0,
        bytes(usage.peak_memory_bytes),
        usage.host_calls,
        bytes(usage.input_bytes),
        bytes(usage.output_bytes)
    )
}

/// Formats an attempt: its outcome and its log.
fn attempt_text(attempt: &AttemptDetails) -> String {
    let mut text = attempt.outcome.clone().unwrap_or_else(|| "running".to_owned());
    if let Some(end) = attempt.ended_at {
        let _ = write!(text, ", {}", utc(end));
    }
    if let Some(failure) = &attempt.failure {
        let _ = write!(text, "\n{}", failure_text(failure));
    }
    for line in attempt.logs.parsed().into_iter().flatten() {
        let _ = write!(text, "\n{:<5} {}", line.level, line.message);
    }
    text
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("{}: {}", failure.kind, failure.message);
    if let Some(details) = &failure.details {
        let _ = write!(text, "\n{details:#}");
    }
    text
}

/// Appends a heading and its indented body.
fn section(text: &mut String, heading: &str, body: &str) {
    let body = sanitize::lines(body).replace('\n', "\n  ");
    let _ = write!(text, "\n\n{heading}\n  {body}");
}

#[cfg(test)]
mod tests {
    use exosphere_domain::json::from_value;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_shows_failures_and_store() {
        let run = from_value(json!({
            "run": "r", "graph": "g", "revision": 2, "status": "FAILED", "version": 9,
            "created_at": 1000, "ended_at": 3500,
            "counts": { "states": 4, "success": 2, "errored": 1, "pruned": 1, "waiting": 0 },
            "failures": [{
                "state": "r/a.w[3]", "path": "a.w[3]", "identifier": "w", "node_name": "n",
                "status": "ERRORED", "created_at": 0, "failure": { "kind": "trap", "message": "\u{1b}[31mboom" }
            }],
            "store": { "total": "7" },
        }));
        let text = summary(&run.unwrap());
        for part in ["g:2", "FAILED", "ERRORED", "2.5 s", "a.w[3]", "\\u{1b}[31mboom", "total  7"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_state_shows_every_member() {
        let details = from_value(json!({
            "state": "r/3", "identifier": "w", "node_name": "count", "status": "ERRORED",
            "path": "0.0", "attempt": 2, "retries": 1, "requeues": 0, "created_at": 0,
            "ended_at": 12, "failure": { "kind": "permanent", "message": "no", "details": { "a": 1 } },
            "data": { "why": "no" }, "usage": { "cpu_us": 1500 }, "outputs": [{ "x": "y" }],
            "attempts": [{
                "number": 1, "ended_at": 5, "outcome": "retry",
                "failure": { "kind": "retryable", "message": "try\nagain", "details": null },
                "logs": [{ "level": "info", "message": "hi\u{7}" }], "usage": {},
            }],
        }));
        let text = state(&details.unwrap());
        for part in [
            "r/3",
            "failure\n  permanent: no\n  {",
            "pruned with\n  {",
            "usage\n  1.5 ms CPU, 0 B memory",
            "output 0\n",
            "attempt 1\n  retry, 1970-01-01 00:00:00Z\n  retryable: try\n  again\n  info  hi\\u{7}",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
