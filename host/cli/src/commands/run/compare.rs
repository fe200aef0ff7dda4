//! `exosphere run compare`: a run beside another one.

use comfy_table::Cell;
use exosphere_api_types::{ComparedRun, NodeTimes, RevisionChange, RunComparison};
use exosphere_domain::run_ref::RunRef;
use reqwest::Method;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::format::{cell, duration, optional_cell, table, utc};
use crate::sanitize;

/// Compare a run with another one, node by node
///
/// Without OTHER, that is the last run of the same graph that succeeded before. MEDIAN is of up to
/// 20 such runs. Times are of the last attempts of states.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// The run
    run: StateRef,
    /// The other run [default: the last success before]
    other: Option<RunRef>,
}

impl Compare {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let other = self.other.as_ref().map(RunRef::to_string);
        let call = context.client.call(Method::GET, &["runs", &run, "compare"]);
        let answer = call.query(&[("with", other)]).send()?;
        context.output.answer(&answer, |answer: &Answer| Ok(show(&answer.read()?)))
    }
}

fn show(comparison: &RunComparison) -> String {
    let RunComparison { run, with, .. } = comparison;
    let mut text = table(
        ["", "RUN", "GRAPH", "STATUS", "STARTED", "TOOK"],
        [row("run", run), row("other", with)],
    );
    let rows = comparison.nodes.iter().map(|node| {
        let pair = |field: fn(&NodeTimes) -> String| {
            let (one, other) = (node.run.as_ref().map(field), node.with.as_ref().map(field));
            let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            cell(format!("{} / {}", shown(one), shown(other)))
        };
        [
            cell(&node.identifier),
            pair(|it| it.states.to_string()),
            pair(|it| it.errored.to_string()),
            pair(|it| it.retries.to_string()),
            pair(|it| ms(it.total_ms)),
            pair(|it| it.p50_ms.map_or_else(|| "-".to_owned(), ms)),
            pair(|it| it.max_ms.map_or_else(|| "-".to_owned(), ms)),
            optional_cell(node.median.as_ref().map(|median| ms(median.total_ms))),
        ]
    });
    let heading = ["NODE", "STATES", "ERRORED", "RETRIES", "TOTAL", "P50", "MAX", "MEDIAN TOTAL"];
    text.push_str(&format!("\n\n{}", table(heading, rows)));
    text.push_str("\n\neach pair is of the run and of the other one");
    if comparison.median_of > 0 {
        let runs = if comparison.median_of == 1 { "run" } else { "runs" };
        text.push_str(&format!("; medians are of {} {runs}", comparison.median_of));
    }
    if let Some(change) = &comparison.revisions {
        text.push_str(&format!("\n\n{}", revision_text(&run.graph, change)));
    }
    text
}

fn row(which: &str, run: &ComparedRun) -> [Cell; 6] {
    [
        cell(which),
        cell(&run.run),
        cell(format!("{}:{}", run.graph, run.revision)),
        cell(&run.status),
        cell(utc(run.created_at)),
        optional_cell(run.took_ms.map(ms)),
    ]
}

/// Formats the difference of two revisions, with the command that shows all of it.
fn revision_text(graph: &str, change: &RevisionChange) -> String {
    let mut parts = Vec::new();
    for (what, identifiers) in
        [("changed", &change.changed), ("new", &change.added), ("removed", &change.removed)]
    {
        if !identifiers.is_empty() {
            parts.push(format!("{what}: {}", sanitize::line(&identifiers.join(", "))));
        }
    }
    if change.has_other_changes {
        parts.push("edges or settings changed".to_owned());
    }
    let (from, to) = (change.from.to_string(), change.to.to_string());
    let all = follow_up(&["graph", "diff", graph, &from, &to]);
    format!("revision {from} to {to}: {}\nall changes: {all}", parts.join("; "))
}

fn ms(ms: u64) -> String {
    duration(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use exosphere_api_types::{ComparedNode, Sample};

    use super::*;

    #[test]
    fn nodes_of_two_runs_are_beside_each_other() {
        let run = |run: &str, revision| ComparedRun {
            run: run.to_owned(),
            graph: "g".to_owned(),
            revision,
            status: "FAILED".to_owned(),
            created_at: 0,
            took_ms: Some(2_500),
            sample: Sample::default(),
        };
        let times = |total_ms| NodeTimes { states: 3, total_ms, ..NodeTimes::default() };
        let node = ComparedNode {
            identifier: "count".to_owned(),
            run: Some(times(10)),
            with: None,
            median: Some(times(7)),
        };
        let text = show(&RunComparison {
            run: run("r", 4),
            with: run("s", 3),
            median_of: 5,
            nodes: vec![node],
            revisions: Some(RevisionChange {
                from: 3,
                to: 4,
                changed: vec!["count".to_owned()],
                ..RevisionChange::default()
            }),
        });
        for part in [
            "count  3 / -",
            "10 ms / -",
            "7 ms",
            "medians are of 5 runs",
            "revision 3 to 4: changed: count",
            "exosphere graph diff g 3 4",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
