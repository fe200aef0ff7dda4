//! `exosphere plugin list`: every plugin of the namespace.

use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Session, pages};
use crate::error::Error;
use crate::format::{bytes, cell, digest, maybe, table, utc};
use crate::wire::Plugins;

/// List the plugins of the namespace
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let call = || session.client.call(Method::GET, &["plugins"]);
        let answer = pages::all(call, "plugins")?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<Plugins>()?.plugins.into_iter().map(|plugin| {
        [
            cell(plugin.name),
            maybe(plugin.version),
            cell(digest(&plugin.digest)),
            cell(bytes(plugin.size)),
            cell(utc(plugin.uploaded_at)),
            cell(plugin.nodes.join(", ")),
        ]
    });
    Ok(table(["NAME", "VERSION", "DIGEST", "SIZE", "UPLOADED", "NODES"], rows))
}
