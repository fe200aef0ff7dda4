//! `exosphere quota`: the quotas of the namespace, for admins.

mod set;
mod show;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on quotas.
#[derive(Debug, Subcommand)]
pub enum Command {
    Show(show::Show),
    Set(set::Set),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Show(show) => show.run(context),
            Command::Set(set) => set.run(context),
        })
    }
}
