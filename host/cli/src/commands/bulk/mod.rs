//! `exosphere bulk`: begin, follow, list, show and stop bulk operations.

mod list;
mod show;
mod start;
mod stop;
mod watch;

use clap::Subcommand;
use exosphere_api_types::{BulkAction, BulkDetails};
use exosphere_domain::bulk::BulkRef;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;

/// The commands on bulk operations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Cancel every run that meets a filter and has not ended
    ///
    /// A run must meet every condition, as in `run list`. The host continues in the
    /// background, also after a restart. Runs that are started later are left alone.
    Cancel(start::Start),
    /// Redrive every failed run that meets a filter
    ///
    /// A run must meet every condition, as in `run list`. The host continues in the
    /// background, also after a restart. Each run is redriven once, also if it fails
    /// again meanwhile; runs that fail later are left alone.
    Redrive(start::Start),
    /// Delete every ended run that meets a filter, with everything that belongs to it
    ///
    /// A run must meet every condition, as in `run list`. The host continues in the
    /// background, also after a restart. Runs that end later are left alone.
    Delete(start::Start),
    List(list::List),
    Show(show::Show),
    Watch(watch::Watch),
    Stop(stop::Stop),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Cancel(start) => start.run(context, BulkAction::Cancel),
            Command::Redrive(start) => start.run(context, BulkAction::Redrive),
            Command::Delete(start) => start.run(context, BulkAction::Delete),
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::Watch(watch) => watch.run(context),
            Command::Stop(stop) => stop.run(context),
        })
    }
}

/// Reads an operation, whichever way it is named.
fn read(context: &Context, bulk: &str) -> Result<(Answer, BulkDetails), Error> {
    let answer = context.client.call(Method::GET, &["bulk", bulk]).send()?;
    let details = answer.read()?;
    Ok((answer, details))
}

/// Returns the id of an operation that an answer names.
fn id_of(bulk: &BulkDetails) -> Result<String, Error> {
    // The id is parsed, because it becomes a part of the next URL.
    let is_id = matches!(bulk.bulk.parse(), Ok(BulkRef::Id(_)));
    let invalid = || Error::Internal("the id of the bulk operation is not valid".to_owned());
    if is_id { Ok(bulk.bulk.clone()) } else { Err(invalid()) }
}
