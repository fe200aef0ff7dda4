//! `exosphere run pause
//! resume
//! cancel
//! redrive`: controls a run as a whole. Each command is one call, answered with the run
//! after the change.

use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::show;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::wire::Redriven;

/// The run that something is done to.
#[derive(Debug, clap::Args)]
pub struct Control {
    /// The run
    run: StateRef,
}

impl Control {
    /// Runs the command; `verb` is its name in the API.
    pub fn run(&self, session: &Session, verb: &str) -> Result<(), Error> {
        session.output.answer(&self.call(session, verb)?, |a| Ok(show::summary(&a.read()?)))
    }

    /// Redrives the run, and reports the states that could not be retried.
    pub fn redrive(&self, session: &Session) -> Result<(), Error> {
        session.output.answer(&self.call(session, "redrive")?, |answer| {
            let Redriven { run, retried, late } = answer.read()?;
            let mut text = format!("{}\n\n{retried} failed states run again", show::summary(&run));
            if late > 0 {
                text.push_str(&format!(
                    "; for {late} it is too late: a unite has gone on without them"
                ));
            }
            Ok(text)
        })
    }

    fn call(&self, session: &Session, verb: &str) -> Result<Answer, Error> {
        session.client.call(Method::POST, &["runs", &self.run.run.to_string(), verb]).send()
    }
}
