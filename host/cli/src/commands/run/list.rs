//! `exosphere run list`: runs, the newest first.

use exosphere_api_types::RunList;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::again::next_command;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::show::status_text;
use crate::commands::run::uppercase_word;
use crate::error::Error;
use crate::format::{cell, elapsed, table, utc};

/// List runs, the newest first
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only runs of this graph
    #[arg(long)]
    graph: Option<Name>,
    /// Only runs with this status
    #[arg(long, ignore_case = true, value_parser = uppercase_word(&["RUNNING", "SUCCESS", "FAILED", "CANCELLED"]))]
    status: Option<String>,
    /// The maximum number of items, at most 1000
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    before: Option<String>,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.call(Method::GET, &["runs"]).query(&[
            ("graph", self.graph.as_ref().map(Name::to_string)),
            ("status", self.status.clone()),
            ("limit", Some(self.limit.to_string())),
            ("before", self.before.clone()),
        ]);
        context.output.answer(&call.send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let page: RunList = answer.read()?;
    let rows = page.runs.iter().map(|run| {
        [
            cell(&run.run),
            cell(format!("{}:{}", run.graph, run.revision)),
            cell(status_text(run)),
            cell(run.counts.states),
            cell(run.counts.errored),
            cell(utc(run.created_at)),
            elapsed(run.created_at, run.ended_at),
        ]
    });
    let mut text = table(["RUN", "GRAPH", "STATUS", "STATES", "ERRORED", "STARTED", "TOOK"], rows);
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: {}", next_command("--before", &next)));
    }
    Ok(text)
}
