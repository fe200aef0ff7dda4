//! `exosphere namespace`: limits and shares, as operators set them.

mod list;
mod set;
mod show;

use clap::Subcommand;

use crate::commands::Session;
use crate::error::Error;

/// What can be done with namespaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
    Show(show::Show),
    Set(set::Set),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::List(list) => list.run(session),
            Command::Show(show) => show.run(session),
            Command::Set(set) => set.run(session),
        })
    }
}
