//! `exosphere run states`: the states of a run.

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::state_ref::StateRef;
use crate::commands::run::upper;
use crate::error::Error;
use crate::format::{cell, maybe, table, took};
use crate::sanitize;
use crate::wire;

/// List the states of a run
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run states RUN --status ERRORED      what went wrong, and where
  exosphere run states RUN --identifier merger --json")]
pub struct States {
    /// The run
    run: StateRef,
    /// Only states of this node of the graph
    #[arg(long, value_name = "NAME")]
    identifier: Option<Name>,
    /// Only states that are there
    #[arg(long, ignore_case = true, value_parser = upper(
        &["WAITING", "CREATED", "QUEUED", "SUCCESS", "PRUNED", "ERRORED", "CANCELLED"]
    ))]
    status: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
}

impl States {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let run = self.run.run.to_string();
        let call = session.client.call(Method::GET, &["runs", &run, "states"]).query(&[
            ("identifier", self.identifier.as_ref().map(Name::to_string)),
            ("status", self.status.clone()),
            ("limit", Some(self.limit.to_string())),
            ("after", self.after.clone()),
        ]);
        session.output.answer(&call.send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let page: wire::States = answer.read()?;
    let rows = page.states.iter().map(|state| {
        // The run is known; only the number distinguishes the states.
        let number = state.state.rsplit('/').next().unwrap_or_default();
        [
            cell(number),
            cell(&state.identifier),
            cell(&state.status),
            cell(state.attempt),
            cell(state.retries),
            cell(state.requeues),
            maybe(state.ended_at.map(|end| took(end.saturating_sub(state.created_at)))),
            maybe(state.failure.as_ref().map(|why| format!("{}: {}", why.kind, why.message))),
        ]
    });
    let mut text = table(
        ["STATE", "IDENTIFIER", "STATUS", "ATTEMPT", "RETRIES", "REQUEUES", "TOOK", "FAILURE"],
        rows,
    );
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: --after {}", sanitize::line(&next.to_string())));
    }
    Ok(text)
}
