//! `exosphere grant`: grants, which allow plugins more than their sandbox.

mod add;
mod list;
mod remove;
mod show;

use clap::Subcommand;
use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Name;

use crate::commands::Session;
use crate::error::Error;
use crate::wire::PluginGrants;

/// What can be done with grants.
#[derive(Debug, Subcommand)]
pub enum Command {
    List(list::List),
    Show(show::Show),
    Add(add::Add),
    Remove(remove::Remove),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::List(list) => list.run(session),
            Command::Show(show) => show.run(session),
            Command::Add(add) => add.run(session),
            Command::Remove(remove) => remove.run(session),
        })
    }
}

/// Changes the grants of a plugin.
fn change(
    session: &Session,
    plugin: &Name,
    change: impl Fn(&mut Grants) -> Result<(), Error>,
) -> Result<(), Error> {
    let answer = session.client.change(&["grants", plugin.as_str()], |now| {
        let PluginGrants { mut grants, .. } = now.read()?;
        change(&mut grants).map(|()| grants)
    })?;
    session.output.answer(&answer, show::one)
}
