//! `exosphere plugin list`: every plugin of the namespace.

use exosphere_api_types::PluginList;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, pages};
use crate::error::Error;
use crate::format::{bytes, cell, digest, optional_cell, table, utc};

/// List the plugins of the namespace
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = || context.client.call(Method::GET, &["plugins"]);
        let answer = pages::read_all(call, "plugins")?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<PluginList>()?.plugins.into_iter().map(|plugin| {
        [
            cell(plugin.name),
            optional_cell(Some(plugin.version)),
            cell(digest(&plugin.digest)),
            cell(bytes(plugin.size)),
            cell(utc(plugin.uploaded_at)),
            cell(plugin.nodes.parsed().map_or_else(String::new, |nodes| nodes.join(", "))),
        ]
    });
    Ok(table(["NAME", "VERSION", "DIGEST", "SIZE", "UPLOADED", "NODES"], rows))
}
