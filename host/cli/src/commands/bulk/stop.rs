//! `exosphere bulk stop`: stops a bulk operation.

use exosphere_api_types::BulkDetails;
use exosphere_domain::bulk::BulkRef;
use reqwest::Method;

use crate::commands::Context;
use crate::commands::bulk::show::summary;
use crate::error::Error;

/// Stop a bulk operation: it changes no further run
///
/// The changes so far stay. An operation that is over stays as it is.
#[derive(Debug, clap::Args)]
pub struct Stop {
    /// The operation: its id, the first digits of it, or latest
    #[arg(value_name = "ID")]
    bulk: BulkRef,
}

impl Stop {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["bulk", &self.bulk.to_string(), "cancel"];
        let answer = context.client.call(Method::POST, &path).send()?;
        context.output.answer(&answer, |answer| Ok(summary(&answer.read::<BulkDetails>()?)))
    }
}
