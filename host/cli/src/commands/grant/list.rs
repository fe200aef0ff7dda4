//! `exosphere grant list`: the grants of every plugin of the namespace.

use exosphere_api_types::GrantList;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::grant::show;
use crate::commands::{Context, pages};
use crate::error::Error;

/// List the grants of the plugins of the namespace
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = || context.client.operator(Method::GET, &["grants"]);
        let answer = pages::read_all(call, "grants")?;
        context.output.answer(&answer, show_all)
    }
}

fn show_all(answer: &Answer) -> Result<String, Error> {
    Ok(show::grant_table(&answer.read::<GrantList>()?.grants))
}
