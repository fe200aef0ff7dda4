//! How a command may fail, and the exit code of each way.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::clean;
use crate::wire::Problem;

/// The longest wait for standard error to take an error's words.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// Something on this side went wrong: a file, the terminal.
    #[error("{0}")]
    Failed(String),
    /// The host that was to be run here could not start, or broke down.
    #[error("{0}")]
    Start(String),
    /// The host understood, and said no. `json` is its whole answer.
    #[error("{problem}")]
    Refused { problem: Problem, json: String },
    /// There is no host, or it went away.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or no answer came in time: the host may have done what
    /// it was asked.
    #[error("{0}")]
    Unanswered(String),
    /// The host is there and cannot do it now: it stops, or its database is away.
    /// `json` is its whole answer.
    #[error("{problem}")]
    Unavailable { problem: Problem, json: String },
    /// The run that was watched ended FAILED.
    #[error("the run ended FAILED")]
    RunFailed,
    /// The run that was watched ended CANCELLED.
    #[error("the run ended CANCELLED")]
    RunCancelled,
    /// The host says that it made a mistake, or its answer makes no sense.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The process's exit code, as `--help` and the README state it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) | Error::Start(_) | Error::Refused { .. } => 1,
            Error::Usage(_) => 2,
            Error::Unreachable(_) | Error::Unanswered(_) => 3,
            Error::RunFailed => 4,
            Error::RunCancelled => 5,
            Error::Internal(_) => 6,
            Error::Unavailable { .. } => 7,
        }
    }

    /// Tells the person at the terminal, if there is one: a pipe that nobody
    /// reads must not keep a host from ending.
    pub fn report(&self) {
        // The words may be a host's.
        let words = format!("error: {}\n", clean::lines(&self.to_string()));
        let (told, done) = mpsc::channel();
        let write = std::thread::Builder::new().spawn(move || {
            let _ = told.send(io::stderr().write_all(words.as_bytes()));
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
