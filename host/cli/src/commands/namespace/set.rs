//! `exosphere namespace set`: sets limits and a share for the namespace.

use exosphere_domain::limits::{Limit, LimitValues};
use serde_json::{Value, json};

use crate::commands::Session;
use crate::commands::namespace::show;
use crate::error::Error;
use crate::wire::Namespace;

/// Set limits and a share of the hosts for the namespace
///
/// What is not named stays as it is. Limits can be lower than the host's, not
/// higher; executions that begin a second later are held to them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere namespace set --namespace guests --limit memory_bytes=32MiB --limit cpu_ms=1s
  exosphere namespace set --namespace guests --slots 8
  exosphere namespace set --namespace guests --unset cpu_ms --host-slots")]
#[group(required = true, multiple = true)]
pub struct Set {
    /// A limit, as often as wanted: memory_bytes=64MiB
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    limits: Vec<LimitValues>,
    /// A limit that is to be the host's again
    #[arg(long, value_name = "NAME")]
    unset: Vec<Limit>,
    /// How many of its nodes run at a time on one host
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// As many slots as the host gives everyone
    #[arg(long, conflicts_with = "slots")]
    host_slots: bool,
}

impl Set {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let answer = session.client.change(&[], |now| Ok(self.changed(&now.read()?)))?;
        session.output.answer(&answer, show::show)
    }

    /// Returns the settings that replace the current ones.
    fn changed(&self, now: &Namespace) -> Value {
        let kept = now.limits.iter().filter(|(limit, _)| !self.unset.contains(limit));
        let limits: LimitValues =
            kept.chain(self.limits.iter().flat_map(LimitValues::iter)).collect();
        let slots = if self.host_slots { None } else { self.slots.or(now.slots) };
        json!({"limits": limits, "slots": slots})
    }
}
