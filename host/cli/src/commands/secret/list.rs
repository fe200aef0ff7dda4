//! `exosphere secret list`: the names of secrets.

use exosphere_api_types::SecretList;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, pages};
use crate::error::Error;
use crate::format::{cell, table};

/// List the secrets of the namespace, without their values
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only secrets of this graph
    #[arg(long)]
    graph: Option<Name>,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = pages::read_all(|| context.client.call(Method::GET, &["secrets"]), "secrets")?;
        let answer = match &self.graph {
            None => answer,
            Some(graph) => {
                let mut list: SecretList = answer.read()?;
                list.secrets.retain(|secret| secret.graph == *graph);
                if list.secrets.is_empty() {
                    // The host refuses a graph that does not exist.
                    context.client.call(Method::GET, &["graphs", graph.as_str()]).send()?;
                }
                let value = serde_json::to_value(&list);
                Answer::from_value(&value.map_err(|error| Error::Failed(error.to_string()))?)
            }
        };
        context.output.answer(&answer, |answer| {
            let list: SecretList = answer.read()?;
            let rows = list.secrets.iter().map(|secret| [cell(&secret.graph), cell(&secret.name)]);
            Ok(table(["GRAPH", "SECRET"], rows))
        })
    }
}
