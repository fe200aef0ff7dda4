//! `exosphere plugin push`: uploads a component.

use std::path::PathBuf;

use exosphere_api_types::PluginReport;
use exosphere_domain::ids::Name;

use super::upload::{remarks, upload};
use crate::client::Answer;
use crate::commands::{Context, name_of, plugin::inspect};
use crate::error::Error;

/// Upload a plugin: one WebAssembly component with one or several nodes
///
/// The host compiles the component, checks that it exports `exosphere:node`, and
/// reads the descriptions of its nodes. The same bytes may be pushed again; at
/// most the label changes then. A graph keeps the plugins with which it was
/// applied until it is applied again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere plugin push target/wasm32-wasip2/release/hello.wasm
  exosphere plugin push hello.wasm --name greetings --version 1.4.0")]
pub struct Push {
    /// The component: a .wasm file made for wasm32-wasip2
    file: PathBuf,
    /// The plugin's name [default: the name of the file]
    #[arg(long)]
    name: Option<Name>,
    /// A label for people, such as 1.4.0
    #[arg(long, value_name = "LABEL")]
    version: Option<String>,
}

impl Push {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let query = [("name", Some(name.to_string())), ("version", self.version.clone())];
        let answer = upload(context, &["plugins"], &query, &self.file)?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let PluginReport { plugin, capabilities, warnings } = answer.read()?;
    let remarks = remarks(&capabilities, &warnings);
    Ok(format!("{}{remarks}", inspect::summary(&plugin)))
}
