//! `exosphere host list`: every host that has worked on the database.

use exosphere_api_types::{HostDetails, HostList};
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, optional_cell, table, utc};

/// List the hosts of the database, and which of them run
///
/// A host is known by its data folder; `serve --name` names it.
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.output.answer(&context.client.of_all(Method::GET, &["hosts"]).send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let rows = answer.read::<HostList>()?.hosts.into_iter().map(|host| {
        [
            cell(host.number),
            cell(&host.name),
            cell(status(&host)),
            cell(&host.version),
            cell(utc(host.started_at)),
            optional_cell(host.ended_at.map(utc)),
        ]
    });
    Ok(table(["HOST", "NAME", "STATUS", "VERSION", "STARTED", "ENDED"], rows))
}

fn status(host: &HostDetails) -> &'static str {
    match (host.alive, host.ended_at) {
        (true, _) => "running",
        (false, Some(_)) => "stopped",
        (false, None) => "lost",
    }
}
