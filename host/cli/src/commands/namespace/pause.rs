//! `exosphere namespace pause` and `resume`: pauses the namespace, and ends its pause.

use exosphere_api_types::PauseRequest;
use reqwest::Method;

use crate::commands::Context;
use crate::commands::namespace::show;
use crate::error::Error;

/// Pause the namespace: let its running states end, and start no others
///
/// New runs are accepted, and wait. The pause holds on all hosts within a second,
/// until `exosphere namespace resume`.
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// Why, for others to read
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Resume the paused namespace
#[derive(Debug, clap::Args)]
pub struct Resume {}

impl Pause {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.operator(Method::POST, &["pause"]);
        let answer = call.json(&PauseRequest { reason: self.reason.clone() }).send()?;
        context.output.answer(&answer, show::show)
    }
}

impl Resume {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let answer = context.client.operator(Method::POST, &["resume"]).send()?;
        context.output.answer(&answer, show::show)
    }
}
