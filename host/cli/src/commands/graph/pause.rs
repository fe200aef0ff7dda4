//! `exosphere graph pause` and `resume`: pauses a graph, and ends its pause.

use exosphere_api_types::{GraphPause, PauseRequest};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format;
use crate::sanitize;

/// Pause a graph: let the running states of its runs end, and start no others
///
/// New runs are accepted, and wait. The pause holds on all hosts until
/// `exosphere graph resume`. A run that was paused by itself stays paused then.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph pause words --reason \"the index is rebuilt\"
  exosphere graph resume words")]
pub struct Pause {
    /// The graph
    graph: Name,
    /// Why, for others to read
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Resume a paused graph, and the runs that were paused with it
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// The graph
    graph: Name,
}

impl Pause {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.call(Method::POST, &["graphs", self.graph.as_str(), "pause"]);
        let answer = call.json(&PauseRequest { reason: self.reason.clone() }).send()?;
        context.output.answer(&answer, show)
    }
}

impl Resume {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.call(Method::POST, &["graphs", self.graph.as_str(), "resume"]);
        context.output.answer(&call.send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let GraphPause { name, pause } = answer.read()?;
    let name = sanitize::line(&name);
    Ok(match pause {
        Some(pause) => format!("{name} is {}", format::paused(&pause)),
        None => format!("{name} is not paused"),
    })
}
