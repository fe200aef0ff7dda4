//! `exosphere key create`: creates a key, and shows it once.

use exosphere_api_types::{CreateKey, KeyCreated};
use exosphere_domain::access::NamespaceScope;
use exosphere_domain::ids::Name;
use exosphere_domain::role::Role;
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;
use crate::time::duration_ms;

/// Create a key, and print it once
///
/// The host stores only a digest: a key that is lost must be replaced. Standard
/// output has nothing but the key, so that it can go to a file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Roles: a viewer reads, an operator also starts and controls runs, a deployer also
uploads plugins and applies graphs, an admin also sets limits and grants, and
manages keys.

Examples:
  exosphere key create --label ci --role deployer --in shop > ci.key
  exosphere key create --label on-call --role operator --all-namespaces --payloads
  exosphere key create --label audit --role viewer --all-namespaces --expires-in 30d")]
pub struct Create {
    /// The purpose of the key
    #[arg(long, value_name = "TEXT")]
    label: String,
    /// The role: viewer, operator, deployer or admin
    #[arg(long)]
    role: Role,
    /// A namespace that the key is valid for, repeatable; no others exist for it
    #[arg(long = "in", value_name = "NAMESPACE", required_unless_present = "all_namespaces")]
    namespaces: Vec<Name>,
    /// Make the key valid for every namespace
    #[arg(long, conflicts_with = "namespaces")]
    all_namespaces: bool,
    /// Let the key see payloads: inputs, outputs, logs and entries of stores
    #[arg(long)]
    payloads: bool,
    /// The number of requests a second with the key on one host
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: Option<u32>,
    /// The time after which the key expires, for example 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    expires_in: Option<u64>,
}

impl Create {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let namespaces = if self.all_namespaces {
            NamespaceScope::All
        } else {
            NamespaceScope::Only(self.namespaces.iter().cloned().collect())
        };
        let request = CreateKey {
            label: self.label.clone(),
            role: self.role,
            namespaces,
            payloads: self.payloads,
            requests_per_second: self.requests_per_second,
            expires_in_ms: self.expires_in,
        };
        let answer = context.client.of_all(Method::POST, &["keys"]).json(&request).send()?;
        context.output.answer(&answer, |answer| {
            let created: KeyCreated = answer.read()?;
            eprintln!(
                "created the key {}; it is shown this once: keep it as EXOSPHERE_KEY, or in a \
                 file for --key-file",
                created.details.id
            );
            Ok(created.key)
        })
    }
}
