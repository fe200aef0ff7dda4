//! `exosphere plugin push`: uploads a component.

use std::fs::File;
use std::path::PathBuf;

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Session, cannot_read, name_of, plugin::inspect};
use crate::error::Error;

/// The most bytes of a plugin that a host takes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

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
        let file = File::open(&self.file).map_err(|error| cannot_read(&self.file, &error))?;
        // The host would say so too, but hangs up on what it does not read.
        let size = file.metadata().map_err(|error| cannot_read(&self.file, &error))?.len();
        if size > MAX_BYTES {
            let words = format!(
                "{} has {size} bytes; a plugin may have {MAX_BYTES}. Build it with `--release`, `opt-level = \"s\"` and `strip = true`",
                self.file.display()
            );
            return Err(Error::Failed(words));
        }
        let query = [("name", Some(name.to_string())), ("version", self.version.clone())];
        let answer =
            session.client.call(Method::POST, &["plugins"]).query(&query).wasm(file).send()?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    Ok(inspect::summary(&answer.read()?))
}
