//! `exosphere plugin check`: asks a host to check a plugin without storing it.

use std::path::PathBuf;

use exosphere_api_types::PluginReport;
use exosphere_domain::ids::Name;

use super::upload::{remarks, upload};
use crate::client::Answer;
use crate::commands::{Context, name_of, plugin::inspect};
use crate::error::Error;
use crate::format::{bytes, cell, duration, record};

/// Check a plugin as for a push, without storing it
///
/// The host admits or refuses the plugin as it would for a push.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The component: a .wasm file made for wasm32-wasip2
    file: PathBuf,
    /// The name that the plugin would have, whose grants apply [default: the name of the
    /// file]
    #[arg(long)]
    name: Option<Name>,
}

impl Check {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let query = [("name", Some(name.to_string()))];
        let answer = upload(context, &["plugins", "check"], &query, &self.file)?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let PluginReport { plugin: checked, capabilities, warnings } = answer.read()?;
    let summary = record([
        ("DIGEST", cell(&checked.digest)),
        ("SIZE", cell(bytes(checked.size))),
        ("COMPILED IN", cell(duration(i64::try_from(checked.compile_ms).unwrap_or(i64::MAX)))),
    ]);
    let nodes = inspect::nodes(&checked.nodes);
    let imports = inspect::imports(&checked.imports);
    let remarks = remarks(&capabilities, &warnings);
    Ok(format!("the plugin would be admitted\n\n{summary}\n\n{nodes}{imports}{remarks}"))
}
