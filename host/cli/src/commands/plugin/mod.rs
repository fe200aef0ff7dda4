//! `exosphere plugin`: upload, check, show and remove plugins.

mod check;
mod inspect;
mod list;
mod push;
mod remove;
mod upload;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    Push(push::Push),
    Check(check::Check),
    List(list::List),
    Inspect(inspect::Inspect),
    Remove(remove::Remove),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Push(push) => push.run(context),
            Command::Check(check) => check.run(context),
            Command::List(list) => list.run(context),
            Command::Inspect(inspect) => inspect.run(context),
            Command::Remove(remove) => remove.run(context),
        })
    }
}
