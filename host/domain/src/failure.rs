//! Why an attempt failed. Typed, so that policy hangs on the kind and never on
//! the words.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kinds of failure that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The node said so, and that another attempt may help.
    Retryable,
    /// The node said so, and that no other attempt will help.
    Permanent,
    /// The guest trapped: a panic, an overflowing stack, a bad instruction.
    Trap,
    /// The guest ended its own process.
    Exit,
    /// It ran past its deadline.
    Timeout,
    /// It went over a limit.
    Limit,
    /// What it returned is not what its schema promises.
    InvalidOutput,
    /// Its inputs could not be rendered, or break its schema.
    InvalidInput,
    /// Its store writes could not be committed.
    Store,
    /// A unite whose strategy was not met.
    Blocked,
    /// A mistake of the host. The words are in the host's log, under an id.
    Internal,
    /// The host that held it is gone.
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

    /// The kind as it is written everywhere.
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

    /// The kind that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        FailureKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether the retry policy decides on failures of this kind, unless one of
    /// them is final. The host's loss has a rule of its own, see [`crate::plan`].
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

/// The longest message that is kept, in bytes. What a guest says is cut here.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What policy hangs on.
    pub kind: FailureKind,
    /// For people to read; the guest's own words where it had any.
    pub message: String,
    /// Anything that helps: the limit and its value, a backtrace, what the
    /// guest added.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::json::maybe_verbatim"
    )]
    pub details: Option<Value>,
    /// Whether no other attempt can end otherwise, though others of the kind
    /// may: a limit on what the node is given or returns, a denied request. Known
    /// while the attempt is planned, and not kept.
    #[serde(skip)]
    pub is_final: bool,
}

impl Failure {
    /// A failure with a message, cut to [`MAX_MESSAGE_BYTES`].
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            let cut = message.floor_char_boundary(MAX_MESSAGE_BYTES);
            message.truncate(cut);
            message.push_str("… (cut)");
        }
        Failure { kind, message, details: None, is_final: false }
    }

    /// Returns the same failure, which another attempt cannot mend.
    pub fn for_good(self) -> Self {
        Failure { is_final: true, ..self }
    }

    /// Whether the retry policy decides if the state runs again.
    pub fn is_retried(&self) -> bool {
        self.kind.is_retried() && !self.is_final
    }

    /// The same with details.
    pub fn with(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}
