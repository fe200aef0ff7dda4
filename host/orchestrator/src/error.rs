//! Errors for the callers of a host, split by how a caller can react.

use std::time::Duration;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::Name;
use exosphere_domain::plural::counted;
use exosphere_domain::quota::QuotaBreach;
use exosphere_domain::reason::Reason;
use exosphere_sandbox::{AdmissionError, SetupError};
use exosphere_store::{OpenError, StoreError};
use uuid::Uuid;

use crate::keys::file::KeyFileError;

/// The error of a request to a host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The requested object does not exist.
    #[error("there is no {kind} {name:?} here{hint}")]
    NotFound {
        /// The kind of object: `run`, `graph`..
        kind: &'static str,
        /// The name of the object.
        name: String,
        /// A remedy, or an empty text.
        hint: String,
    },
    /// A request that is not valid, with every problem.
    #[error("{subject} cannot be accepted: {}", count(problems))]
    Invalid {
        /// The part of the request that is not valid.
        subject: String,
        /// The problems of the request.
        problems: Vec<Problem>,
    },
    /// An upload is not a valid plugin.
    #[error("the plugin is refused: {0}")]
    Plugin(AdmissionError),
    /// The descriptions of a plugin's nodes are not valid.
    #[error("the plugin's description of itself cannot be accepted: {}", count(problems))]
    Description {
        /// The problems of the descriptions.
        problems: Vec<Problem>,
    },
    /// The current state of the run or graph does not allow the request.
    #[error("{0}")]
    Conflict(String),
    /// The setting has changed since the caller read it.
    #[error(
        "{subject} changed since you read {it}, and nothing was set; read {it} again, and repeat the change on that"
    )]
    Changed {
        /// The setting that has changed.
        subject: String,
        /// `it` or `them`.
        it: &'static str,
    },
    /// A quota of the namespace forbids the request.
    #[error(
        "the namespace {namespace} has the quota {}={} ({}), and has used it; {remedy}, or ask an \
         admin: `exosphere quota set --namespace {namespace} {}=..`",
        .breach.quota, .breach.value, .breach.quota.what(), .breach.quota
    )]
    Quota {
        /// The namespace.
        namespace: Name,
        /// The quota, its value and its use.
        breach: QuotaBreach,
        /// The way to free the quota.
        remedy: &'static str,
        /// The time after which to retry, if that helps.
        retry_after: Option<Duration>,
    },
    /// The database of the host is unavailable.
    #[error("the database of the host is unavailable; try again")]
    Unavailable,
    /// The host is stopping.
    #[error(
        "not started: the host is stopping and starts no runs; ask another host, or this one after its restart"
    )]
    Stopping,
    /// The database did not answer a request in time.
    #[error("{message}")]
    Unanswered {
        /// The effect of the request.
        effect: Effect,
        /// The effect in words, and a remedy.
        message: String,
    },
    /// An idempotency key has started a run or a bulk operation by a different request.
    #[error(
        "the idempotency key has started {object} before, by another request; \
         repeat that one as it was, or use another key"
    )]
    KeyReused {
        /// The object that the key has started: `the run ..`.
        object: String,
        /// The differences between the requests.
        problems: Vec<Problem>,
    },
    /// An internal error, logged under this id.
    #[error("something went wrong inside the host; its log has the reason under {0}")]
    Internal(Uuid),
}

/// The effect of a request that was not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The request has had no effect and will have none.
    None,
    /// The request may have an effect.
    Unknown,
    /// The request was carried out, but its result cannot be shown.
    Done,
}

impl Error {
    pub(crate) fn not_found(kind: &'static str, name: impl ToString) -> Self {
        Error::NotFound { kind, name: name.to_string(), hint: String::new() }
    }

    /// Returns the reason for programs: why a plugin is refused, or the effect of a request
    /// that was not answered.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Plugin(refused) => refused.reason(),
            Error::Description { .. } => Some(Reason::BadDescription),
            Error::NotFound { kind: "namespace", .. } => Some(Reason::NoNamespace),
            Error::Stopping => Some(Reason::NotDone),
            Error::Unanswered { effect, .. } => Some(match effect {
                Effect::None => Reason::NotDone,
                Effect::Unknown => Reason::Unknown,
                Effect::Done => Reason::Done,
            }),
            _ => None,
        }
    }

    /// Creates the error of a request with one problem.
    pub(crate) fn invalid(subject: &str, path: &str, message: impl ToString) -> Self {
        let problem = Problem { path: path.to_owned(), message: message.to_string() };
        Error::Invalid { subject: subject.to_owned(), problems: vec![problem] }
    }
}

impl From<AdmissionError> for Error {
    fn from(refused: AdmissionError) -> Self {
        match refused {
            AdmissionError::Internal { .. } => Error::Internal(log_internal(&refused)),
            refused => Error::Plugin(refused),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Contention(cause)
            | StoreError::Unavailable(cause)
            | StoreError::Unknown(cause) => {
                tracing::error!(%cause, "the database is unavailable");
                Error::Unavailable
            }
            StoreError::Refused(reason) => Error::Conflict(reason),
            StoreError::Changed => Error::Changed { subject: "what it replaces".into(), it: "it" },
            StoreError::Data(cause) => Error::Internal(log_internal(&cause)),
            // The operations that quotas bound name the namespace.
            breach @ StoreError::Quota(_) => Error::Internal(log_internal(&breach)),
        }
    }
}

fn count(problems: &[Problem]) -> String {
    counted(problems.len() as u64, "problem", "problems")
}

/// Logs an internal error, and returns the id that the caller sees.
pub(crate) fn log_internal(cause: &dyn std::fmt::Display) -> Uuid {
    let id = crate::system::random_id();
    tracing::error!(%id, %cause, "internal error");
    id
}

/// Builds the failure of an attempt by an internal error.
pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Failure {
    let id = log_internal(cause);
    Failure::new(
        FailureKind::Internal,
        format!("something went wrong inside the host; its log has the reason under {id}"),
    )
}

/// The error of a host that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another host uses the data folder.
    #[error(
        "the data folder {0} is in use by another exosphere host; \
         stop that one, or give this one a folder of its own with --data"
    )]
    InUse(String),
    /// The data folder cannot be created or read.
    #[error("the data folder {folder} cannot be used: {error}")]
    Folder {
        /// The path of the folder.
        folder: String,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The data folder is open to other users, and belongs to another user than the
    /// host's.
    #[error(
        "the data folder {folder} belongs to user {owner} and is open to others, and this host runs as user {ours}: \
         `chown -R {ours} {folder} && chmod 700 {folder}`, or give it a folder of its own with --data"
    )]
    OpenFolder {
        /// The path of the folder.
        folder: String,
        /// The owner of the folder.
        owner: u32,
        /// The user that runs this host.
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
    /// A thread cannot be started.
    #[error("the thread that commits cannot be started: {0}")]
    Thread(std::io::Error),
    /// The sandbox cannot be set up.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
    /// The client of the trace collector cannot be set up.
    #[error(
        "traces cannot be sent: {0}; leave out --otlp-endpoint, or give the system certificates to trust"
    )]
    Traces(reqwest::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_counted_in_words() {
        let text_of = |count: usize| {
            let problem = Problem { path: "$".into(), message: "no".into() };
            let subject = "the grants of web".to_owned();
            Error::Invalid { subject, problems: vec![problem; count] }.to_string()
        };
        assert_eq!(text_of(1), "the grants of web cannot be accepted: 1 problem");
        assert_eq!(text_of(2), "the grants of web cannot be accepted: 2 problems");
    }
}
