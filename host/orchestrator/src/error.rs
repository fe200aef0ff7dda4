//! What can go wrong for those who call a host, split by what they can do.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::RunId;
use exosphere_sandbox::{Refused, SetupError};
use exosphere_store::{OpenError, StoreError};
use uuid::Uuid;

use crate::key_file::KeyFileError;

/// Why a host did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing here.
    #[error("there is no {what} {name:?} here{hint}")]
    NotFound {
        /// What was looked for: `run`, `graph`..
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do, or nothing.
        hint: String,
    },
    /// What was sent is not valid: every reason.
    #[error("{what} cannot be taken: {}", count(problems))]
    Invalid {
        /// What was sent.
        what: String,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// An upload that is no plugin.
    #[error("the plugin is refused: {0}")]
    Plugin(Refused),
    /// A plugin that says nonsense of its nodes: every reason.
    #[error("the plugin's description of itself cannot be taken: {}", count(problems))]
    Description {
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// It cannot be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// It is not what the caller goes by any more: someone else changed it.
    #[error(
        "{what} changed since you read {it}, and nothing was set; read {it} again, and repeat the change on that"
    )]
    Changed {
        /// What.
        what: String,
        /// `it` or `them`.
        it: &'static str,
    },
    /// The host cannot do it now.
    #[error("the host is stopping or its database is unavailable; try again")]
    Unavailable,
    /// The database did not answer a request in time.
    #[error("{words}")]
    Unanswered {
        /// Whether the request has an effect all the same.
        effect: Effect,
        /// That in words, and what to do.
        words: String,
    },
    /// An idempotency key that has started another run than the one asked for now.
    #[error(
        "the idempotency key has started the run {run} before, by another request; repeat that one as it was, or use another key"
    )]
    KeyReused {
        /// The run that it has started.
        run: RunId,
        /// What differs.
        problems: Vec<Problem>,
    },
    /// A mistake of the host. It has been logged under this id.
    #[error("something went wrong inside the host; its log has the reason under {0}")]
    Internal(Uuid),
}

/// The effect of a request that was not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It has none, and never will.
    None,
    /// It may have one.
    Unknown,
    /// It was done, and cannot be shown.
    Done,
}

impl Error {
    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Error::NotFound { what, name: name.to_string(), hint: String::new() }
    }

    /// Returns why a plugin is refused, or which effect a request has that was not
    /// answered, as a word for programs.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Error::Plugin(refused) => Some(refused.reason()),
            Error::Description { .. } => Some("bad-description"),
            Error::Unanswered { effect, .. } => Some(match effect {
                Effect::None => "not-done",
                Effect::Unknown => "unknown",
                Effect::Done => "done",
            }),
            _ => None,
        }
    }

    /// One problem with what was sent.
    pub(crate) fn invalid(what: &str, path: &str, message: impl ToString) -> Self {
        let problem = Problem { path: path.to_owned(), message: message.to_string() };
        Error::Invalid { what: what.to_owned(), problems: vec![problem] }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Internal { .. } => Error::Internal(log_internal(&refused)),
            refused => Error::Plugin(refused),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Contention(why)
            | StoreError::Unavailable(why)
            | StoreError::Unknown(why) => {
                tracing::error!(%why, "the database is unavailable");
                Error::Unavailable
            }
            StoreError::Data(why) => Error::Internal(log_internal(&why)),
        }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    }
}

/// Logs a mistake of ours whole, and gives it the id that others see.
pub(crate) fn log_internal(why: &dyn std::fmt::Display) -> Uuid {
    let id = crate::ambient::random_id();
    tracing::error!(%id, %why, "internal error");
    id
}

/// The failure of an attempt by a mistake of ours.
pub(crate) fn internal(why: &dyn std::fmt::Display) -> Failure {
    let id = log_internal(why);
    Failure::new(
        FailureKind::Internal,
        format!("something went wrong inside the host; its log has the reason under {id}"),
    )
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another host has the folder.
    #[error(
        "the data folder {0} is in use by another exosphere host; stop that one, or give this one a folder of its own with --data"
    )]
    InUse(String),
    /// The folder cannot be made or read.
    #[error("the data folder {folder} cannot be used: {error}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        error: std::io::Error,
    },
    /// Others may look into the folder, and it is not this user's to close.
    #[error(
        "the data folder {folder} belongs to user {owner} and is open to others, and this host runs as user {ours}: \
         `chown -R {ours} {folder} && chmod 700 {folder}`, or give it a folder of its own with --data"
    )]
    OpenFolder {
        /// The folder.
        folder: String,
        /// The user whose it is.
        owner: u32,
        /// The user who runs this host.
        ours: u32,
    },
    /// A key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that commits cannot be started.
    #[error("the thread that commits cannot be started: {0}")]
    Thread(std::io::Error),
    /// The engine cannot be set up.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_one() {
        let said = |count: usize| {
            let problem = Problem { path: "$".into(), message: "no".into() };
            let what = "the grants of web".to_owned();
            Error::Invalid { what, problems: vec![problem; count] }.to_string()
        };
        assert_eq!(said(1), "the grants of web cannot be taken: 1 problem");
        assert_eq!(said(2), "the grants of web cannot be taken: 2 problems");
    }
}
