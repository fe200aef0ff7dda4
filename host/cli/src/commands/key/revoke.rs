//! `exosphere key revoke`: revokes a key for good.

use exosphere_api_types::KeyDetails;
use exosphere_domain::api_key::{ApiKey, ApiKeyId};
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;

/// Revoke a key, on every host within a second
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The id of the key, or the key itself
    #[arg(value_name = "ID", value_parser = key_id)]
    id: ApiKeyId,
}

/// Parses the id of a key. A whole key is taken, too; only its id is sent.
fn key_id(text: &str) -> Result<ApiKeyId, String> {
    match text.parse::<ApiKey>() {
        Ok(key) => Ok(key.id()),
        Err(_) => text.parse().map_err(|error| format!("{error}; `exosphere key list` shows it")),
    }
}

impl Revoke {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["keys", self.id.as_str()];
        let answer = context.client.of_all(Method::DELETE, &path).send()?;
        context.output.answer(&answer, |answer| Ok(super::keys(vec![answer.read::<KeyDetails>()?])))
    }
}
