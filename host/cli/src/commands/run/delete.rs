//! `exosphere run delete`: deletes runs that have ended.

use exosphere_api_types::RunDeleted;
use reqwest::Method;

use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::sanitize;

/// Delete a run that has ended, with everything that belongs to it
///
/// The host removes the states of a large run after the answer, in the
/// background; from the answer on, the run does not exist any more.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// The run
    run: StateRef,
}

impl Delete {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let path = ["runs", &run];
        let answer = context.client.call(Method::DELETE, &path).send()?;
        context.output.answer(&answer, |answer| {
            let RunDeleted { run } = answer.read()?;
            Ok(format!("{} deleted", sanitize::line(&run)))
        })
    }
}
