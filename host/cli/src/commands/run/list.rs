//! `exosphere run list`: runs, the newest first.

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::upper;
use crate::error::Error;
use crate::format::{cell, maybe, table, took, utc};
use crate::sanitize;
use crate::wire::Runs;

/// List runs, the newest first
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only runs of this graph
    #[arg(long)]
    graph: Option<Name>,
    /// Only runs that are there
    #[arg(long, ignore_case = true, value_parser = upper(&["RUNNING", "SUCCESS", "FAILED", "CANCELLED"]))]
    status: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "TOKEN")]
    before: Option<String>,
}

impl List {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let call = session.client.call(Method::GET, &["runs"]).query(&[
            ("graph", self.graph.as_ref().map(Name::to_string)),
            ("status", self.status.clone()),
            ("limit", Some(self.limit.to_string())),
            ("before", self.before.clone()),
        ]);
        session.output.answer(&call.send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let page: Runs = answer.read()?;
    let rows = page.runs.iter().map(|run| {
        [
            cell(&run.run),
            cell(format!("{}:{}", run.graph, run.revision)),
            cell(run.standing()),
            cell(run.counts.states),
            cell(run.counts.errored),
            cell(utc(run.created_at)),
            maybe(run.ended_at.map(|end| took(end.saturating_sub(run.created_at)))),
        ]
    });
    let mut text = table(["RUN", "GRAPH", "STATUS", "STATES", "FAILED", "STARTED", "TOOK"], rows);
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: --before {}", sanitize::line(&next.to_string())));
    }
    Ok(text)
}
