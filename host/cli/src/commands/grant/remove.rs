//! `exosphere grant remove`: removes grants of a plugin.

use exosphere_domain::grant::{Grants, HttpRule};
use exosphere_domain::ids::Name;

use crate::commands::Session;
use crate::error::Error;

/// Take grants back from a plugin
///
/// It counts for executions that begin a second later, of runs under way too.
/// Graphs that use the plugin stay; they are refused when they are applied
/// again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere grant remove web --http \"GET,POST https://api.example.com/v1/\"
  exosphere grant remove web --all")]
pub struct Remove {
    /// The plugin
    plugin: Name,
    /// A rule for requests, as `grant show` tells it
    #[arg(long, value_name = "RULE")]
    http: Vec<HttpRule>,
    /// Do not send the idempotency key any more
    #[arg(long)]
    idempotency_header: bool,
    /// A configuration value, by its key
    #[arg(long, value_name = "KEY")]
    config: Vec<String>,
    /// A secret
    #[arg(long, value_name = "NAME")]
    secret: Vec<Name>,
    /// Everything
    #[arg(long, conflicts_with_all = ["http", "idempotency_header", "config", "secret"])]
    all: bool,
}

impl Remove {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        super::change(session, &self.plugin, |grants| self.take(grants))
    }

    fn take(&self, grants: &mut Grants) -> Result<(), Error> {
        if self.all {
            *grants = Grants::default();
            return Ok(());
        }
        let before = grants.clone();
        grants.http.retain(|rule| !self.http.contains(rule));
        grants.idempotency_header &= !self.idempotency_header;
        grants.config.retain(|key, _| !self.config.contains(key));
        grants.secrets.retain(|name| !self.secret.contains(name));
        match *grants == before {
            true => Err(Error::Usage(format!(
                "{} has no such grant; `exosphere grant show {0}` tells what it has, --all takes everything",
                self.plugin
            ))),
            false => Ok(()),
        }
    }
}
