//! `exosphere run cancel`: ends a run before its time.

use reqwest::Method;

use crate::commands::Session;
use crate::commands::run::place::Place;
use crate::commands::run::show;
use crate::error::Error;

/// Cancel a run: what runs now is stopped, what waits never starts
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The run
    run: Place,
}

impl Cancel {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let path = ["runs", &self.run.run.to_string(), "cancel"];
        let answer = session.client.call(Method::POST, &path).send()?;
        session.output.answer(&answer, |answer| Ok(show::summary(&answer.read()?)))
    }
}
