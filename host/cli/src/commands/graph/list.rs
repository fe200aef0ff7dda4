//! `exosphere graph list`: every graph of the namespace.

use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Session, pages};
use crate::error::Error;
use crate::format::{cell, table, utc};
use crate::wire::Graphs;

/// List the graphs of the namespace, each at its newest revision
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let call = || session.client.call(Method::GET, &["graphs"]);
        let answer = pages::all(call, "graphs")?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<Graphs>()?.graphs.into_iter().map(|graph| {
        [cell(graph.name), cell(graph.revision), cell(graph.nodes), cell(utc(graph.created_at))]
    });
    Ok(table(["NAME", "REVISION", "NODES", "APPLIED"], rows))
}
