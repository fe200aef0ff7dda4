//! `exosphere graph`: apply graphs, check them and look at them.

mod apply;
mod list;
mod validate;

use clap::Subcommand;

use crate::commands::Session;
use crate::error::Error;

/// What can be done with graphs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Apply(apply::Apply),
    Validate(validate::Validate),
    List(list::List),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::Apply(apply) => apply.run(session),
            Command::Validate(validate) => validate.run(session),
            Command::List(list) => list.run(session),
        })
    }
}
