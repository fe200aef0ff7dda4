//! `exosphere graph`: apply, validate and list graphs.

mod apply;
mod list;
mod validate;

use clap::Subcommand;

use crate::commands::Context;
use crate::error::Error;

/// The commands on graphs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Apply(apply::Apply),
    Validate(validate::Validate),
    List(list::List),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Apply(apply) => apply.run(context),
            Command::Validate(validate) => validate.run(context),
            Command::List(list) => list.run(context),
        })
    }
}
