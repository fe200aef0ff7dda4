//! States and runs: what they are at a moment, and where they lie. How they
//! move is [`crate::plan`]'s business.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Fence, NodeIx, RunKey, SessionId, StateId};
use crate::path::Path;

/// What a state is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// A unite whose branches are still open.
    Waiting,
    /// To be claimed when it is due.
    Created,
    /// Claimed by a host.
    Queued,
    /// It returned outputs, and its children exist.
    Success,
    /// Its branch ended here.
    Pruned,
    /// It failed for good.
    Errored,
    /// Its run was cancelled.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a life.
    pub const ALL: [Status; 7] = [
        Status::Waiting,
        Status::Created,
        Status::Queued,
        Status::Success,
        Status::Pruned,
        Status::Errored,
        Status::Cancelled,
    ];

    /// The status as it is written everywhere.
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

    /// The status that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more happens to it by itself.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Status::Waiting | Status::Created | Status::Queued)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Something is open.
    Running,
    /// Nothing is open, and no failure reached the run.
    Success,
    /// Nothing is open, and a failure reached the run.
    Failed,
    /// Someone cancelled it.
    Cancelled,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [RunStatus; 4] =
        [RunStatus::Running, RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled];

    /// The status as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "RUNNING",
            RunStatus::Success => "SUCCESS",
            RunStatus::Failed => "FAILED",
            RunStatus::Cancelled => "CANCELLED",
        }
    }

    /// The status that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Where a run stands by its own two counts: the one place where a run's
    /// end is decided, but for a cancel.
    pub fn of(open: i64, failed: i64) -> Self {
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

/// One output of one execution, by which a branch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref {
    /// The node that was executed.
    pub node: NodeIx,
    /// The state.
    pub state: StateId,
    /// Which of its outputs, from 0.
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

/// Where a state lies in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node: NodeIx,
    /// The steps from the root.
    pub path: Path,
    /// The outputs it comes from: one for each node that its node carries.
    pub refs: Vec<Ref>,
    /// The unites around it: one for each scope of its node. All children of
    /// one fanout share it.
    pub scopes: Arc<[Scope]>,
}

/// How often a state was tried, and how that went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Claims so far: the number of the latest attempt.
    pub attempt: u32,
    /// Retries used up, since the last manual retry.
    pub retries: u32,
    /// How often it asked to run again.
    pub requeues: u32,
    /// Hosts lost in succession.
    pub losses: u32,
    /// Store conflicts in succession.
    pub conflicts: u32,
}

impl Tries {
    /// Whether it may be what ended the host before: a host notes when it
    /// begins such a state, and not just that it holds it.
    pub fn is_suspect(&self) -> bool {
        self.losses > 0
    }
}

/// Who holds a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The host's session.
    pub session: SessionId,
    /// The number of this claim.
    pub fence: Fence,
}

/// A state that a host holds and is to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its number.
    pub id: StateId,
    /// Its run.
    pub run: RunKey,
    /// Where it lies.
    pub place: Place,
    /// How often it was tried.
    pub tries: Tries,
    /// Who holds it.
    pub claim: Claim,
}

/// A state that a commit creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewState {
    /// Its number.
    pub id: StateId,
    /// Where it lies.
    pub place: Place,
}

/// What is counted for a unite, and for a run: members that have not ended,
/// members that failed, outputs that reached an edge into the unite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Members not yet ended.
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
    /// One member more.
    pub const BEGUN: Counts = Counts { open: 1, failed: 0, arrived: 0 };
    /// One member has ended well.
    pub const ENDED: Counts = Counts { open: -1, failed: 0, arrived: 0 };
    /// One member has failed.
    pub const FAILED: Counts = Counts { open: -1, failed: 1, arrived: 0 };
    /// A failed member is tried again.
    pub const REOPENED: Counts = Counts { open: 1, failed: -1, arrived: 0 };
}

/// Where something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counter {
    /// In the run, the outermost scope.
    Run,
    /// In a unite.
    Unite(StateId),
}
