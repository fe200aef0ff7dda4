//! `exosphere plugin`: upload plugins, check them and look at them.

mod check;
mod inspect;
mod list;
mod push;
mod upload;

use clap::Subcommand;

use crate::commands::Session;
use crate::error::Error;

/// What can be done with plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    Push(push::Push),
    Check(check::Check),
    List(list::List),
    Inspect(inspect::Inspect),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::Push(push) => push.run(session),
            Command::Check(check) => check.run(session),
            Command::List(list) => list.run(session),
            Command::Inspect(inspect) => inspect.run(session),
        })
    }
}
