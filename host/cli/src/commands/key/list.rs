//! `exosphere key list`: every key, revoked ones included.

use exosphere_api_types::KeyList;
use reqwest::Method;

use crate::commands::{Context, pages};
use crate::error::Error;

/// List the keys, without their secrets
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = pages::read_all(|| context.client.of_all(Method::GET, &["keys"]), "keys")?;
        context.output.answer(&answer, |answer| Ok(super::keys(answer.read::<KeyList>()?.keys)))
    }
}
