//! `exosphere graph apply`: makes a template the newest revision of a graph.

use std::path::PathBuf;

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Session, name_of, read_file};
use crate::error::Error;
use crate::format::{cell, digest, table};
use crate::sanitize;
use crate::wire::Applied;

/// Apply a graph: its template becomes the newest revision
///
/// Every node is looked up among the uploaded plugins now, and stays with the
/// plugin found until the graph is applied again. Runs that are under way keep
/// the revision with which they were started. A template with mistakes is
/// refused as a whole, and every mistake is listed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph apply words.json
  exosphere graph apply drafts/words-2.json --name words")]
pub struct Apply {
    /// The template, a JSON file
    file: PathBuf,
    /// The graph's name [default: that of the file]
    #[arg(long)]
    name: Option<Name>,
}

impl Apply {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let template = read_file(&self.file)?;
        let call = session.client.call(Method::PUT, &["graphs", name.as_str()]);
        session.output.answer(&call.json_text(template).send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let graph: Applied = answer.read()?;
    let word = if graph.changed { "applied" } else { "unchanged" };
    let nodes = graph.nodes.iter().map(|node| {
        [
            cell(&node.identifier),
            cell(&node.node_name),
            cell(&node.plugin),
            cell(digest(&node.digest)),
        ]
    });
    Ok(format!(
        "{} {word}, revision {}\n\n{}",
        sanitize::line(&graph.name),
        graph.revision,
        table(["IDENTIFIER", "NODE", "PLUGIN", "DIGEST"], nodes)
    ))
}
