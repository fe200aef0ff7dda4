//! `exosphere run states`: the states of a run.

use clap::builder::PossibleValuesParser;
use exosphere_api_types::StateList;
use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::Name;
use exosphere_domain::run_ref::RunRef;
use reqwest::Method;

use crate::again::next_command_of;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::pages::{MAX_ITEMS, read_up_to};
use crate::commands::run::show::took;
use crate::commands::run::state_ref::StateRef;
use crate::commands::run::uppercase_word;
use crate::error::Error;
use crate::format::{cell, optional_cell, table};

/// List the states of a run
///
/// A state is listed if it meets every condition. --status may be repeated: one of the statuses
/// suffices. TOOK is the time of the last attempt.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run states RUN --status ERRORED      which states errored, and why
  exosphere run states RUN --kind timeout
  exosphere run states RUN --node merger --json")]
pub struct States {
    /// The run
    run: StateRef,
    /// Only states of the node with this identifier in the graph
    #[arg(long, visible_alias = "identifier", value_name = "NAME")]
    node: Option<Name>,
    /// Only states with this status
    #[arg(long, ignore_case = true, value_parser = uppercase_word(
        &["WAITING", "CREATED", "QUEUED", "SUCCESS", "PRUNED", "ERRORED", "CANCELLED"]
    ))]
    status: Vec<String>,
    /// Only failed states with a failure of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(FailureKind::ALL.map(FailureKind::as_str)))]
    kind: Option<String>,
    /// Only failed states whose message begins with the same 64 characters
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// The maximum number of items
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_ITEMS))]
    limit: u32,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
}

impl States {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let mut filter = vec![
            ("identifier", self.node.as_ref().map(Name::to_string)),
            ("kind", self.kind.clone()),
            ("message", self.message.clone()),
        ];
        filter.extend(self.status.iter().map(|status| ("status", Some(status.clone()))));
        let call = || context.client.call(Method::GET, &["runs", &run, "states"]).query(&filter);
        let answer = read_up_to(call, "states", self.limit, self.after.as_deref())?;
        context.output.answer(&answer, |answer| show(answer, (self.run.given(), &run)))
    }
}

/// Formats a page of states. The next command has the id of the run in place of what was given:
/// another run may be the latest one by then.
fn show(answer: &Answer, run: (&RunRef, &str)) -> Result<String, Error> {
    let page: StateList = answer.read()?;
    let rows = page.states.iter().map(|state| {
        [
            // The run is known; the path alone names a state of it.
            cell(&state.path),
            cell(&state.status),
            cell(state.attempt),
            cell(state.retries),
            cell(state.requeues),
            took(state),
            optional_cell(
                state
                    .failure
                    .as_ref()
                    .map(|failure| format!("{}: {}", failure.kind, failure.message)),
            ),
        ]
    });
    let mut text =
        table(["STATE", "STATUS", "ATTEMPT", "RETRIES", "REQUEUES", "TOOK", "FAILURE"], rows);
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: {}", next_command_of(run, "--after", &next)));
    }
    Ok(text)
}
