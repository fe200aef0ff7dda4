//! Errors of a command, and their exit codes.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use exosphere_api_types::Problem;

use crate::sanitize;

/// The longest wait for standard error to accept an error message.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The kind of the problem of a host whose database does not answer.
const DATABASE_AWAY: &str = "/problems/unavailable";

/// The status of a refusal that passes: a rate or a quota is used up.
const TOO_MANY_REQUESTS: u16 = 429;

/// The error of a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is not valid.
    #[error("{0}")]
    Usage(String),
    /// A local failure, for example of a file or the terminal.
    #[error("{0}")]
    Failed(String),
    /// The host that this process runs could not start, or failed.
    #[error("{0}")]
    Start(String),
    /// The host refused the request. `json` is its whole answer.
    #[error("{problem}")]
    Refused { problem: Box<Problem>, json: String },
    /// No host listens at that address.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or no answer came in time: the host may have carried out
    /// the request.
    #[error("{0}")]
    Unanswered(String),
    /// The host cannot serve the request now: it is stopping, or its database is
    /// unreachable. `json` is its whole answer.
    #[error("{problem}")]
    Unavailable { problem: Box<Problem>, json: String },
    /// The watched run ended FAILED.
    #[error("the run ended FAILED")]
    RunFailed,
    /// The watched run ended CANCELLED.
    #[error("the run ended CANCELLED")]
    RunCancelled,
    /// The watched bulk operation ended FAILED.
    #[error("the bulk operation ended FAILED: the host's log has the reasons")]
    BulkFailed,
    /// The watched bulk operation was stopped.
    #[error("the bulk operation ended CANCELLED")]
    BulkCancelled,
    /// The reader of standard output has closed it (`| head`): the command is done.
    #[error("standard output is closed")]
    OutputClosed,
    /// The host reports an internal error, or its answer is not valid.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns the process's exit code, as documented in `--help` and the README.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused { problem, .. } if problem.status == TOO_MANY_REQUESTS => 7,
            Error::Failed(_) | Error::Start(_) | Error::Refused { .. } => 1,
            Error::OutputClosed => 0,
            Error::Usage(_) => 2,
            Error::Unreachable(_) | Error::Unanswered(_) => 3,
            Error::RunFailed | Error::BulkFailed => 4,
            Error::RunCancelled | Error::BulkCancelled => 5,
            Error::Internal(_) => 6,
            Error::Unavailable { problem, .. } if problem.kind == DATABASE_AWAY => 8,
            Error::Unavailable { .. } => 7,
        }
    }

    /// Returns whether the host refused the request for this reason.
    pub fn is_reason(&self, reason: &str) -> bool {
        matches!(self, Error::Refused { problem, .. } if problem.reason.as_deref() == Some(reason))
    }

    /// Prints the error to standard error, with a timeout: a pipe without a reader must not
    /// keep a host from ending.
    pub fn report(&self) {
        if matches!(self, Error::OutputClosed) {
            return;
        }
        // The message may come from a host.
        let message = format!("error: {}\n", sanitize::lines(&self.to_string()));
        let (written, done) = mpsc::channel();
        let write = std::thread::Builder::new().spawn(move || {
            let _ = written.send(io::stderr().write_all(message.as_bytes()));
        });
        if write.is_ok() {
            let _ = done.recv_timeout(REPORT_TIMEOUT);
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Failed(error.to_string())
    }
}
