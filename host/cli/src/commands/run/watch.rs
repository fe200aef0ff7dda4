//! `exosphere run watch`: follows a run to its end.
//!
//! It reads the live view of the run. If the host stops, the command waits for it to return, because
//! the run continues then.

use std::io::{self, Write};
use std::thread;

use exosphere_api_types::{Known, RunCounts, RunSnapshot, RunStatus, RunSummary};
use exosphere_domain::ids::RunId;
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::absence::while_absent;
use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::commands::run::{result, show};
use crate::error::Error;
use crate::events;
use crate::progress::Progress;
use crate::sanitize;

/// Follow a run until it ends
///
/// Shows the number of states so far and of those that have ended; both grow while
/// the run fans out. If the host stops, the command waits up to a minute for it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 if the run ended SUCCESS, 4 if FAILED, 5 if CANCELLED.")]
pub struct Watch {
    /// The run
    run: StateRef,
}

impl Watch {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        follow(context, self.run.run(context)?)
    }
}

/// Follows a run to its end, prints the end, and returns an error if it was not a
/// success.
pub fn follow(context: &Context, id: RunId) -> Result<(), Error> {
    let run = id.to_string();
    say_on_interrupt("the run", &["run", "watch", &run], &["run", "cancel", &run])?;
    let progress = Progress::new();
    let end = follow_to_end(context, id, &progress);
    progress.finish();
    let (answer, status) = end?;
    context.output.answer(&answer, |answer| {
        let mut text = show::summary(&answer.read()?);
        match result::of_watched(context, id) {
            Ok(result) => text.push_str(&result),
            // The run has ended as it has: only its result is missing here.
            Err(error) => eprintln!(
                "the result cannot be read now: {}\nread it later with: exosphere run result {id}",
                sanitize::lines(&error.to_string())
            ),
        }
        Ok(text)
    })?;
    match status.known() {
        Some(RunStatus::Success | RunStatus::Running) => Ok(()),
        Some(RunStatus::Failed) => Err(Error::RunFailed),
        Some(RunStatus::Cancelled) => Err(Error::RunCancelled),
        None => Err(Error::Failed(format!(
            "the run ended {status}, which this client does not know; use a client of the host's \
             version"
        ))),
    }
}

/// The exit code of a command that an interrupt ended, as of a shell.
const INTERRUPTED: i32 = 130;

/// Lets an interrupt end this process with the words that what it watches continues without it, and
/// the commands that follow it and stop it.
pub fn say_on_interrupt(watched: &str, follow: &[&str], stop: &[&str]) -> Result<(), Error> {
    let words = format!(
        "\n{watched} continues; follow it with: {}\nstop it with: {}\n",
        follow_up(follow),
        follow_up(stop)
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wait = move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                let _ = io::stderr().write_all(words.as_bytes());
                std::process::exit(INTERRUPTED);
            }
        });
    };
    thread::Builder::new().name("interrupt".into()).spawn(wait)?;
    Ok(())
}

/// Returns whether a run is over. A status that this client does not know is one of the end if the
/// run has ended.
pub fn is_over(run: &RunSummary) -> bool {
    run.status.known().map_or(run.ended_at.is_some(), |status| status != RunStatus::Running)
}

/// Follows a run to its end, and reads it then.
fn follow_to_end(
    context: &Context,
    id: RunId,
    progress: &Progress,
) -> Result<(Answer, Known<RunStatus>), Error> {
    let run = id.to_string();
    let see = |run: RunSnapshot| {
        show_progress(progress, &run.summary);
        Ok(is_over(&run.summary).then_some(run.summary.status))
    };
    let call = || context.client.call(Method::GET, &["runs", &run, "live"]);
    let status = events::follow(call, see, || progress.absent())?;
    let read = || context.client.call(Method::GET, &["runs", &run]).send();
    Ok((while_absent(read, || progress.absent())?, status))
}

fn show_progress(progress: &Progress, run: &RunSummary) {
    let (counts, ended) = (run.counts, ended_states(&run.counts));
    let states = counted(counts.states, "state", "states");
    let words = format!("{ended}/{states}{}", remarks(&counts));
    progress.show((ended, counts.states), words, counts.open == 0);
}

/// Returns the number of states that will not run again by themselves.
fn ended_states(counts: &RunCounts) -> u64 {
    let RunCounts { success, pruned, errored, cancelled, .. } = counts;
    [pruned, errored, cancelled].into_iter().fold(*success, |sum, n| sum.saturating_add(*n))
}

/// Returns remarks on retries, prunes and failures, if there are any.
fn remarks(counts: &RunCounts) -> String {
    let RunCounts { retries, pruned, errored, .. } = *counts;
    let tries = if retries == 1 { "retry" } else { "retries" };
    [(retries, tries), (pruned, "pruned"), (errored, "errored")]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, label)| format!(", {n} {label}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_name_only_nonzero_counts() {
        let mut counts = RunCounts { states: 9, success: 3, ..RunCounts::default() };
        assert_eq!((ended_states(&counts), remarks(&counts).as_str()), (3, ""));
        counts = RunCounts { pruned: 1, errored: 2, retries: 4, cancelled: 1, ..counts };
        assert_eq!(
            (ended_states(&counts), remarks(&counts).as_str()),
            (7, ", 4 retries, 1 pruned, 2 errored")
        );
        counts.cancelled = u64::MAX;
        assert_eq!(ended_states(&counts), u64::MAX);
    }
}
