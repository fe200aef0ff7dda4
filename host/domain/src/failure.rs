//! Failures of attempts, typed: policy depends on the kind and never on the
//! message.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids::Millis;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureKind {
    /// The node reported a failure that another attempt may fix.
    Retryable,
    /// The node reported a failure that no other attempt can fix.
    Permanent,
    /// The guest trapped: a panic, a stack overflow, a bad instruction.
    Trap,
    /// The guest exited its process.
    Exit,
    /// The attempt ran past its deadline.
    Timeout,
    /// The attempt exceeded a limit.
    Limit,
    /// An output does not match its schema.
    InvalidOutput,
    /// The inputs could not be rendered, or do not match their schema.
    InvalidInput,
    /// The store writes could not be committed.
    Store,
    /// The strategy of a unite was not met.
    Blocked,
    /// An internal error. Its message is in the host's log, under an incident
    /// id.
    Internal,
    /// The host that had claimed the state died.
    HostLost,
}

impl FailureKind {
    /// Every kind, in the order above.
    pub const ALL: [FailureKind; 12] = [
        FailureKind::Retryable,
        FailureKind::Permanent,
        FailureKind::Trap,
        FailureKind::Exit,
        FailureKind::Timeout,
        FailureKind::Limit,
        FailureKind::InvalidOutput,
        FailureKind::InvalidInput,
        FailureKind::Store,
        FailureKind::Blocked,
        FailureKind::Internal,
        FailureKind::HostLost,
    ];

    /// Returns the kind's name in the API, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Retryable => "retryable",
            FailureKind::Permanent => "permanent",
            FailureKind::Trap => "trap",
            FailureKind::Exit => "exit",
            FailureKind::Timeout => "timeout",
            FailureKind::Limit => "limit",
            FailureKind::InvalidOutput => "invalid-output",
            FailureKind::InvalidInput => "invalid-input",
            FailureKind::Store => "store",
            FailureKind::Blocked => "blocked",
            FailureKind::Internal => "internal",
            FailureKind::HostLost => "host-lost",
        }
    }

    /// Parses the name of a kind.
    pub fn parse(text: &str) -> Option<Self> {
        FailureKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Returns whether the retry policy decides on failures of this kind,
    /// unless one of them is final. A lost host has a rule of its own, see
    /// [`crate::plan`].
    pub fn is_retried(self) -> bool {
        !matches!(
            self,
            FailureKind::Permanent
                | FailureKind::InvalidInput
                | FailureKind::InvalidOutput
                | FailureKind::Blocked
        )
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest message that is kept, in bytes. A guest's message is cut here.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// The failure of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, on which policy depends.
    pub kind: FailureKind,
    /// A message for people; the guest's own, if it gave one.
    pub message: String,
    /// Further details: the limit and its value, a backtrace, or the guest's own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::json::maybe_verbatim"
    )]
    pub details: Option<Value>,
    /// True if every other attempt would fail too, for example after a denied request or at a
    /// limit on inputs or outputs. Other failures of the kind may be retried. It is known while
    /// the attempt is planned, and not stored.
    #[serde(skip)]
    pub is_final: bool,
}

impl Failure {
    /// Creates a failure with a message, cut to [`MAX_MESSAGE_BYTES`].
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            let cut = message.floor_char_boundary(MAX_MESSAGE_BYTES);
            message.truncate(cut);
            message.push_str("… (cut)");
        }
        Failure { kind, message, details: None, is_final: false }
    }

    /// Returns the same failure, marked as final.
    pub fn into_final(self) -> Self {
        Failure { is_final: true, ..self }
    }

    /// Returns whether the retry policy decides on another attempt.
    pub fn is_retried(&self) -> bool {
        self.kind.is_retried() && !self.is_final
    }

    /// Returns the same failure with details.
    pub fn with(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

/// The member of a failure's details that has the time of the claim.
const CLAIMED_AT: &str = "claimed_at";

impl Failure {
    /// Returns the same failure with the time of the claim, if it is the loss of a host. Nothing
    /// else tells when such an attempt began.
    pub fn with_claim_time(self, claimed_at: Option<Millis>) -> Self {
        match claimed_at {
            Some(time) if self.kind == FailureKind::HostLost => {
                self.with(json!({ CLAIMED_AT: time }))
            }
            _ => self,
        }
    }

    /// Returns the time of the claim, if a host was lost.
    pub fn claim_time(&self) -> Option<Millis> {
        self.details.as_ref().and_then(|details| claim_time(self.kind, details))
    }
}

/// Returns the time of the claim from the details of a failure of a kind.
pub fn claim_time(kind: FailureKind, details: &Value) -> Option<Millis> {
    details.get(CLAIMED_AT)?.as_i64().filter(|_| kind == FailureKind::HostLost)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}
