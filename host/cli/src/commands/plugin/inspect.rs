//! `exosphere plugin inspect`: one plugin and its nodes.

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::error::Error;
use crate::format::{bytes, cell, maybe, table, utc};
use crate::sanitize;
use crate::wire::{NodeKind, Plugin};

/// Show one plugin: its nodes, with the schemas of their inputs and outputs
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The name of the plugin (its newest upload), or a digest
    #[arg(value_name = "NAME_OR_DIGEST")]
    plugin: Name,
}

impl Inspect {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let answer = session.client.call(Method::GET, &["plugins", self.plugin.as_str()]).send()?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let plugin: Plugin = answer.read()?;
    let mut text = summary(&plugin);
    text.push_str(&imports(&plugin.parts.imports));
    for node in &plugin.parts.nodes {
        text.push_str(&format!("\n\n{}", schemas(node)));
    }
    Ok(text)
}

/// Formats a plugin, with a line for each of its nodes.
pub fn summary(plugin: &Plugin) -> String {
    let about = table(
        ["NAME", "VERSION", "DIGEST", "SIZE", "UPLOADED"],
        [[
            cell(&plugin.name),
            maybe(plugin.version.as_ref()),
            cell(&plugin.digest),
            cell(bytes(plugin.size)),
            cell(utc(plugin.uploaded_at)),
        ]],
    );
    format!("{about}\n\n{}", nodes(&plugin.parts.nodes))
}

/// Formats nodes, one per line.
pub fn nodes(nodes: &[NodeKind]) -> String {
    let nodes = nodes.iter().map(|node| {
        [cell(&node.name), maybe(Some(node.secrets.join(", "))), maybe(node.description.as_ref())]
    });
    table(["NODE", "SECRETS", "DESCRIPTION"], nodes)
}

/// Formats the imports of a plugin as a paragraph to be appended.
pub fn imports(imports: &[String]) -> String {
    match imports.is_empty() {
        true => String::new(),
        false => format!("\n\nimports: {}", sanitize::line(&imports.join(", "))),
    }
}

fn schemas(node: &NodeKind) -> String {
    let NodeKind { name, inputs, outputs, .. } = node;
    sanitize::lines(&format!("{name} inputs: {inputs:#}\n{name} outputs: {outputs:#}"))
}
