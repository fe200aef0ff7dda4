//! `exosphere namespace show`: the effective limits of the namespace.

use exosphere_domain::limits::Limit;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::error::Error;
use crate::format::{cell, table};
use crate::wire::Namespace;

/// Show the namespace: its share of the host, and every limit that counts in it
#[derive(Debug, clap::Args)]
pub struct Show {}

impl Show {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let answer = session.client.operator(Method::GET, &[]).send()?;
        session.output.answer(&answer, show)
    }
}

/// Formats a namespace.
pub fn show(answer: &Answer) -> Result<String, Error> {
    let Namespace { name, limits, slots, effective } = answer.read()?;
    let of_its_own = if slots.is_some() { " (set for it)" } else { "" };
    let rows = effective.limits.iter().map(|(name, value)| {
        let limit = Limit::parse(name);
        let words = limit.map(|limit| limit.unit().show(*value)).unwrap_or_default();
        let set = limit.is_some_and(|limit| limits.get(limit).is_some());
        [cell(name), cell(value), cell(words), cell(if set { "namespace" } else { "host" })]
    });
    let table = table(["LIMIT", "VALUE", "", "SET BY"], rows);
    Ok(format!("{name}: {} slots{of_its_own}\n\n{table}", effective.slots))
}
