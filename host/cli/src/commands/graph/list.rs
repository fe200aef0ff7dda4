//! `exosphere graph list`: every graph of the namespace.

use exosphere_api_types::GraphList;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, pages};
use crate::error::Error;
use crate::format::{cell, table, utc};

/// List the graphs of the namespace, each at its current revision
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = || context.client.call(Method::GET, &["graphs"]);
        let answer = pages::read_all(call, "graphs")?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<GraphList>()?.graphs.into_iter().map(|graph| {
        [cell(graph.name), cell(graph.revision), cell(graph.nodes), cell(utc(graph.created_at))]
    });
    Ok(table(["NAME", "REVISION", "NODES", "APPLIED"], rows))
}
