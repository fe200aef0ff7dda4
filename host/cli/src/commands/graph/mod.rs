//! `exosphere graph`: apply, validate, show and delete graphs, and their revisions.

mod apply;
mod delete;
mod diff;
mod list;
mod pause;
mod revisions;
mod rollback;
mod show;
mod stats;
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
    Show(show::Show),
    Revisions(revisions::Revisions),
    Diff(diff::Diff),
    Stats(stats::Stats),
    Rollback(rollback::Rollback),
    Delete(delete::Delete),
    Pause(pause::Pause),
    Resume(pause::Resume),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Apply(apply) => apply.run(context),
            Command::Validate(validate) => validate.run(context),
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::Revisions(revisions) => revisions.run(context),
            Command::Diff(diff) => diff.run(context),
            Command::Stats(stats) => stats.run(context),
            Command::Rollback(rollback) => rollback.run(context),
            Command::Delete(delete) => delete.run(context),
            Command::Pause(pause) => pause.run(context),
            Command::Resume(resume) => resume.run(context),
        })
    }
}
