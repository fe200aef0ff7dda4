//! `exosphere host`: the hosts of a database, for operators.

mod list;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on hosts.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::List(list) => list.run(context),
        })
    }
}
