//! `exosphere namespace`: limits and slots of namespaces, for operators.

mod list;
mod pause;
mod set;
mod show;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on namespaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
    Show(show::Show),
    Set(set::Set),
    Pause(pause::Pause),
    Resume(pause::Resume),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::Set(set) => set.run(context),
            Command::Pause(pause) => pause.run(context),
            Command::Resume(resume) => resume.run(context),
        })
    }
}
