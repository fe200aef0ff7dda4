//! `exosphere audit`: the changes that callers made, for admins.

mod list;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on the audit log.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Command::List(list) => list.run(context),
        }
    }
}
