//! `exosphere secret`: sets, lists and removes secrets of graphs through a host.
//!
//! Not here: the keys that encrypt them (`exosphere secrets`).

mod list;
mod remove;
mod set;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on single secrets.
#[derive(Debug, Subcommand)]
pub enum Command {
    Set(set::Set),
    List(list::List),
    Remove(remove::Remove),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Set(set) => set.run(context),
            Command::List(list) => list.run(context),
            Command::Remove(remove) => remove.run(context),
        })
    }
}
