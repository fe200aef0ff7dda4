//! `exosphere grant`: what plugins may use beyond their sandbox.

mod add;
mod list;
mod remove;
mod show;

use clap::Subcommand;
use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Name;
use reqwest::Method;

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
    /// Does it.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::List(list) => list.run(session),
            Command::Show(show) => show.run(session),
            Command::Add(add) => add.run(session),
            Command::Remove(remove) => remove.run(session),
        })
    }
}

/// Reads what a plugin is granted, changes it and sets it.
fn change(
    session: &Session,
    plugin: &Name,
    change: impl FnOnce(&mut Grants) -> Result<(), Error>,
) -> Result<(), Error> {
    let path = ["grants", plugin.as_str()];
    let now = session.client.operator(Method::GET, &path).send()?;
    let PluginGrants { mut grants, .. } = now.read()?;
    change(&mut grants)?;
    let answer = session.client.operator(Method::PUT, &path).json(&grants).send()?;
    session.output.answer(&answer, show::one)
}
