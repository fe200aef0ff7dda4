//! Standard output: text for people, or the host's JSON for programs.
//!
//! Not here: tables (`format`).

use std::io::{self, Write};

use serde::Serialize;

use crate::client::Answer;
use crate::error::Error;
use crate::sanitize;

/// The format of standard output: tables or JSON.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Creates an output of JSON for programs, or of tables for people.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Returns whether the output is JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints an answer: its JSON unchanged, or the text that `show` makes of it.
    pub fn answer(
        self,
        answer: &Answer,
        show: impl FnOnce(&Answer) -> Result<String, Error>,
    ) -> Result<(), Error> {
        if self.json {
            return print(&answer.json());
        }
        print(&show(answer)?)?;
        let withheld = answer.withheld();
        if !withheld.is_empty() {
            eprintln!(
                "note: this key may not see payloads, so these are left out: {}; an admin can \
                 create another: exosphere key create --payloads",
                withheld.join(", ")
            );
        }
        Ok(())
    }

    /// Prints a report that the client made itself: as JSON, or as `text`.
    pub fn report(self, report: &impl Serialize, text: &str) -> Result<(), Error> {
        if !self.json {
            return print(text);
        }
        let json = serde_json::to_string_pretty(report);
        let json = json.map_err(|error| Error::Failed(error.to_string()))?;
        // A database may contain untrusted text.
        print(&sanitize::json(&json))
    }

    /// Prints the host's refusal as JSON for programs. People read it on standard
    /// error.
    pub fn refusal(self, error: &Error) {
        if let (true, Error::Refused { json, .. } | Error::Unavailable { json, .. }) =
            (self.json, error)
        {
            // The refusal matters more than this failure, and it is reported anyway.
            let _ = print(json);
        }
    }
}

/// Prints a text and ends its line; nothing if there is none. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<(), Error> {
    match print_more(text) {
        Err(Error::OutputClosed) => Ok(()),
        printed => printed,
    }
}

/// Prints a text and ends its line; nothing if there is none. More may follow, which
/// [`Error::OutputClosed`] makes needless.
pub fn print_more(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::OutputClosed),
        written => Ok(written?),
    }
}
