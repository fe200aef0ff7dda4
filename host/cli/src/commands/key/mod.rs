//! `exosphere key`: the keys of the API, for admins.

mod create;
mod list;
mod revoke;

use clap::Subcommand;
use exosphere_api_types::KeyDetails;
use exosphere_domain::access::NamespaceScope;
use exosphere_domain::ids::Name;

use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, optional_cell, table, utc};

/// The commands on keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(create::Create),
    List(list::List),
    Revoke(revoke::Revoke),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Create(create) => create.run(context),
            Command::List(list) => list.run(context),
            Command::Revoke(revoke) => revoke.run(context),
        })
    }
}

/// Formats keys as a table.
fn keys(keys: Vec<KeyDetails>) -> String {
    let rows = keys.into_iter().map(|key| {
        let namespaces = match &key.namespaces {
            NamespaceScope::All => "all".to_owned(),
            NamespaceScope::Only(names) => {
                names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
            }
        };
        [
            cell(&key.id),
            cell(&key.label),
            cell(key.role),
            cell(namespaces),
            cell(if key.payloads { "yes" } else { "no" }),
            optional_cell(key.used_at.map(utc)),
            cell(status(&key)),
        ]
    });
    table(["ID", "LABEL", "ROLE", "NAMESPACES", "PAYLOADS", "LAST USED", "STATUS"], rows)
}

fn status(key: &KeyDetails) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", utc(at)),
        (None, Some(at)) => format!("until {}", utc(at)),
        (None, None) => "valid".to_owned(),
    }
}
