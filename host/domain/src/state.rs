//! States and runs: their status, counters and place. The transitions are in
//! [`crate::plan`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Fence, NodeIx, RunKey, SessionId, StateId};
use crate::path::Path;

/// The status of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = StateStatus))]
pub enum Status {
    /// A unite whose branches are still open.
    Waiting,
    /// Ready to be claimed when due.
    Created,
    /// Claimed by a host.
    Queued,
    /// The state returned outputs, and its children exist.
    Success,
    /// The state was pruned: its branch ended here.
    Pruned,
    /// The state failed for good.
    Errored,
    /// The run was cancelled.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a state's life.
    pub const ALL: [Status; 7] = [
        Status::Waiting,
        Status::Created,
        Status::Queued,
        Status::Success,
        Status::Pruned,
        Status::Errored,
        Status::Cancelled,
    ];

    /// Returns the status's name in the API, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "WAITING",
            Status::Created => "CREATED",
            Status::Queued => "QUEUED",
            Status::Success => "SUCCESS",
            Status::Pruned => "PRUNED",
            Status::Errored => "ERRORED",
            Status::Cancelled => "CANCELLED",
        }
    }

    /// Parses the name of a status.
    pub fn parse(text: &str) -> Option<Self> {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Returns whether the status is terminal: only a manual retry can change
    /// it.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Status::Waiting | Status::Created | Status::Queued)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunStatus {
    /// A state is still open.
    Running,
    /// No state is open, and no failure reached the run.
    Success,
    /// No state is open, and a failure reached the run.
    Failed,
    /// A user cancelled the run.
    Cancelled,
}

impl RunStatus {
    /// Every status, in the order above.
    pub const ALL: [RunStatus; 4] =
        [RunStatus::Running, RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled];

    /// Returns the status's name in the API, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "RUNNING",
            RunStatus::Success => "SUCCESS",
            RunStatus::Failed => "FAILED",
            RunStatus::Cancelled => "CANCELLED",
        }
    }

    /// Parses the name of a status.
    pub fn parse(text: &str) -> Option<Self> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Decides a run's status from its own two counters. This is the one place
    /// where a run's end is decided, except for a cancel.
    pub fn from_counts(open: i64, failed: i64) -> Self {
        match (open, failed) {
            (0, 0) => RunStatus::Success,
            (0, _) => RunStatus::Failed,
            _ => RunStatus::Running,
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reference to one output of one execution, along which a branch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref {
    /// The node that was executed.
    pub node: NodeIx,
    /// The state of the execution.
    pub state: StateId,
    /// The index of the output, from 0.
    pub output: u32,
}

/// A waiting unite in whose region a state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The unite's node.
    pub unite: NodeIx,
    /// The unite's state.
    pub state: StateId,
}

/// The place of a state in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The state's node.
    pub node: NodeIx,
    /// The steps from the root.
    pub path: Path,
    /// The earlier outputs on the state's branch that it or its successors refer to: one for
    /// each node in `carries` of its node.
    pub refs: Vec<Ref>,
    /// The unites around the state: one for each scope of its node. All
    /// children of one fanout share the list.
    pub scopes: Arc<[Scope]>,
}

/// The counters of a state's attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Number of claims so far, which is the number of the latest attempt.
    pub attempt: u32,
    /// Number of retries used up since the last manual retry.
    pub retries: u32,
    /// Number of requeues.
    pub requeues: u32,
    /// Number of hosts lost in succession.
    pub host_losses: u32,
    /// Number of store conflicts in succession.
    pub conflicts: u32,
}

impl AttemptCounts {
    /// Returns whether the state is a suspected poison state. For such a state
    /// a host records when it begins, and not only that it has claimed the
    /// state.
    pub fn is_poison_suspect(&self) -> bool {
        self.host_losses > 0
    }
}

/// A host's claim of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The host's session.
    pub session: SessionId,
    /// The fence of this claim.
    pub fence: Fence,
}

/// A claimed state, which its host is to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The state's id.
    pub id: StateId,
    /// The state's run.
    pub run: RunKey,
    /// The state's place in its run.
    pub place: Place,
    /// The counters of its attempts.
    pub attempts: AttemptCounts,
    /// The host's claim.
    pub claim: Claim,
}

/// A state that a commit creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewState {
    /// The state's id.
    pub id: StateId,
    /// The state's place in its run.
    pub place: Place,
}

/// The counters of a unite or a run: open members, failed members, and outputs
/// that reached an edge into the unite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Members that have not ended.
    pub open: i64,
    /// Members that failed.
    pub failed: i64,
    /// Outputs that arrived. Always 0 for a run.
    pub arrived: i64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.open += other.open;
        self.failed += other.failed;
        self.arrived += other.arrived;
    }
}

impl Counts {
    /// The change for a new member.
    pub const BEGUN: Counts = Counts { open: 1, failed: 0, arrived: 0 };
    /// The change for a member that ended without failure.
    pub const ENDED: Counts = Counts { open: -1, failed: 0, arrived: 0 };
    /// The change for a member that failed.
    pub const FAILED: Counts = Counts { open: -1, failed: 1, arrived: 0 };
    /// The change for a failed member that is retried.
    pub const REOPENED: Counts = Counts { open: 1, failed: -1, arrived: 0 };
}

/// The scope whose counters change: the run or a unite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counter {
    /// The run, the outermost scope.
    Run,
    /// A unite, by its state.
    Unite(StateId),
}
