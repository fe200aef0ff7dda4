//! `exosphere grant add`: adds grants to a plugin.

use exosphere_domain::grant::HttpRule;
use exosphere_domain::ids::Name;

use crate::commands::Context;
use crate::error::Error;

/// Grant a plugin more than its sandbox: HTTP requests, configuration, secrets
///
/// A grant applies to every upload under this name in the namespace, also for
/// later ones: every user who may upload under it may use the grant.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere grant add web --http \"GET,POST https://api.example.com/v1/\"
  exosphere grant add web --http https://*.example.com/ --idempotency-header
  exosphere grant add web --config region=eu --secret api_key")]
pub struct Add {
    /// The plugin
    plugin: Name,
    /// HTTP requests that the plugin may make: [METHOD,...] URL, with every path below it
    #[arg(long, value_name = "RULE")]
    http: Vec<HttpRule>,
    /// Send the idempotency key of the work with each request, as a header
    #[arg(long)]
    idempotency_header: bool,
    /// A configuration value that its nodes may read
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// A secret of the graph that its nodes may declare and read
    #[arg(long, value_name = "NAME")]
    secret: Vec<Name>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Add {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let Add { plugin, http, idempotency_header, config, secret } = self;
        let is_empty =
            http.is_empty() && config.is_empty() && secret.is_empty() && !idempotency_header;
        if is_empty {
            let message =
                "nothing to grant: give --http, --config, --secret or --idempotency-header";
            return Err(Error::Usage(message.to_owned()));
        }
        super::change(context, plugin, |grants| {
            for rule in http {
                if !grants.http.contains(rule) {
                    grants.http.push(rule.clone());
                }
            }
            grants.idempotency_header |= idempotency_header;
            grants.config.extend(config.iter().cloned());
            grants.secrets.extend(secret.iter().cloned());
            Ok(())
        })
    }
}
