//! `exosphere run pause`, `resume`, `cancel` and `redrive`: commands on a run as a whole.
//! Each is one call, answered with the run after the change.

use exosphere_api_types::RunRedriven;
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::show;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;

/// The run of the command.
#[derive(Debug, clap::Args)]
pub struct Control {
    /// The run
    run: StateRef,
}

impl Control {
    /// Runs the command; `verb` is its name in the API.
    pub fn run(&self, context: &Context, verb: &str) -> Result<(), Error> {
        context
            .output
            .answer(&self.call(context, verb)?, |answer| Ok(show::summary(&answer.read()?)))
    }

    /// Redrives the run, and reports the states that could not be retried.
    pub fn redrive(&self, context: &Context) -> Result<(), Error> {
        context.output.answer(&self.call(context, "redrive")?, |answer| {
            let RunRedriven { details, retried, late } = answer.read()?;
            let retried =
                counted(retried, "errored state is retried", "errored states are retried");
            let mut text = format!("{}\n\n{retried}", show::summary(&details));
            if late > 0 {
                let late = counted(late, "stays errored", "stay errored");
                text.push_str(&format!("; {late}: a unite has already continued without them"));
            }
            Ok(text)
        })
    }

    fn call(&self, context: &Context, verb: &str) -> Result<Answer, Error> {
        let run = self.run.run(context)?.to_string();
        context.client.call(Method::POST, &["runs", &run, verb]).send()
    }
}
