//! `exosphere graph revisions`: the revisions of a graph, the newest first.

use exosphere_api_types::RevisionList;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, digest, table, utc};

/// List the revisions of a graph, the newest first
#[derive(Debug, clap::Args)]
pub struct Revisions {
    /// The graph
    graph: Name,
    /// Only revisions before this one, to read on
    #[arg(long, value_name = "NUMBER")]
    before: Option<u32>,
    /// The maximum number of revisions
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
}

impl Revisions {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["graphs", self.graph.as_str(), "revisions"];
        let call = context.client.call(Method::GET, &path).query(&[
            ("before", self.before.map(|number| number.to_string())),
            ("limit", Some(self.limit.to_string())),
        ]);
        context.output.answer(&call.send()?, |answer| self.show(answer))
    }

    fn show(&self, answer: &Answer) -> Result<String, Error> {
        let page: RevisionList = answer.read()?;
        let rows = page.revisions.into_iter().map(|revision| {
            [
                cell(revision.revision),
                cell(digest(&revision.digest)),
                cell(utc(revision.created_at)),
                cell(if revision.current { "current" } else { "" }),
            ]
        });
        let mut text = table(["REVISION", "DIGEST", "APPLIED", ""], rows);
        if let Some(next) = page.next.and_then(|next| next.parse::<u32>().ok()) {
            let graph = &self.graph;
            text.push_str(&format!(
                "\n\nThere are more: `exosphere graph revisions {graph} --before {next}`"
            ));
        }
        Ok(text)
    }
}
