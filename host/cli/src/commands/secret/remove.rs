//! `exosphere secret remove`: removes a secret of a graph.

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;

/// Remove a secret of a graph
///
/// The host refuses it while a node of the graph's current revision declares the
/// secret.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The name of the secret
    name: Name,
    /// The graph that the secret belongs to
    #[arg(long)]
    graph: Name,
}

impl Remove {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["graphs", self.graph.as_str(), "secrets", self.name.as_str()];
        let answer = context.client.call(Method::DELETE, &path).send()?;
        context
            .output
            .answer(&answer, |_| Ok(format!("{} of {} is removed", self.name, self.graph)))
    }
}
