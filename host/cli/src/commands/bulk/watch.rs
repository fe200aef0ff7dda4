//! `exosphere bulk watch`: follows a bulk operation to its end. The host is polled; if it stops, the
//! command waits for it to return, because the operation continues then.

use std::thread;
use std::time::Duration;

use exosphere_api_types::{BulkDetails, BulkStatus};
use exosphere_domain::bulk::BulkRef;

use crate::absence::while_absent;
use crate::commands::Context;
use crate::commands::bulk::show::{selected, summary};
use crate::commands::bulk::{id_of, read};
use crate::commands::run::watch::say_on_interrupt;
use crate::error::Error;
use crate::progress::Progress;

/// Interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Follow a bulk operation until it ends
///
/// If the host stops, the command waits up to a minute for it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 if the operation ended SUCCESS, 4 if FAILED, 5 if CANCELLED.")]
pub struct Watch {
    /// The operation: its id, the first digits of it, or latest
    #[arg(value_name = "ID")]
    bulk: BulkRef,
}

impl Watch {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let (_, bulk) = read(context, &self.bulk.to_string())?;
        follow(context, &id_of(&bulk)?)
    }
}

/// Follows an operation to its end, prints the end, and returns an error if it was not a success.
pub fn follow(context: &Context, id: &str) -> Result<(), Error> {
    say_on_interrupt("the bulk operation", &["bulk", "watch", id], &["bulk", "stop", id])?;
    let progress = Progress::new();
    let (answer, bulk) = loop {
        let (answer, bulk) = while_absent(|| read(context, id), || progress.absent())?;
        show(&progress, &bulk);
        // A status that this client does not know is one of the end if the operation has ended.
        if bulk.ended_at.is_some() {
            break (answer, bulk);
        }
        thread::sleep(POLL_INTERVAL);
    };
    progress.finish();
    context.output.answer(&answer, |_| Ok(summary(&bulk)))?;
    match bulk.status.known() {
        Some(BulkStatus::Success | BulkStatus::Running) => Ok(()),
        Some(BulkStatus::Failed) => Err(Error::BulkFailed),
        Some(BulkStatus::Cancelled) => Err(Error::BulkCancelled),
        None => Err(Error::Failed(format!(
            "the bulk operation ended {}, which this client does not know; use a client of the \
             host's version",
            bulk.status
        ))),
    }
}

fn show(progress: &Progress, bulk: &BulkDetails) {
    let BulkDetails { done, skipped, failed, .. } = bulk;
    let expected = bulk.expected.runs.max(bulk.selected);
    let all = if bulk.ended_at.is_some() { bulk.selected } else { bulk.expected.runs };
    let noun = if all == 1 { "run" } else { "runs" };
    let selected = selected(bulk);
    let words = format!("{selected} {noun}: {done} done, {skipped} skipped, {failed} failed");
    progress.show((bulk.selected, expected), words, bulk.ended_at.is_some());
}
