//! `exosphere graph show`: a graph at its current revision, or at an earlier one.

use exosphere_api_types::GraphDetails;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{self, utc};
use crate::sanitize;

/// Show the definition of a graph, with every node resolved to its plugin
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph show words
  exosphere graph show words --revision 3 --json")]
pub struct Show {
    /// The graph
    graph: Name,
    /// The number of a revision [default: the current one]
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u32>,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let (graph, number) = (self.graph.as_str(), self.revision.map(|it| it.to_string()));
        let path = match &number {
            Some(number) => vec!["graphs", graph, "revisions", number],
            None => vec!["graphs", graph],
        };
        let answer = context.client.call(Method::GET, &path).send()?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let graph: GraphDetails = answer.read()?;
    let template = graph.template.parsed().map(|template| &template.0);
    let template = serde_json::to_string_pretty(&template);
    let template = template.map_err(|error| Error::Failed(error.to_string()))?;
    let paused = graph.pause.map(|pause| format!("\n{}", format::paused(&pause)));
    Ok(format!(
        "{}, revision {}, {}\ndigest {}{}\n\n{}",
        sanitize::line(&graph.name),
        graph.revision,
        utc(graph.created_at),
        sanitize::line(&graph.digest),
        paused.unwrap_or_default(),
        sanitize::json(&template)
    ))
}
