//! `exosphere run logs`: the logs of a run, in the order in which its attempts ended.

use std::collections::HashSet;
use std::fmt::Write as _;

use exosphere_api_types::{AttemptLog, RunLogs, RunSnapshot, to_text};
use reqwest::Method;

use crate::absence::while_absent;
use crate::commands::Context;
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::commands::run::watch::{is_over, say_on_interrupt};
use crate::error::Error;
use crate::events;
use crate::format::time_of_day;
use crate::output::print_more;
use crate::sanitize;

/// The time before the newest log from which a following command reads again, in milliseconds:
/// hosts commit at the same time, and an attempt that ended earlier may be seen later.
const OVERLAP_MS: i64 = 5_000;

/// Print the logs of a run, or of one of its states
///
/// An attempt is printed when it has ended, in the order in which attempts end. A line has its time
/// (UTC), the state, the attempt if it is not the first, the level and the text. With --json, each
/// attempt is one line of JSON.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run logs latest
  exosphere run logs latest split.count[3] --follow
  exosphere run logs latest --json | jq -r '.logs[].message'")]
pub struct Logs {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The path of the state, as `run states` prints it
    state: Option<StatePath>,
    /// Print further attempts as they end, until the run ends
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let state = self.run.state(&self.state)?.map(str::to_owned);
        let mut printed = Printed { context, run, state, seen: HashSet::new(), newest: 0 };
        if !self.follow {
            return printed.print_new();
        }
        let run = printed.run.clone();
        say_on_interrupt("the run", &["run", "logs", &run, "-f"], &["run", "cancel", &run])?;
        let call = || context.client.call(Method::GET, &["runs", &run, "live"]);
        let see = |run: RunSnapshot| {
            while_absent(|| printed.print_new(), || ())?;
            Ok(is_over(&run.summary).then_some(()))
        };
        events::follow(call, see, || ())
    }
}

/// The logs that were printed.
struct Printed<'c> {
    context: &'c Context,
    run: String,
    state: Option<String>,
    /// The attempts that were printed and may be read again, with the times of their ends.
    seen: HashSet<(i64, String, u32)>,
    /// The time of the newest one.
    newest: i64,
}

impl Printed<'_> {
    /// Prints the logs that are new.
    fn print_new(&mut self) -> Result<(), Error> {
        let since = (self.newest > 0).then(|| (self.newest - OVERLAP_MS).to_string());
        let mut after = None;
        loop {
            let call = self.context.client.call(Method::GET, &["runs", &self.run, "logs"]);
            let query = [("state", self.state.clone()), ("since", since.clone()), ("after", after)];
            let answer = call.query(&query).send()?;
            answer.require("logs")?;
            let page: RunLogs = answer.read()?;
            for attempt in &page.attempts {
                self.print(attempt)?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let oldest = self.newest - OVERLAP_MS;
        self.seen.retain(|(ended_at, ..)| *ended_at >= oldest);
        Ok(())
    }

    fn print(&mut self, attempt: &AttemptLog) -> Result<(), Error> {
        let AttemptLog { path, attempt: number, ended_at, .. } = attempt;
        if !self.seen.insert((*ended_at, path.clone(), *number)) {
            return Ok(());
        }
        self.newest = self.newest.max(*ended_at);
        let text = if self.context.output.is_json() {
            let text = to_text(attempt).map_err(|error| Error::Failed(error.to_string()))?;
            sanitize::json(&String::from_utf8_lossy(&text))
        } else {
            lines(attempt)
        };
        print_more(&text)
    }
}

/// Formats the lines of an attempt.
fn lines(attempt: &AttemptLog) -> String {
    let mut text = String::new();
    let number = match attempt.attempt {
        1 => String::new(),
        number => format!(" #{number}"),
    };
    for line in attempt.logs.parsed().into_iter().flatten() {
        let time = time_of_day(line.at);
        let line = format!("{time} {}{number} {:<5} {}", attempt.path, line.level, line.message);
        let _ = writeln!(text, "{}", sanitize::line(&line));
    }
    text
}

#[cfg(test)]
mod tests {
    use exosphere_domain::json::from_value;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_names_its_state_and_attempt() {
        let log = |attempt: u32| -> AttemptLog {
            from_value(json!({
                "path": "split.count[3]", "identifier": "count", "attempt": attempt,
                "ended_at": 5, "outcome": "SUCCESS",
                "logs": [{"level": "info", "at": 3_723_004, "message": "hi"},
                         {"level": "error", "at": 3_723_005, "message": "a\nb\u{1b}"}],
            }))
            .unwrap()
        };
        assert_eq!(
            lines(&log(1)),
            "01:02:03.004 split.count[3] info  hi\n01:02:03.005 split.count[3] error a\\nb\\u{1b}\n"
        );
        assert!(lines(&log(2)).starts_with("01:02:03.004 split.count[3] #2 info  hi\n"));
    }
}
