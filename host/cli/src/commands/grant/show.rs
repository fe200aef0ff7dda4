//! `exosphere grant show`: the grants of one plugin, and the format of grants for
//! people.

use exosphere_api_types::PluginGrants;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, table};

/// Show the grants of a plugin
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The plugin
    plugin: Name,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["grants", self.plugin.as_str()];
        let answer = context.client.operator(Method::GET, &path).send()?;
        context.output.answer(&answer, plugin_grants)
    }
}

/// Formats the grants of one plugin.
pub fn plugin_grants(answer: &Answer) -> Result<String, Error> {
    Ok(grant_table(&[answer.read::<PluginGrants>()?]))
}

/// Formats grants, one per line. Configuration values may be confidential, so only
/// their names are shown.
pub fn grant_table(all: &[PluginGrants]) -> String {
    let rows = all.iter().flat_map(|PluginGrants { plugin, grants }| {
        let http = grants.http.iter().map(|rule| ("http", rule.to_string()));
        let header = grants.idempotency_header.then(|| ("http", "with Idempotency-Key".to_owned()));
        let config = grants.config.keys().map(|key| ("config", key.clone()));
        let secrets = grants.secrets.iter().map(|name| ("secret", name.to_string()));
        let rows = http.chain(header).chain(config).chain(secrets);
        rows.map(move |(grant, value)| [cell(plugin), cell(grant), cell(value)])
    });
    table(["PLUGIN", "GRANT", "OF"], rows)
}
