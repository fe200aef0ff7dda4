//! `exosphere run retry`: runs a failed state again.

use reqwest::Method;

use crate::commands::Session;
use crate::commands::run::show;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;

/// Run a failed (ERRORED) state again, and with it heal its run
///
/// Its retries count from the beginning again. Refused if a unite above it has
/// already gone on without it.
#[derive(Debug, clap::Args)]
pub struct Retry {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The number of the state
    state: Option<u64>,
}

impl Retry {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let Some(number) = self.run.state(self.state)? else {
            return Err(Error::Usage(
                "which state? `exosphere run states RUN --status ERRORED` lists those that failed"
                    .to_owned(),
            ));
        };
        let run = self.run.run.to_string();
        let path = ["runs", &run, "states", &number.to_string(), "retry"];
        let answer = session.client.call(Method::POST, &path).send()?;
        session.output.answer(&answer, |answer| Ok(show::summary(&answer.read()?)))
    }
}
