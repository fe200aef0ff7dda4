//! `exosphere graph apply`: makes a template the current revision of a graph.

use std::path::PathBuf;

use exosphere_api_types::GraphApplied;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, name_of, of_file, read_file};
use crate::error::Error;
use crate::format::{cell, digest, table};
use crate::sanitize;

/// Apply a graph: make a template its current revision
///
/// The host resolves every node to an uploaded plugin; the node keeps that
/// plugin until the graph is applied again. Running runs keep the revision with
/// which they were started. The host refuses a template with mistakes as a
/// whole, and lists every mistake.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph apply words.json
  exosphere graph apply drafts/words-2.json --name words
  generate | exosphere graph apply - --name words")]
pub struct Apply {
    /// The template, a JSON file; - for standard input
    file: PathBuf,
    /// The graph's name [default: the name of the file]
    #[arg(long)]
    name: Option<Name>,
}

impl Apply {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let template = read_file(&self.file)?;
        let call = context.client.call(Method::PUT, &["graphs", name.as_str()]);
        let sent = call.json_text(template).send().map_err(|error| of_file(&self.file, error))?;
        context.output.answer(&sent, show)
    }
}

/// Shows the answer to an applied graph.
pub fn show(answer: &Answer) -> Result<String, Error> {
    let graph: GraphApplied = answer.read()?;
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
