//! Standard output: tables for people, or the host's JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::clean;
use crate::client::Answer;
use crate::error::Error;

/// What standard output is for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For programs, or for people.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Prints an answer: as it is, or as `show` puts it for people.
    pub fn answer(
        self,
        answer: &Answer,
        show: impl FnOnce(&Answer) -> Result<String, Error>,
    ) -> Result<(), Error> {
        match self.json {
            true => print(&answer.json()),
            false => print(&show(answer)?),
        }
    }

    /// Prints what this side found out: as JSON, or in these words.
    pub fn report(self, report: &impl Serialize, words: &str) -> Result<(), Error> {
        match self.json {
            true => {
                let json = serde_json::to_string_pretty(report);
                let json = json.map_err(|error| Error::Failed(error.to_string()))?;
                // What is in a database may be a stranger's words.
                print(&clean::json(&json))
            }
            false => print(words),
        }
    }

    /// Prints the host's refusal, if a program reads it. People read the same
    /// on standard error.
    pub fn refusal(self, error: &Error) {
        if let (true, Error::Refused { json, .. } | Error::Unavailable { json, .. }) =
            (self.json, error)
        {
            // The refusal is what matters now, and it is reported anyway.
            let _ = print(json);
        }
    }
}

/// Prints a text and ends its line. That nobody reads on (`| head`) is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
