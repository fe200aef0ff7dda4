//! `exosphere run why`: the reason why a state waits, or those of a run.

use exosphere_api_types::{RunWhy, StateWhy};
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::error::Error;
use crate::format::{cell, optional_cell, table};
use crate::sanitize;

/// Say why a run, or one of its states, waits
///
/// For a run, the reasons of its open states are counted, each with an example.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run why latest
  exosphere run why latest split.count[3]")]
pub struct Why {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The path of the state, as `run states` prints it
    state: Option<StatePath>,
}

impl Why {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let get = |path: &[&str]| context.client.call(Method::GET, path).send();
        match self.run.state(&self.state)? {
            Some(state) => {
                let answer = get(&["runs", &run, "states", state, "why"])?;
                context.output.answer(&answer, show_state)
            }
            None => context.output.answer(&get(&["runs", &run, "why"])?, show_run),
        }
    }
}

fn show_state(answer: &Answer) -> Result<String, Error> {
    let why: StateWhy = answer.read()?;
    Ok(sanitize::line(&why.sentence))
}

fn show_run(answer: &Answer) -> Result<String, Error> {
    let why: RunWhy = answer.read()?;
    let mut text = sanitize::line(&why.sentence);
    if why.reasons.iter().map(|count| count.states).sum::<u64>() > 1 {
        let rows = why.reasons.iter().map(|count| {
            [cell(count.states), cell(count.why.kind()), optional_cell(count.example.as_ref())]
        });
        text.push_str("\n\n");
        text.push_str(&table(["STATES", "REASON", "EXAMPLE"], rows));
    }
    Ok(text)
}
