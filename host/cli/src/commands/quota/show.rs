//! `exosphere quota show`: the quotas of the namespace, and what it uses of them.

use exosphere_api_types::NamespaceQuotas;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, optional_cell, table};

/// Show the quotas of the namespace, and what it uses of them
#[derive(Debug, clap::Args)]
pub struct Show {}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.operator(Method::GET, &["quotas"]).send()?;
        context.output.answer(&answer, show)
    }
}

/// Formats quotas as a table.
pub fn show(answer: &Answer) -> Result<String, Error> {
    let NamespaceQuotas { quotas, used } = answer.read()?;
    if quotas.is_empty() {
        return Ok("the namespace has no quotas".to_owned());
    }
    let rows = quotas.iter().map(|(quota, value)| {
        [cell(quota), cell(value), optional_cell(used.get(quota)), cell(quota.what())]
    });
    Ok(table(["QUOTA", "VALUE", "USED", "OF"], rows))
}
