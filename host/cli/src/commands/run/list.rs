//! `exosphere run list`: runs, the newest first.

use std::collections::BTreeMap;

use exosphere_api_types::{RunList, RunSummary};
use reqwest::Method;

use crate::again::next_command;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::pages::{MAX_ITEMS, read_up_to};
use crate::commands::run::filter::FilterArgs;
use crate::commands::run::show::status_text;
use crate::error::Error;
use crate::format::{cell, elapsed, optional_cell, table, utc};

/// List runs, the newest first
///
/// A run is listed if it meets every condition. --status may be repeated: one of the statuses
/// suffices. --label may be repeated: the run must have all of them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run list --status failed --since 24h
  exosphere run list --graph words --status running --status failed
  exosphere run list --label team=search --until 2026-01-31")]
pub struct List {
    #[command(flatten)]
    filter: FilterArgs,
    /// The maximum number of items
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_ITEMS))]
    limit: u32,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let filter = self.filter.query();
        let call = || context.client.call(Method::GET, &["runs"]).query(&filter);
        let answer = read_up_to(call, "runs", self.limit, self.after.as_deref())?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let page: RunList = answer.read()?;
    let columns = |run: &RunSummary| {
        [
            cell(&run.run),
            cell(format!("{}:{}", run.graph, run.revision)),
            cell(status_text(run)),
            cell(run.counts.states),
            cell(run.counts.errored),
            cell(utc(run.created_at)),
            elapsed(run.created_at, run.ended_at),
        ]
    };
    let heading = ["RUN", "GRAPH", "STATUS", "STATES", "ERRORED", "STARTED", "TOOK"];
    let mut text = if page.runs.iter().all(|run| run.labels.is_empty()) {
        table(heading, page.runs.iter().map(columns))
    } else {
        let [run, graph, status, states, errored, started, took] = heading;
        let heading = [run, graph, status, states, errored, started, took, "LABELS"];
        let rows = page.runs.iter().map(|run| {
            let labels = optional_cell(Some(labels_text(&run.labels)));
            let [id, graph, status, states, errored, started, took] = columns(run);
            [id, graph, status, states, errored, started, took, labels]
        });
        table(heading, rows)
    };
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: {}", next_command("--after", &next)));
    }
    Ok(text)
}

/// Formats labels as they are given on the command line.
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(" ")
}
