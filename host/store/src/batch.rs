//! What goes into one commit, and what comes out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, Millis, Name, NamespaceKey, RunId, RunKey, SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limits, Usage};
use exosphere_domain::plan::{Changes, Deltas, End};
use exosphere_domain::start_digest::StartDigest;
use exosphere_domain::state::{Claimed, Counts, NewState, Ref, RunStatus};

use crate::view::RunView;

/// What never changes of a run.
#[derive(Debug)]
pub struct RunInfo {
    /// Its number.
    pub key: RunKey,
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub namespace: Name,
    /// The number of that namespace.
    pub namespace_key: NamespaceKey,
    /// The name of its graph.
    pub graph_name: Name,
    /// The number of its graph's revision.
    pub revision: i64,
    /// The graph itself.
    pub graph: Arc<Graph>,
    /// What it was started with: a JSON object.
    pub inputs: Arc<str>,
}

/// One thing to do in a commit.
#[derive(Debug)]
pub enum Member {
    /// A run begins.
    Start(Box<NewRun>),
    /// An execution has ended.
    Finish(Box<Finished>),
    /// A piece of the end of an execution with many outputs, before that end.
    Stage(Box<Stage>),
    /// Some of the pieces of an end that never came are removed.
    Unstage(Leftover),
    /// An execution is about to begin that may end its host.
    Begin {
        /// Its run.
        run: Arc<RunInfo>,
        /// The state as it was claimed.
        state: Box<Claimed>,
    },
    /// A run is cancelled.
    Cancel(Arc<RunInfo>),
    /// A run is paused, or goes on.
    Pause {
        /// The run.
        run: Arc<RunInfo>,
        /// Whether it is to be.
        paused: bool,
    },
    /// Some states of a run are brought in line with it: ended, if it was
    /// cancelled, else out of the way of claims while it is paused.
    Sweep {
        /// The run.
        run: Arc<RunInfo>,
        /// The event that asked for it.
        event: i64,
        /// Where the sweep before this one came to.
        from: String,
        /// How many states it looks at.
        most: u32,
    },
    /// A failed state is to run again.
    Retry {
        /// Its run.
        run: Arc<RunInfo>,
        /// The state.
        state: StateId,
    },
    /// Failed states of a run are to run again.
    Redrive {
        /// The run.
        run: Arc<RunInfo>,
        /// How much of it.
        part: RedrivePart,
    },
}

/// One transaction of a redrive. A redrive of many states goes in parts, so that others'
/// commits come between them.
#[derive(Debug, Clone)]
pub enum RedrivePart {
    /// These states, at once.
    Whole(Vec<StateId>),
    /// A redrive in parts begins: what it opens is parked until its end.
    Begin,
    /// Some states are opened.
    Some {
        /// The event of the beginning.
        event: i64,
        /// The states.
        states: Vec<StateId>,
    },
    /// All are open, and are to be swept: they may be claimed.
    End {
        /// The event of the beginning.
        event: i64,
    },
}

/// A run that begins.
#[derive(Debug)]
pub struct NewRun {
    /// What never changes of it.
    pub info: Arc<RunInfo>,
    /// The row of its revision.
    pub revision: i64,
    /// What its store begins with.
    pub store: BTreeMap<String, String>,
    /// Its first state.
    pub root: NewState,
    /// What it counts from the first.
    pub counts: Counts,
    /// A second start with this key finds the first one's run.
    pub key: Option<String>,
    /// What a second start is compared with, if there is a key.
    pub digest: Option<StartDigest>,
    /// How long after the commit its first state is due, in milliseconds.
    pub delay: Millis,
    /// What it may use: here, what its store may hold.
    pub limits: Arc<Limits>,
}

/// An execution that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub run: Arc<RunInfo>,
    /// The state as it was claimed.
    pub state: Claimed,
    /// What its outcome changes.
    pub changes: Changes,
    /// What it did to the store.
    pub journal: Journal,
    /// Its log, as JSON text.
    pub logs: Option<String>,
    /// What it used; nothing if it never ran.
    pub usage: Option<Usage>,
    /// The random number of its retry, should the commit have to plan anew.
    pub jitter: f64,
    /// What it may use: here, what its run and the store of its run may hold.
    pub limits: Arc<Limits>,
    /// Outputs and children that are there already, if they were written in pieces: those
    /// in `changes` are empty then.
    pub staged: Option<Staged>,
}

/// A piece of the end of an execution: some of its outputs and children. They count, and
/// can be seen, with the end itself.
#[derive(Debug)]
pub struct Stage {
    /// The run.
    pub run: Arc<RunInfo>,
    /// The execution, as it was claimed.
    pub state: Claimed,
    /// Which piece it is, from 0.
    pub piece: u32,
    /// The number of the first output.
    pub first: u32,
    /// Outputs, JSON text each.
    pub outputs: Vec<String>,
    /// Children.
    pub children: Vec<NewState>,
    /// How many states the end is to create, in all its pieces.
    pub new_states: usize,
    /// What the run may hold.
    pub limits: Arc<Limits>,
}

impl Stage {
    /// Drops all that it would write if its run were not cancelled: it is stale.
    pub fn strip(&mut self) {
        self.outputs = Vec::new();
        self.children = Vec::new();
    }
}

/// What was staged for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// Pieces.
    pub pieces: u32,
    /// Outputs in them.
    pub outputs: usize,
    /// Children in them.
    pub children: usize,
}

/// What was staged for an end that never came.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The run.
    pub run: Arc<RunInfo>,
    /// The execution.
    pub state: StateId,
    /// The fence under which it was staged.
    pub fence: Fence,
    /// The most outputs, and the most children, that are removed at a time.
    pub most: u32,
}

impl Finished {
    /// Drops all that it would write if its run were not cancelled: it ends as stale, and
    /// only what the attempt used is kept.
    pub fn strip(&mut self) {
        self.staged = None;
        let end = End::Pruned { data: None };
        self.changes = Changes { end, counts: Deltas::new() };
        self.journal = Journal::default();
        self.logs = None;
    }
}

/// A run that an idempotency key has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRun {
    /// Its id.
    pub run: RunId,
    /// Its graph.
    pub graph: Name,
    /// What it was started with; nothing is known of that for an old run.
    pub digest: Option<StartDigest>,
}

/// What became of a member.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was done, and its states are to be swept for this event.
    ToSweep(i64),
    /// It was done, and there is more: a sweep came to this place.
    More(String),
    /// Failed states are to run again.
    Redriven {
        /// So many.
        states: usize,
        /// So many not: a unite above has gone on without them.
        late: usize,
    },
    /// There is a run with this key already.
    Known(KnownRun),
    /// The revision of the graph is not the current one, or not any more.
    Outdated,
    /// What was staged under this fence is in the way, or is of no use any more: it is to be
    /// removed.
    Leftover(Fence),
    /// It came too late and changed nothing: another holds the state, or the
    /// run is over.
    Stale,
    /// It cannot be done, and this is why.
    Refused(String),
    /// There is no such thing.
    Missing,
}

/// What a commit may hand to the session, beside what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// So many of the states that the commit itself creates.
    Births(u32),
    /// So many of all that is due.
    Claims(u32),
}

/// One transaction's work.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What is to be done, in order.
    pub members: Arc<[Member]>,
    /// Which of them.
    pub range: Range<usize>,
    /// For whom it claims.
    pub session: SessionId,
    /// What time it is here. On Postgres its own clock counts.
    pub now: Millis,
    /// What the session wants of it.
    pub want: Want,
    /// How much of it each namespace may have.
    pub shares: Shares,
    /// Which claim of the session this is: another namespace is the first each
    /// time.
    pub turn: usize,
    /// Where the rounds of the namespaces' runs go on, as the last claim gave them.
    pub cursors: BTreeMap<NamespaceKey, RunKey>,
}

impl Batch {
    /// Returns whether its commit has to survive a loss of power by itself. Pieces of an end
    /// and of a sweep need not: nobody is told of them, the commit that ends them is synced
    /// with all that came before, and what is lost is done again.
    pub(crate) fn is_durable(&self) -> bool {
        let is_piece = |member: &Member| {
            matches!(member, Member::Stage(_) | Member::Unstage(_) | Member::Sweep { .. })
        };
        let members = &self.members[self.range.clone()];
        !matches!(self.want, Want::Births(_)) || !members.iter().all(is_piece)
    }
}

/// How many states of each namespace a session may hold. A commit neither
/// claims nor gives birth to more.
#[derive(Debug, Clone)]
pub struct Shares {
    /// So many of a namespace of which nothing else is said.
    pub most: u32,
    /// So many more of these.
    pub left: HashMap<NamespaceKey, u32>,
    /// Runs of which the session holds something. Others are bounded by their
    /// namespace alone.
    pub runs: HashMap<RunKey, RunShare>,
}

/// A run's share of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunShare {
    /// States of it that the session holds.
    pub held: u32,
    /// States of it that the session may hold beyond them.
    pub left: u32,
}

impl Shares {
    /// Every namespace may have all there is.
    pub fn unbounded() -> Self {
        Shares { most: u32::MAX, left: HashMap::new(), runs: HashMap::new() }
    }

    /// So many more of a namespace.
    pub fn room(&self, namespace: NamespaceKey) -> u32 {
        self.left.get(&namespace).copied().unwrap_or(self.most)
    }

    /// How many more states of a run may be held, as far as its own share goes.
    pub fn run_room(&self, run: RunKey) -> u32 {
        self.runs.get(&run).map_or(u32::MAX, |share| share.left)
    }

    /// Counts states of a run that are held from now on.
    pub(crate) fn take(&mut self, namespace: NamespaceKey, run: RunKey, states: u32) {
        let left = self.room(namespace).saturating_sub(states);
        self.left.insert(namespace, left);
        if let Some(share) = self.runs.get_mut(&run) {
            share.held = share.held.saturating_add(states);
            share.left = share.left.saturating_sub(states);
        }
    }
}

/// A claimed state with all of its own that its execution needs.
#[derive(Debug)]
pub struct Leased {
    /// The state.
    pub state: Claimed,
    /// The namespace of its run.
    pub namespace: NamespaceKey,
    /// Values of the store, fixed when it was created.
    pub fixed: BTreeMap<String, String>,
    /// Outputs that are known without asking.
    pub known: Vec<(Ref, Arc<str>)>,
}

/// A run that a commit touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// The run.
    pub run: RunKey,
    /// The number of its latest event.
    pub version: i64,
    /// How it stands.
    pub status: RunStatus,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether either is new.
    pub turned: bool,
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Committed {
    /// What time it is, by the clock that counts.
    pub now: Millis,
    /// An answer for each member.
    pub answers: Vec<Answer>,
    /// What the session holds from now on.
    pub leased: Vec<Leased>,
    /// Whether there may be more to claim that is due.
    pub more: bool,
    /// Namespaces of which more is due, but their share is used up.
    pub full: BTreeSet<NamespaceKey>,
    /// Runs of which more is due, but their own share is used up.
    pub full_runs: BTreeSet<(NamespaceKey, RunKey)>,
    /// Where the next claim goes on in the rounds of runs, if this was one.
    pub cursors: BTreeMap<NamespaceKey, RunKey>,
    /// Whether states came to be claimable in this commit, and were not claimed.
    pub added: bool,
    /// When the next state is due: of all if the claim came back short, of
    /// those in this batch otherwise.
    pub next_due: Option<Millis>,
    /// The runs it touched.
    pub touched: Vec<Touched>,
    /// Those of them that ended by it, as they stand.
    pub ended: Vec<RunView>,
}
