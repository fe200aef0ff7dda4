//! `exosphere run watch`: follows a run to its end.
//!
//! It uses long polls: the host answers when the run has changed. If the host goes
//! away, the command waits for it, because the run outlives it.

mod progress;

use std::thread;
use std::time::{Duration, Instant};

use exosphere_domain::ids::RunId;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::show;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::wire::{Run, Status};

use progress::Progress;

/// The longest wait of one poll at the host, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// The interval between two polls of a run that changes all the time.
const BETWEEN: Duration = Duration::from_millis(100);
/// The longest wait for a host that went away.
const ABSENCE: Duration = Duration::from_secs(60);
/// The poll interval while the host is away.
const BETWEEN_ABSENT: Duration = Duration::from_millis(500);

/// Follow a run until it ends
///
/// Shows how many states there are and how many are done; both grow while the
/// run fans out. A host that is restarted meanwhile is waited for.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 if the run ended SUCCESS, 4 if FAILED, 5 if CANCELLED.")]
pub struct Watch {
    /// The run
    run: StateRef,
}

impl Watch {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        follow(session, self.run.run)
    }
}

/// Follows a run to its end, prints the end, and returns an error if it was not a
/// success.
pub fn follow(session: &Session, id: RunId) -> Result<(), Error> {
    let progress = Progress::new();
    let end = poll(session, id, &progress);
    progress.finish();
    let (answer, status) = end?;
    session.output.answer(&answer, |answer| Ok(show::summary(&answer.read()?)))?;
    match status {
        Status::Success | Status::Running => Ok(()),
        Status::Failed => Err(Error::RunFailed),
        Status::Cancelled => Err(Error::RunCancelled),
    }
}

fn poll(session: &Session, id: RunId, progress: &Progress) -> Result<(Answer, Status), Error> {
    let mut seen = None;
    let mut absent_since = None;
    loop {
        match ask(session, id, seen) {
            Ok((answer, run)) if run.status != Status::Running => {
                progress.show(&run);
                return Ok((answer, run.status));
            }
            Ok((_, run)) => {
                absent_since = None;
                seen = Some(run.version);
                progress.show(&run);
                thread::sleep(BETWEEN);
            }
            // The host was reachable before, and is perhaps restarting.
            Err(
                error @ (Error::Unreachable(_) | Error::Unanswered(_) | Error::Unavailable { .. }),
            ) if seen.is_some() => {
                if absent_since.get_or_insert_with(Instant::now).elapsed() > ABSENCE {
                    return Err(error);
                }
                progress.absent();
                thread::sleep(BETWEEN_ABSENT);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Polls the run for a version newer than `seen`; the host waits a while for one.
fn ask(session: &Session, id: RunId, seen: Option<i64>) -> Result<(Answer, Run), Error> {
    let call = session.client.call(Method::GET, &["runs", &id.to_string()]);
    let after = seen.map(|version| version.to_string());
    let wait = seen.map(|_| WAIT_MS.to_string());
    let answer = call.query(&[("after", after), ("wait_ms", wait)]).send()?;
    let run = answer.read()?;
    Ok((answer, run))
}
