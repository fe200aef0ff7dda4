//! `exosphere run`: start, follow, show, control, retry and delete runs.

mod compare;
mod control;
mod delete;
mod distribution;
mod failures;
pub mod filter;
mod given;
mod inputs;
mod list;
mod outputs;
mod result;
mod retry;
mod state_ref;
mod show;
mod start;
mod states;
mod timeline;
pub mod logs;
pub mod why;
pub mod watch;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::commands::Context;
use crate::error::Error;

/// The commands on runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Start(start::Start),
    Watch(watch::Watch),
    List(list::List),
    Show(show::Show),
    States(states::States),
    Timeline(timeline::Timelines),
    Failures(failures::Failures),
    Distribution(distribution::Distribution),
    Compare(compare::Compare),
    Inputs(given::Given),
    Outputs(outputs::Outputs),
    Result(result::Show),
    Logs(logs::Logs),
    Why(why::Why),
    Retry(retry::Retry),
    /// Retry every errored state of a run
    ///
    /// Each state counts its retries from 0 again. A state stays errored if a unite
    /// above it has already continued without it.
    Redrive(control::Control),
    /// Pause a run: let its running states end, and start no others
    Pause(control::Control),
    /// Resume a paused run
    Resume(control::Control),
    /// Cancel a run: stop its running states, and start no others
    Cancel(control::Control),
    Delete(delete::Delete),
}

impl Command {
    /// Runs the chosen subcommand.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        context.done(match self {
            Command::Start(start) => start.run(context),
            Command::Watch(watch) => watch.run(context),
            Command::List(list) => list.run(context),
            Command::Show(show) => show.run(context),
            Command::States(states) => states.run(context),
            Command::Timeline(timeline) => timeline.run(context),
            Command::Failures(failures) => failures.run(context),
            Command::Distribution(distribution) => distribution.run(context),
            Command::Compare(compare) => compare.run(context),
            Command::Inputs(given) => given.run(context),
            Command::Outputs(outputs) => outputs.run(context),
            Command::Result(result) => result.run(context),
            Command::Logs(logs) => logs.run(context),
            Command::Why(why) => why.run(context),
            Command::Retry(retry) => retry.run(context),
            Command::Redrive(control) => control.redrive(context),
            Command::Pause(control) => control.run(context, "pause"),
            Command::Resume(control) => control.run(context, "resume"),
            Command::Cancel(control) => control.run(context, "cancel"),
            Command::Delete(delete) => delete.run(context),
        })
    }
}

/// Returns a parser for one of several words, in either case.
fn uppercase_word(words: &'static [&'static str]) -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(words).map(|word| word.to_ascii_uppercase())
}
