//! `exosphere plugin remove`: removes versions of a plugin that nothing uses.

use exosphere_api_types::PluginRemoved;
use exosphere_domain::ids::{Digest, Name};
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;
use crate::format;
use crate::sanitize;

/// Remove a plugin: all its versions, or chosen ones
///
/// The host refuses to remove a version that the current revision of a graph
/// names, or the revision of a run, and names these graphs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere plugin remove text              every version
  exosphere plugin remove text --unused     the versions that no graph uses")]
pub struct Remove {
    /// The name of the plugin
    plugin: Name,
    /// Remove only the version with this digest
    #[arg(long, conflicts_with = "unused")]
    digest: Option<Digest>,
    /// Remove only the versions that no graph uses
    #[arg(long)]
    unused: bool,
}

impl Remove {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.call(Method::DELETE, &["plugins", self.plugin.as_str()]);
        let call = call.query(&[
            ("digest", self.digest.map(|digest| digest.to_string())),
            ("unused", self.unused.then(|| "true".to_owned())),
        ]);
        context.output.answer(&call.send()?, |answer| {
            let PluginRemoved { name, digests } = answer.read()?;
            let name = sanitize::line(&name);
            if digests.is_empty() {
                return Ok(format!("every version of {name} is in use; nothing was removed"));
            }
            let removed =
                digests.iter().map(|digest| sanitize::line(&format::digest(digest)).to_string());
            let removed: Vec<_> = removed.collect();
            Ok(format!("{name} removed: {}", removed.join(", ")))
        })
    }
}
