//! `exosphere plugin inspect`: one plugin and its nodes.

use exosphere_api_types::{NodeDetails, PluginDetails};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{bytes, cell, optional_cell, record, table, text_cell, utc};
use crate::sanitize;

/// Show a plugin: its nodes, with the schemas of their inputs and outputs
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The name of a plugin, for its newest upload, or a digest
    #[arg(value_name = "NAME_OR_DIGEST")]
    plugin: Name,
}

impl Inspect {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.call(Method::GET, &["plugins", self.plugin.as_str()]).send()?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let plugin: PluginDetails = answer.read()?;
    let mut text = summary(&plugin);
    text.push_str(&imports(&plugin.imports));
    for node in &plugin.nodes {
        text.push_str(&format!("\n\n{}", schemas(node)));
    }
    Ok(text)
}

/// Formats a plugin, with a line for each of its nodes.
pub fn summary(plugin: &PluginDetails) -> String {
    let summary = record([
        ("NAME", cell(&plugin.name)),
        ("VERSION", optional_cell(Some(&plugin.version))),
        ("DIGEST", cell(&plugin.digest)),
        ("SIZE", cell(bytes(plugin.size))),
        ("UPLOADED", optional_cell(plugin.uploaded_at.map(utc).as_deref())),
    ]);
    format!("{summary}\n\n{}", nodes(&plugin.nodes))
}

/// Formats nodes, one per line.
pub fn nodes(nodes: &[NodeDetails]) -> String {
    let nodes = nodes.iter().map(|node| {
        [
            cell(&node.name),
            optional_cell(Some(node.secrets.join(", "))),
            text_cell(&node.description),
        ]
    });
    table(["NODE", "SECRETS", "DESCRIPTION"], nodes)
}

/// Formats the imports of a plugin as a paragraph to be appended.
pub fn imports(imports: &[String]) -> String {
    if imports.is_empty() {
        return String::new();
    }
    format!("\n\nimports: {}", sanitize::line(&imports.join(", ")))
}

fn schemas(node: &NodeDetails) -> String {
    let NodeDetails { name, inputs, outputs, .. } = node;
    sanitize::lines(&format!("{name} inputs: {inputs:#}\n{name} outputs: {outputs:#}"))
}
