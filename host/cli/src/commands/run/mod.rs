//! `exosphere run`: start runs, follow them, look at them and mend them.

mod control;
mod inputs;
mod list;
mod state_ref;
mod retry;
mod show;
mod start;
mod states;
mod watch;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::commands::Session;
use crate::error::Error;

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Start(start::Start),
    Watch(watch::Watch),
    List(list::List),
    Show(show::Show),
    States(states::States),
    Retry(retry::Retry),
    /// Run every failed state of a run again, and with them heal it
    ///
    /// Each counts its retries from the beginning again. States without which a
    /// unite has already gone on are left as they are.
    Redrive(control::Control),
    /// Pause a run: what runs of it ends, and nothing more begins
    Pause(control::Control),
    /// Let a paused run go on
    Resume(control::Control),
    /// Cancel a run: what runs now is stopped, what waits never starts
    Cancel(control::Control),
}

impl Command {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::Start(start) => start.run(session),
            Command::Watch(watch) => watch.run(session),
            Command::List(list) => list.run(session),
            Command::Show(show) => show.run(session),
            Command::States(states) => states.run(session),
            Command::Retry(retry) => retry.run(session),
            Command::Redrive(control) => control.redrive(session),
            Command::Pause(control) => control.run(session, "pause"),
            Command::Resume(control) => control.run(session, "resume"),
            Command::Cancel(control) => control.run(session, "cancel"),
        })
    }
}

/// Returns a parser for one of several words, in either case.
fn upper(words: &'static [&'static str]) -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(words).map(|word| word.to_ascii_uppercase())
}
