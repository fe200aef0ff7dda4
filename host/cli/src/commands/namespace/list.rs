//! `exosphere namespace list`: every namespace that holds anything.

use crate::client::Answer;
use crate::commands::{Session, pages};
use crate::error::Error;
use crate::format::{cell, maybe, table};
use crate::wire::Namespaces;

/// List the namespaces, with what was set for them
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let answer = pages::all(|| session.client.all_namespaces(), "namespaces")?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<Namespaces>()?.namespaces.into_iter().map(|namespace| {
        let limits = namespace.limits.to_string();
        [cell(namespace.name), cell(namespace.effective.slots), maybe(Some(limits))]
    });
    Ok(table(["NAME", "SLOTS", "LIMITS OF ITS OWN"], rows))
}
