//! `exosphere plugin check`: asks a host to check a plugin without storing it.

use std::path::PathBuf;

use exosphere_domain::ids::Name;

use super::upload::{remarks, upload};
use crate::client::Answer;
use crate::commands::{Session, name_of, plugin::inspect};
use crate::error::Error;
use crate::format::{bytes, cell, table, took};
use crate::wire::Checked;

/// Ask a host whether it would take a plugin, without storing it
///
/// The host does all that it does for a push, and forgets it again.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The component: a .wasm file made for wasm32-wasip2
    file: PathBuf,
    /// The name that the plugin would have; grants go by it [default: that of the
    /// file]
    #[arg(long)]
    name: Option<Name>,
}

impl Check {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let query = [("name", Some(name.to_string()))];
        let answer = upload(session, &["plugins", "check"], &query, &self.file)?;
        session.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let checked: Checked = answer.read()?;
    let about = table(
        ["DIGEST", "SIZE", "COMPILED IN"],
        [[cell(&checked.digest), cell(bytes(checked.size)), cell(took(checked.compile_ms))]],
    );
    let nodes = inspect::nodes(&checked.parts.nodes);
    let imports = inspect::imports(&checked.parts.imports);
    let remarks = remarks(&checked.parts);
    Ok(format!("it would be admitted\n\n{about}\n\n{nodes}{imports}{remarks}"))
}
