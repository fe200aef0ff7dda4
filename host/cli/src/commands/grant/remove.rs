//! `exosphere grant remove`: removes grants of a plugin.

use exosphere_domain::grant::{Grants, HttpRule};
use exosphere_domain::ids::Name;

use crate::commands::Context;
use crate::error::Error;

/// Remove grants of a plugin
///
/// The change applies to executions that begin a second later, also to those of
/// running runs. Graphs that use the plugin stay; a host refuses them when they
/// are applied again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere grant remove web --http \"GET,POST https://api.example.com/v1/\"
  exosphere grant remove web --all")]
pub struct Remove {
    /// The plugin
    plugin: Name,
    /// A rule for HTTP requests, as `grant show` prints it
    #[arg(long, value_name = "RULE")]
    http: Vec<HttpRule>,
    /// Stop sending the idempotency key with each request
    #[arg(long)]
    idempotency_header: bool,
    /// A configuration value, by its key
    #[arg(long, value_name = "KEY")]
    config: Vec<String>,
    /// A secret
    #[arg(long, value_name = "NAME")]
    secret: Vec<Name>,
    /// Remove all grants of the plugin
    #[arg(long, conflicts_with_all = ["http", "idempotency_header", "config", "secret"])]
    all: bool,
}

impl Remove {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        super::change(context, &self.plugin, |grants| self.remove_from(grants))
    }

    fn remove_from(&self, grants: &mut Grants) -> Result<(), Error> {
        if self.all {
            *grants = Grants::default();
            return Ok(());
        }
        let before = grants.clone();
        grants.http.retain(|rule| !self.http.contains(rule));
        grants.idempotency_header &= !self.idempotency_header;
        grants.config.retain(|key, _| !self.config.contains(key));
        grants.secrets.retain(|name| !self.secret.contains(name));
        if *grants == before {
            return Err(Error::Usage(format!(
                "{} has no such grant; list its grants with `exosphere grant show {0}`, or remove \
                 them all with --all",
                self.plugin
            )));
        }
        Ok(())
    }
}
