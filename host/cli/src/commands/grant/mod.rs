//! `exosphere grant`: grants, which allow plugins more than their sandbox.

mod add;
mod list;
mod remove;
mod show;

use clap::Subcommand;
use exosphere_api_types::{Grants, PluginGrants};
use exosphere_domain::ids::Name;

use crate::commands::Context;
use crate::error::Error;

/// The commands on grants.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
    Show(show::Show),
    Add(add::Add),
    Remove(remove::Remove),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::Add(add) => add.run(context),
            Command::Remove(remove) => remove.run(context),
        })
    }
}

/// Changes the grants of a plugin.
fn change(
    context: &Context,
    plugin: &Name,
    change: impl Fn(&mut Grants) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = ["grants", plugin.as_str()];
    let answer = context
        .client
        .change(&path, |PluginGrants { mut grants, .. }| change(&mut grants).map(|()| grants))?;
    context.output.answer(&answer, show::plugin_grants)
}
