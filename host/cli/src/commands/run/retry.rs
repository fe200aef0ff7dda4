//! `exosphere run retry`: retries an errored state.

use reqwest::Method;

use crate::commands::Context;
use crate::commands::run::show;
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::error::Error;

/// Retry an errored state, and with it its run
///
/// The state counts its retries from 0 again. The host refuses the retry if a
/// unite above the state has already continued without it.
#[derive(Debug, clap::Args)]
pub struct Retry {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The path of the state, as `run states` prints it
    state: Option<StatePath>,
}

impl Retry {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let Some(state) = self.run.state(&self.state)? else {
            return Err(Error::Usage(
                "no state is given; list the errored ones with \
                 `exosphere run states RUN --status ERRORED`"
                    .to_owned(),
            ));
        };
        let run = self.run.run(context)?.to_string();
        let path = ["runs", &run, "states", state, "retry"];
        let answer = context.client.call(Method::POST, &path).send()?;
        context.output.answer(&answer, |answer| Ok(show::summary(&answer.read()?)))
    }
}
