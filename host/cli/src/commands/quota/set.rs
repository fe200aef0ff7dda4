//! `exosphere quota set`: sets or removes quotas of the namespace.

use exosphere_api_types::{NamespaceQuotas, QuotaSettings, QuotaValues};
use exosphere_domain::quota::Quota;

use crate::commands::Context;
use crate::commands::quota::show;
use crate::error::Error;

/// Set quotas of the namespace
///
/// Quotas that are not named stay as they are. A change counts within a second.
/// The states of one run have a limit: `exosphere namespace set --limit run_states=..`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Quotas: plugins, plugin_bytes (all uploads), graphs, revisions (of all graphs),
runs_per_minute (starts on one host), open_states (of running runs).

Examples:
  exosphere quota set --namespace guests graphs=10 runs_per_minute=60
  exosphere quota set --namespace guests --unset graphs")]
pub struct Set {
    /// A quota with its value: graphs=10
    #[arg(value_name = "NAME=NUMBER", required_unless_present = "unset")]
    quotas: Vec<QuotaValues>,
    /// A quota to remove, repeatable
    #[arg(long, value_name = "NAME")]
    unset: Vec<Quota>,
}

impl Set {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.change(&["quotas"], |now| Ok(self.changed(&now)))?;
        context.output.answer(&answer, show::show)
    }

    /// Returns the quotas that replace the current ones.
    fn changed(&self, now: &NamespaceQuotas) -> QuotaSettings {
        let unchanged = now.quotas.iter().filter(|(quota, _)| !self.unset.contains(quota));
        let new = self.quotas.iter().flat_map(QuotaValues::iter);
        QuotaSettings { quotas: unchanged.chain(new).collect() }
    }
}
