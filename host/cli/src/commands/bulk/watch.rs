//! `exosphere bulk watch`: follows a bulk operation to its end. The host is polled; if it stops, the
//! command waits for it to return, because the operation continues then.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use exosphere_api_types::{BulkDetails, BulkStatus};
use exosphere_domain::bulk::BulkRef;
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::Context;
use crate::commands::bulk::show::{selected, summary};
use crate::commands::bulk::{id_of, read};
use crate::commands::run::watch::{say_on_interrupt, while_absent};
use crate::error::Error;

/// Interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The redraw interval of the bar while nothing changes.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// The shortest time between two plain lines.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);

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
        let (answer, bulk) = while_absent(|| read(context, id), || progress.show_absence())?;
        progress.show(&bulk);
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

/// The progress of an operation, on standard error: a bar on a terminal, plain lines elsewhere.
enum Progress {
    Bar(ProgressBar),
    /// The time and the text of the last line.
    Lines(RefCell<Option<(Instant, String)>>),
}

impl Progress {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Progress::Lines(RefCell::default());
        }
        let bar = ProgressBar::new(0);
        let template = "{spinner} {wide_bar} {msg}, {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Progress::Bar(bar)
    }

    fn show(&self, bulk: &BulkDetails) {
        let text = format!(
            "{} runs: {} done, {} skipped, {} failed",
            selected(bulk),
            bulk.done,
            bulk.skipped,
            bulk.failed
        );
        if let Progress::Bar(bar) = self {
            bar.set_length(bulk.expected.runs.max(bulk.selected));
            bar.set_position(bulk.selected);
        }
        self.show_text(text, bulk.ended_at.is_some());
    }

    fn show_absence(&self) {
        self.show_text("the host is unreachable; waiting for it to return".to_owned(), false);
    }

    fn show_text(&self, text: String, is_last: bool) {
        match self {
            Progress::Bar(bar) => bar.set_message(text),
            Progress::Lines(last) => {
                let is_due = last.borrow().as_ref().is_none_or(|(at, before)| {
                    *before != text && (is_last || at.elapsed() >= MIN_LINE_INTERVAL)
                });
                if is_due {
                    // A failure to show progress ends nothing.
                    let _ = writeln!(io::stderr(), "{text}");
                    last.replace(Some((Instant::now(), text)));
                }
            }
        }
    }

    fn finish(self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
