//! `exosphere run list`: runs, the newest first.

use std::collections::BTreeMap;

use exosphere_api_types::{Label, RunList, RunSummary};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::again::next_command;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::pages::{MAX_ITEMS, read_up_to};
use crate::commands::run::show::status_text;
use crate::commands::run::uppercase_word;
use crate::error::Error;
use crate::format::{cell, elapsed, optional_cell, table, utc};
use crate::time::past;

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
    /// Only runs of this graph
    #[arg(long)]
    graph: Option<Name>,
    /// Only runs with this status
    #[arg(long, ignore_case = true, value_parser = uppercase_word(&["RUNNING", "SUCCESS", "FAILED", "CANCELLED"]))]
    status: Vec<String>,
    /// Only runs with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<Label>,
    /// Only runs started at this time or later: a time ago, for example 15m, 2h, 7d, or a date
    /// (UTC)
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<i64>,
    /// Only runs started before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<i64>,
    /// The maximum number of items
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_ITEMS))]
    limit: u32,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
}

/// Parses a label, `KEY=VALUE`.
pub fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or("not a valid label: give KEY=VALUE")?;
    Label::new(key, value).map_err(|error| error.to_string())
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let mut filter = vec![
            ("graph", self.graph.as_ref().map(Name::to_string)),
            ("created_after", self.since.map(|time| time.to_string())),
            ("created_before", self.until.map(|time| time.to_string())),
        ];
        filter.extend(self.status.iter().map(|status| ("status", Some(status.clone()))));
        filter.extend(self.label.iter().map(|label| ("label", Some(label.to_string()))));
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
