//! `exosphere run`: start runs, follow them, look at them and mend them.

mod cancel;
mod given;
mod list;
mod place;
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
    Cancel(cancel::Cancel),
}

impl Command {
    /// Does it.
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        session.done(match self {
            Command::Start(start) => start.run(session),
            Command::Watch(watch) => watch.run(session),
            Command::List(list) => list.run(session),
            Command::Show(show) => show.run(session),
            Command::States(states) => states.run(session),
            Command::Retry(retry) => retry.run(session),
            Command::Cancel(cancel) => cancel.run(session),
        })
    }
}

/// One of several words, in upper case whatever was typed.
fn upper(words: &'static [&'static str]) -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(words).map(|word| word.to_ascii_uppercase())
}
