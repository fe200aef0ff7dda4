//! `exosphere namespace set`: sets limits and slots of the namespace.

use exosphere_api_types::{NamespaceDetails, NamespaceSettings};
use exosphere_domain::limits::{Limit, LimitValues};

use crate::commands::Context;
use crate::commands::namespace::show;
use crate::error::Error;

/// Set limits and slots of the namespace
///
/// Settings that are not named stay as they are. A limit can be lower than the
/// host's, not higher. The change applies to executions that begin a second later.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere namespace set --namespace guests --limit memory_bytes=32MiB --limit cpu_ms=1s
  exosphere namespace set --namespace guests --slots 8
  exosphere namespace set --namespace guests --unset cpu_ms --host-slots")]
#[group(required = true, multiple = true)]
pub struct Set {
    /// A limit, repeatable: memory_bytes=64MiB
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    limits: Vec<LimitValues>,
    /// A limit to reset to the host's
    #[arg(long, value_name = "NAME")]
    unset: Vec<Limit>,
    /// The number of its nodes that run at a time on one host
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// Reset the slots to the host's number for a namespace
    #[arg(long, conflicts_with = "slots")]
    host_slots: bool,
}

impl Set {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.change(&[], |now| self.changed(&now))?;
        context.output.answer(&answer, show::show)
    }

    /// Returns the settings that replace the current ones.
    fn changed(&self, now: &NamespaceDetails) -> Result<NamespaceSettings, Error> {
        let mut limits = LimitValues::default();
        for (name, value) in &now.limits {
            // A limit that is left out would be reset.
            let limit: Limit = name.parse().map_err(|error| {
                Error::Failed(format!(
                    "nothing was set: the namespace has a limit that this client does not know: \
                     {error}; use a client of the host's version"
                ))
            })?;
            if !self.unset.contains(&limit) {
                limits.add(limit, *value).map_err(|error| Error::Failed(error.to_string()))?;
            }
        }
        let limits = limits.iter().chain(self.limits.iter().flat_map(LimitValues::iter)).collect();
        let slots = if self.host_slots { None } else { self.slots.or(now.slots) };
        Ok(NamespaceSettings { limits, slots })
    }
}
