//! The operations of one batch, and the result of its commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::deadline::{DeadlineKind, Deadlines};
use exosphere_domain::ids::{Fence, Millis, Name, NamespaceKey, RunId, RunKey, SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limits, Usage};
use exosphere_domain::plan::{Changes, Deltas, Transition};
use exosphere_domain::start_digest::StartDigest;
use exosphere_domain::state::{Claimed, Counts, NewState};
use exosphere_domain::trace::SampleRatio;

use super::bulk::BulkStep;
use super::commit_counts::RunCommitCounts;
use super::report::CommitReport;
use crate::audit::AuditEntry;
use crate::reads::views::RunView;
use crate::types::{ClaimedState, RunInfo, RunUpdate};

/// An operation of a commit.
#[derive(Debug)]
pub enum Operation {
    /// Starts a run, unless its idempotency key has started one.
    Start(Box<NewRun>),
    /// Ends an execution, if its claim is still valid.
    Finish(Box<Finished>),
    /// Stages a piece of the end of an execution with many outputs, before that end.
    Stage(Box<Stage>),
    /// Controls a run: a cancel, a pause, a retry and others.
    Control(Arc<RunInfo>, Control),
}

/// A control operation on a run. Each has statements of its own, which the commit executes after
/// its bulk writes.
#[derive(Debug)]
pub enum Control {
    /// Removes some of the pieces staged for an end that was never committed.
    Unstage(Leftover),
    /// Records that a suspected poison state, given with its claim, is about to run, so that a
    /// further host loss can be attributed to it.
    Begin(Box<Claimed>),
    /// Cancels the run: no further outcome counts.
    Cancel,
    /// Judges a deadline of the run: a run that has missed it fails, and no further outcome
    /// counts.
    Expire(DeadlineKind),
    /// Deletes the run, if it has ended. What belongs to it is removed later, in pieces.
    Delete,
    /// Pauses the run: none of its states is claimed.
    Pause,
    /// Resumes the run: its states can be claimed again.
    Resume,
    /// Makes the run follow the pause of its graph, or the end of that pause.
    FollowGraph,
    /// Sweeps some states of the run: ends them if the run was cancelled, else holds them back
    /// or releases them, as the pause of the run requires.
    Sweep {
        /// The number of the event that asked for the sweep.
        event: i64,
        /// The path to continue from, as the previous sweep returned it.
        from: String,
        /// Upper bound on the states that this sweep examines.
        limit: u32,
    },
    /// Retries this failed state.
    Retry(StateId),
    /// Performs one part of a redrive, which retries the failed states of the run.
    Redrive(RedrivePart),
    /// Executes a control operation, and records it in the audit log if it succeeds.
    Audited(Box<Control>, AuditEntry),
    /// Changes the run for a bulk operation, once.
    Bulk(Box<BulkStep>),
}

/// One transaction of a redrive. A redrive of many states is split, so that other operations commit
/// in between.
#[derive(Debug, Clone)]
pub enum RedrivePart {
    /// Reopens these states in a single transaction.
    Whole(Vec<StateId>),
    /// Begins a redrive in parts: reopened states stay held back until its end.
    Begin,
    /// Reopens some states.
    Some {
        /// The event by which the redrive began.
        event: i64,
        /// The states to reopen.
        states: Vec<StateId>,
    },
    /// Ends a redrive in parts: the run is swept, so that its reopened states can be claimed.
    End {
        /// The event by which the redrive began.
        event: i64,
    },
}

/// A run to start.
#[derive(Debug)]
pub struct NewRun {
    /// The immutable part of the run's row.
    pub info: Arc<RunInfo>,
    /// The id of the revision's row.
    pub revision: i64,
    /// Set if the request names the revision; otherwise it must be the current one.
    pub is_pinned: bool,
    /// The initial entries of the run's store.
    pub store: BTreeMap<String, String>,
    /// The root state.
    pub root: NewState,
    /// The initial counts of the run's outermost scope.
    pub counts: Counts,
    /// The idempotency key: a second start with this key returns the first run.
    pub key: Option<String>,
    /// The digest of the start request; a second start with the same key must match it.
    pub digest: Option<StartDigest>,
    /// The deadlines of the run, from its commit on.
    pub deadlines: Deadlines,
    /// The id of the key that starts the run.
    pub started_by: Option<String>,
    /// The delay from the commit until the root state is due, in milliseconds.
    pub delay: Millis,
    /// The limits of the run; a start checks those of its store.
    pub limits: Arc<Limits>,
}

/// The end of an execution.
#[derive(Debug)]
pub struct Finished {
    /// The run of the state.
    pub run: Arc<RunInfo>,
    /// The state, with its claim.
    pub state: Claimed,
    /// The changes that the outcome makes.
    pub changes: Changes,
    /// The journal: the attempt's reads and writes of the store.
    pub journal: Journal,
    /// The log of the attempt, as JSON text.
    pub logs: Option<String>,
    /// The resource usage of the attempt; `None` if the guest never ran.
    pub usage: Option<Usage>,
    /// The time at which the attempt began, by this host's clock; `None` if it never did, or its
    /// host was lost.
    pub began_at: Option<Instant>,
    /// The random jitter for a retry's backoff, if the commit has to plan the outcome again.
    pub jitter: f64,
    /// The limits of the run and of its store.
    pub limits: Arc<Limits>,
    /// The staged outputs and children, if this end was written in pieces. Those in `changes` are
    /// empty then.
    pub staged: Option<Staged>,
}

/// A staged piece of an execution's end: some of its outputs and children. They become visible, and
/// are counted, when the end itself commits.
#[derive(Debug)]
pub struct Stage {
    /// The run of the execution.
    pub run: Arc<RunInfo>,
    /// The executing state, with its claim.
    pub state: Claimed,
    /// The index of this piece, from 0.
    pub piece: u32,
    /// The number of the first output in this piece.
    pub first: u32,
    /// The outputs, each as JSON text.
    pub outputs: Vec<String>,
    /// The child states.
    pub children: Vec<NewState>,
    /// The number of states that the end creates, over all its pieces.
    pub new_states: usize,
    /// The limits of the run.
    pub limits: Arc<Limits>,
}

impl Stage {
    /// Drops the outputs and children, because the run is cancelled and the piece is stale.
    pub fn strip(&mut self) {
        self.outputs = Vec::new();
        self.children = Vec::new();
    }
}

/// The totals of what was staged for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// The number of pieces.
    pub pieces: u32,
    /// The number of outputs in the pieces.
    pub outputs: usize,
    /// The number of children in the pieces.
    pub children: usize,
}

/// Staged rows of an end that was never committed.
#[derive(Debug, Clone, Copy)]
pub struct Leftover {
    /// The state of the execution.
    pub state: StateId,
    /// The fence under which the rows were staged.
    pub fence: Fence,
    /// Upper bound on the outputs, and on the children, that one operation removes.
    pub limit: u32,
}

impl Finished {
    /// Drops all writes except the attempt's usage, because the run is cancelled and the end is
    /// stale.
    pub fn strip(&mut self) {
        self.staged = None;
        let end = Transition::Pruned { data: None };
        self.changes = Changes { end, counts: Deltas::new() };
        self.journal = Journal::default();
        self.logs = None;
    }
}

/// The run that an idempotency key has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingRun {
    /// The id of the run.
    pub run: RunId,
    /// The graph of the run.
    pub graph: Name,
    /// The digest of its start request; `None` for a run that an older version started.
    pub digest: Option<StartDigest>,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Success.
    Done,
    /// Success; the run's states must be swept for the event with this number.
    ToSweep(i64),
    /// Success, with more to do: a sweep continues from this path.
    More(String),
    /// A redrive reopened failed states.
    Redriven {
        /// The number of reopened states.
        states: usize,
        /// The number of failed states that stay failed, because a unite above has continued
        /// without them.
        late: usize,
    },
    /// A run with this idempotency key exists already.
    Existing(ExistingRun),
    /// The revision of the graph is not the current one.
    Outdated,
    /// Rows staged under this fence must be removed: they conflict with this end, or are no
    /// longer needed.
    Leftover(Fence),
    /// The operation came too late and changed nothing: another session holds the state, or the run
    /// is over.
    Stale,
    /// The operation is not possible, for the reason given.
    Refused(String),
    /// The run or state does not exist.
    Missing,
}

/// The number of states that a commit may claim for the session, beyond those it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMode {
    /// A claim of up to this many of the states that the commit itself creates.
    NewOnly(u32),
    /// A claim of up to this many of all due states.
    AllDue(u32),
}

/// The operations of one transaction.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The operations, in order.
    pub operations: Arc<[Operation]>,
    /// The part of `operations` that this transaction applies.
    pub range: Range<usize>,
    /// The session that claims.
    pub session: SessionId,
    /// The current time of this host. Postgres uses the database's clock instead.
    pub now: Millis,
    /// The states that the session wants to claim.
    pub claim_mode: ClaimMode,
    /// The claim share of each namespace and run.
    pub shares: ClaimShares,
    /// Number of the claim, which selects the namespace that is served first.
    pub rotation: usize,
    /// Round-robin cursors of the namespaces' runs, as the last claim returned them.
    pub cursors: BTreeMap<NamespaceKey, RunKey>,
    /// The known queues of staged children; if none is, a claim looks for them.
    pub staged_queues: StagedQueues,
    /// The part of all runs whose ends the commit reports; `None` if it reports none.
    pub traces: Option<SampleRatio>,
}

/// The queues of staged children with ready states, as a claim left them. Other hosts add queues
/// without this host's knowledge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StagedQueues {
    /// The queues.
    pub queues: BTreeSet<NamespaceKey>,
    /// The time of the last look at all queues.
    pub read_at: Millis,
}

impl StagedQueues {
    /// Adds the findings of another commit.
    pub fn merge(&mut self, other: StagedQueues) {
        self.queues.extend(other.queues);
        self.read_at = self.read_at.max(other.read_at);
    }
}

impl Batch {
    /// Returns whether this commit must survive a loss of power by itself. Pieces of an end and
    /// of a sweep need not: no caller learns of them. The commit that ends them is synced with
    /// all earlier ones, and lost pieces are written again.
    pub(crate) fn is_durable(&self) -> bool {
        let is_piece = |operation: &Operation| {
            matches!(
                operation,
                Operation::Stage(_)
                    | Operation::Control(_, Control::Unstage(_) | Control::Sweep { .. })
            )
        };
        let operations = &self.operations[self.range.clone()];
        !matches!(self.claim_mode, ClaimMode::NewOnly(_)) || !operations.iter().all(is_piece)
    }
}

/// Claim shares: the number of states of each namespace and run that a session may still claim.
/// Neither claims of due states nor claims of new states in a commit exceed them.
#[derive(Debug, Clone)]
pub struct ClaimShares {
    /// Share of namespaces not listed in `left`.
    pub default: u32,
    /// Remaining share of these namespaces.
    pub left: HashMap<NamespaceKey, u32>,
    /// Shares of the runs of which the session holds states. Other runs are bounded by their
    /// namespace alone.
    pub runs: HashMap<RunKey, RunShare>,
}

/// A run's share within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunShare {
    /// The number of the run's states that the session holds.
    pub held: u32,
    /// The number of further states of the run that the session may claim.
    pub left: u32,
}

impl ClaimShares {
    /// Returns shares without a bound for any namespace.
    pub fn unbounded() -> Self {
        ClaimShares { default: u32::MAX, left: HashMap::new(), runs: HashMap::new() }
    }

    /// Returns the remaining share of a namespace.
    pub fn remaining(&self, namespace: NamespaceKey) -> u32 {
        self.left.get(&namespace).copied().unwrap_or(self.default)
    }

    /// Returns the remaining share of a run, regardless of its namespace's share.
    pub fn remaining_of_run(&self, run: RunKey) -> u32 {
        self.runs.get(&run).map_or(u32::MAX, |share| share.left)
    }

    /// Charges newly claimed states to the shares of a run and its namespace.
    pub(crate) fn take(&mut self, namespace: NamespaceKey, run: RunKey, states: u32) {
        let left = self.remaining(namespace).saturating_sub(states);
        self.left.insert(namespace, left);
        if let Some(share) = self.runs.get_mut(&run) {
            share.held = share.held.saturating_add(states);
            share.left = share.left.saturating_sub(states);
        }
    }
}

/// The effects of a commit.
#[derive(Debug, Default)]
pub struct Committed {
    /// The time of the commit: by the database's clock on Postgres, else by the host's.
    pub now: Millis,
    /// The reply to each operation, in order.
    pub replies: Vec<Reply>,
    /// The states that the session claimed in this commit.
    pub claimed: Vec<ClaimedState>,
    /// Set if more due states may be claimable.
    pub more_due: bool,
    /// Namespaces with more due states, whose share is used up.
    pub saturated: BTreeSet<NamespaceKey>,
    /// Runs with more due states, whose own share is used up.
    pub saturated_runs: BTreeSet<(NamespaceKey, RunKey)>,
    /// Round-robin cursors of the runs for the next claim, if this commit claimed.
    pub cursors: BTreeMap<NamespaceKey, RunKey>,
    /// The queues of staged children that are known now.
    pub staged_queues: StagedQueues,
    /// Set if this commit made states claimable without claiming them.
    pub added: bool,
    /// The due time of the next state: of all states if the claim returned fewer than wanted, else
    /// of those in this batch.
    pub next_due: Option<Millis>,
    /// The runs that this commit changed.
    pub run_updates: Vec<RunUpdate>,
    /// The changed runs that ended in this commit, as they are now.
    pub ended: Vec<RunView>,
    /// Counts of the changes in each run. They include an earlier commit whose
    /// success has become known now.
    pub commit_counts: RunCommitCounts,
    /// The attempts and runs that ended in this commit, if the batch asks for them.
    pub report: CommitReport,
}
