//! `exosphere run inputs`: what a run was started with, and the inputs of a state.

use std::fmt::Write as _;

use exosphere_api_types::{RunInputs, StateInputs};
use reqwest::Method;

use crate::commands::Context;
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::error::Error;
use crate::format::{cell, duration, optional_cell, record, table, utc};
use crate::sanitize;

/// Show what a run was started with, or the inputs of one of its states
///
/// The inputs of a state are those that its node gets, byte for byte: the host
/// renders them again from what can no longer change.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run inputs latest
  exosphere run inputs latest split.count[3]
  exosphere run inputs latest split.count[3] --raw > inputs.json")]
pub struct Given {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The path of a state, as `run states` prints it
    state: Option<StatePath>,
    /// Print the inputs as JSON on one line, and nothing else
    #[arg(long)]
    raw: bool,
}

impl Given {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let state = self.run.state(&self.state)?;
        let run = self.run.run(context)?.to_string();
        match state {
            None => {
                let answer = context.client.call(Method::GET, &["runs", &run, "inputs"]).send()?;
                context.output.answer(&answer, |answer| {
                    if self.raw {
                        answer.require("inputs")?;
                    }
                    let given: RunInputs = answer.read()?;
                    Ok(if self.raw { one_line(&given.inputs) } else { start(&given) })
                })
            }
            Some(state) => {
                let path = ["runs", &run, "states", state, "inputs"];
                let answer = context.client.call(Method::GET, &path).send()?;
                context.output.answer(&answer, |answer| {
                    answer.require("inputs")?;
                    let StateInputs { inputs, failure, .. } = answer.read()?;
                    let Some(inputs) = inputs else {
                        let why = failure.map_or_else(String::new, |why| {
                            format!(": {}: {}", why.kind, why.message)
                        });
                        return Err(Error::Failed(format!("the inputs cannot be rendered{why}")));
                    };
                    Ok(if self.raw {
                        one_line(&inputs)
                    } else {
                        sanitize::lines(&format!("{inputs:#}"))
                    })
                })
            }
        }
    }
}

fn one_line(json: &impl std::fmt::Display) -> String {
    sanitize::json(&json.to_string())
}

/// Formats what a run was started with.
fn start(given: &RunInputs) -> String {
    let delay = given.delay_ms.filter(|delay| *delay > 0);
    let mut text = record([
        ("RUN", cell(&given.run)),
        ("GRAPH", cell(format!("{}:{}", given.graph, given.revision))),
        ("STARTED", cell(utc(given.created_at))),
        ("BY", optional_cell(given.started_by.as_ref())),
        (
            "DELAY",
            optional_cell(delay.map(|delay| duration(i64::try_from(delay).unwrap_or(i64::MAX)))),
        ),
        ("DUE", optional_cell(given.due_at.map(utc))),
        ("KEY", optional_cell(given.idempotency_key.as_ref())),
    ]);
    let inputs = sanitize::lines(&format!("{:#}", given.inputs)).replace('\n', "\n  ");
    let _ = write!(text, "\n\ninputs\n  {inputs}");
    if !given.store.is_empty() {
        let rows = given.store.iter().map(|(key, value)| [cell(key), cell(value)]);
        let _ = write!(text, "\n\n{}", table(["STORE KEY", "VALUE"], rows));
    }
    if !given.labels.is_empty() {
        let rows = given.labels.iter().map(|(key, value)| [cell(key), cell(value)]);
        let _ = write!(text, "\n\n{}", table(["LABEL", "VALUE"], rows));
    }
    text
}
