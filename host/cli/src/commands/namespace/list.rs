//! `exosphere namespace list`: every namespace that is in use.

use exosphere_api_types::NamespaceList;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, pages};
use crate::error::Error;
use crate::format::{cell, optional_cell, table};

/// List the namespaces and their settings
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer =
            pages::read_all(|| context.client.of_all(Method::GET, &["namespaces"]), "namespaces")?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<NamespaceList>()?.namespaces.into_iter().map(|namespace| {
        let limits: Vec<_> =
            namespace.limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let limits = limits.join(", ");
        [cell(namespace.name), cell(namespace.effective.slots), optional_cell(Some(limits))]
    });
    Ok(table(["NAME", "SLOTS", "LIMITS OF ITS OWN"], rows))
}
