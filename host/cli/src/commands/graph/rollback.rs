//! `exosphere graph rollback`: makes the definition of an old revision the newest revision.

use exosphere_api_types::RollBack;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::commands::Context;
use crate::commands::graph::apply;
use crate::error::Error;

/// Make the definition of an old revision the newest revision of a graph
///
/// The host validates the definition again: its plugins must still be there, and
/// their grants and the graph's secrets must suffice. Running runs keep the
/// revision with which they were started. Secrets keep their present values.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph revisions words
  exosphere graph rollback words 3")]
pub struct Rollback {
    /// The graph
    graph: Name,
    /// The number of the revision whose definition is taken
    revision: u32,
}

impl Rollback {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let graph = self.graph.as_str();
        // A revision that somebody applies meanwhile is not replaced unseen.
        let current = context.client.call(Method::GET, &["graphs", graph]).send()?;
        let call = context.client.call(Method::POST, &["graphs", graph, "rollback"]);
        let call = call.json(&RollBack { revision: self.revision.into() });
        let answer = call.on_version(current.version()).send()?;
        context.output.answer(&answer, apply::show)
    }
}
