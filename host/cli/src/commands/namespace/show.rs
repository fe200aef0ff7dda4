//! `exosphere namespace show`: the effective limits of the namespace.

use exosphere_api_types::NamespaceDetails;
use exosphere_domain::limits::Limit;
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{self, cell, table};

/// Show the slots of the namespace and its effective limits
#[derive(Debug, clap::Args)]
pub struct Show {}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.operator(Method::GET, &[]).send()?;
        context.output.answer(&answer, show)
    }
}

/// Formats a namespace with its slots and effective limits.
pub fn show(answer: &Answer) -> Result<String, Error> {
    let NamespaceDetails { name, limits, slots, effective, pause } = answer.read()?;
    let set_by = if slots.is_some() { " (set by the namespace)" } else { "" };
    let rows = effective.limits.iter().map(|(name, value)| {
        let limit = Limit::parse(name);
        let formatted = limit.map(|limit| limit.unit().show(*value)).unwrap_or_default();
        let set = limits.contains_key(name);
        [cell(name), cell(value), cell(formatted), cell(if set { "namespace" } else { "host" })]
    });
    let table = table(["LIMIT", "VALUE", "", "SET BY"], rows);
    let paused = pause.map(|pause| format!("\n{}", format::paused(&pause)));
    let paused = paused.unwrap_or_default();
    let slots = counted(effective.slots.into(), "slot", "slots");
    Ok(format!("{name}: {slots}{set_by}{paused}\n\n{table}"))
}
