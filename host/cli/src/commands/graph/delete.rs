//! `exosphere graph delete`: deletes a graph with all its revisions.

use exosphere_api_types::GraphDeleted;
use exosphere_domain::ids::Name;
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;
use crate::sanitize;

/// Delete a graph with all its revisions and secrets
///
/// The host refuses a graph with runs that have not ended, and one with ended
/// runs unless --with-runs is given.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// The graph
    graph: Name,
    /// Delete the ended runs of the graph, too
    #[arg(long)]
    with_runs: bool,
}

impl Delete {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.call(Method::DELETE, &["graphs", self.graph.as_str()]);
        let call = call.query(&[("with_runs", self.with_runs.then(|| "true".to_owned()))]);
        context.output.answer(&call.send()?, |answer| {
            let GraphDeleted { name, revisions, runs } = answer.read()?;
            let name = sanitize::line(&name);
            let revisions = counted(revisions, "revision", "revisions");
            let runs = counted(runs, "run", "runs");
            Ok(format!("{name} deleted, with {revisions} and {runs}"))
        })
    }
}
