//! `exosphere plugin push`: uploads a component.

use std::path::PathBuf;

use exosphere_domain::ids::Name;

use super::upload::{remarks, upload};
use crate::client::Answer;
use crate::commands::{Session, name_of, plugin::inspect};
use crate::error::Error;
use crate::wire::Plugin;

/// Upload a plugin: one WebAssembly component with one or several nodes
///
/// The host compiles it, checks that it speaks `exosphere:node`, and asks it
/// what nodes it has. The same bytes may be pushed again; at most the label changes then.
/// Graphs that were applied before keep the plugin that they were applied with,
/// until they are applied again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere plugin push target/wasm32-wasip2/release/hello.wasm
  exosphere plugin push hello.wasm --name greetings --version 1.4.0")]
pub struct Push {
    /// The component: a .wasm file made for wasm32-wasip2
    file: PathBuf,
    /// The plugin's name [default: that of the file]
    #[arg(long)]
    name: Option<Name>,
    /// A label for people, such as 1.4.0
    #[arg(long, value_name = "LABEL")]
    version: Option<String>,
}

impl Push {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let query = [("name", Some(name.to_string())), ("version", self.version.clone())];
        let answer = upload(session, &["plugins"], &query, &self.file)?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let plugin: Plugin = answer.read()?;
    let remarks = remarks(&plugin.parts);
    Ok(format!("{}{remarks}", inspect::summary(&plugin)))
}
