//! `exosphere run show`: the status of a run, or every detail of a state.

use std::fmt::Write as _;

use exosphere_api_types::{
    AttemptDetails, Failure, NodeCounts, RunDetails, RunSummary, StateDetails, Usage,
};
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::list::labels_text;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::format::{self, bytes, cell, elapsed, optional_cell, record, table, utc};
use crate::sanitize;

/// Show a run, or one of its states with its outputs, attempts and logs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run show 0195b7f0-0000-7000-8000-000000000001
  exosphere run show 0195b7f0-0000-7000-8000-000000000001 7
  exosphere run show 0195b7f0-0000-7000-8000-000000000001/7 --json")]
pub struct Show {
    /// The run, or a state of it as RUN/STATE
    run: StateRef,
    /// The number of a state
    state: Option<u64>,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run.to_string();
        match self.run.state(self.state)? {
            None => {
                let answer = context.client.call(Method::GET, &["runs", &run]).send()?;
                context.output.answer(&answer, |answer| Ok(summary(&answer.read()?)))
            }
            Some(number) => {
                let path = ["runs", &run, "states", &number.to_string()];
                let answer = context.client.call(Method::GET, &path).send()?;
                context.output.answer(&answer, |answer: &Answer| Ok(state(&answer.read()?)))
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
        ("FAILED", cell(counts.errored)),
        ("RETRIES", cell(counts.retries)),
        ("TOOK", elapsed(run.created_at, run.ended_at)),
    ]);
    if !run.labels.is_empty() {
        text.push_str("\n\nlabels: ");
        text.push_str(&sanitize::line(&labels_text(&run.labels)));
    }
    if let Some(pause) = &details.pause {
        let with = match pause.of.as_str() {
            "run" => "the run is paused".to_owned(),
            of => format!("its {} is ", sanitize::line(of)),
        };
        let pause = pause.pause.as_ref().map(format::paused).unwrap_or_default();
        text.push_str(&format!("\n\n{with}{pause}"));
    }
    let ran = |node: &&NodeCounts| !node.is_unused();
    if details.nodes.iter().any(|node| ran(&node)) {
        text.push_str("\n\n");
        text.push_str(&nodes(details.nodes.iter().filter(ran)));
    }
    if !details.failures.is_empty() {
        let rows = details.failures.iter().map(|failed| {
            [
                cell(&failed.state),
                optional_cell(failed.identifier.as_ref()),
                optional_cell(failed.failure.as_ref().map(|failure| &failure.kind)),
                optional_cell(failed.failure.as_ref().map(|failure| &failure.message)),
            ]
        });
        text.push_str("\n\n");
        text.push_str(&table(["STATE", "IDENTIFIER", "FAILURE", "MESSAGE"], rows));
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
    let columns = ["NODE", "WAITING", "OPEN", "SUCCESS", "PRUNED", "FAILED", "RETRIES"];
    table(columns, rows)
}

/// Returns the status of a run in a word or two.
pub fn status_text(run: &RunSummary) -> String {
    match &run.reason {
        Some(reason) => format!("{} ({reason})", run.status),
        None if run.paused => format!("{} (paused)", run.status),
        None => run.status.to_string(),
    }
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
        ("BEGAN", optional_cell(state.began_at.map(utc))),
        ("HOST", optional_cell(state.host)),
        ("TOOK", elapsed(state.created_at, state.ended_at)),
    ]);
    if let Some(failure) = &state.failure {
        section(&mut text, "failure", &failure_text(failure));
    }
    for (index, output) in details.outputs.iter().enumerate() {
        section(&mut text, &format!("output {index}"), &format!("{output:#}"));
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
                "state": "r/3", "identifier": "w", "node_name": "n", "status": "ERRORED",
                "created_at": 0, "failure": { "kind": "trap", "message": "\u{1b}[31mboom" }
            }],
            "store": { "total": "7" },
        }));
        let text = summary(&run.unwrap());
        for part in ["g:2", "FAILED", "2.5 s", "r/3", "\\u{1b}[31mboom", "total  7"] {
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
