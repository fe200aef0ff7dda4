//! The reference model: a run by the simplest possible rules. It shares no code with the crate,
//! keeps no counter, and computes everything from all states each time.
//!
//! Not here: time, sessions and fences. A claim is a ticket that is issued once; a call with any
//! other ticket changes nothing.

use std::collections::BTreeSet;

use crate::outcomes::ScriptedOutcome;
use crate::shape::{Graph, MaxFailed, Shape, Strategy};

/// The origin of a state: an output and an edge of the execution above it, or, for a unite, that
/// execution as a whole. Branches come before unites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A child, by the numbers of output and edge.
    Child(u32, u32),
    /// A unite, by its node.
    Unite(usize),
}

/// The status of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Created,
    Success,
    Pruned,
    Errored,
    Cancelled,
}

impl Status {
    /// Returns the status as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "WAITING",
            Status::Created => "CREATED",
            Status::Success => "SUCCESS",
            Status::Pruned => "PRUNED",
            Status::Errored => "ERRORED",
            Status::Cancelled => "CANCELLED",
        }
    }

    fn is_open(self) -> bool {
        matches!(self, Status::Waiting | Status::Created)
    }
}

/// A state: one execution in the tree of executions.
#[derive(Debug, Clone)]
pub struct Exec {
    pub node: usize,
    /// The execution above: its output starts this state, or this state unites it.
    pub parent: Option<usize>,
    /// The steps from the root.
    pub steps: Vec<Step>,
    /// The path: the steps as text.
    pub key: String,
    pub status: Status,
    /// The reason for the failure.
    pub failure_kind: Option<&'static str>,
    /// The number of returned outputs.
    pub outputs: u32,
    /// The unites in which it counts, or none for the run.
    pub counts_in: Vec<usize>,
    /// Claims that had an outcome, or whose outcome is unknown.
    pub attempts: u32,
    /// Failed attempts since the last manual retry that another attempt followed.
    pub retries: u32,
    /// Consecutive losses of hosts that it may have caused.
    pub losses: u32,
    /// Consecutive store conflicts.
    pub conflicts: u32,
    /// The claim that holds.
    pub held: Option<Held>,
}

/// A claim that holds.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    ticket: u64,
    host: i64,
    /// True if the host has begun the execution.
    begin_recorded: bool,
}

/// The effect of a host loss on a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The first loss: the state becomes a suspect.
    First,
    /// A further loss while the suspect was executed.
    Again,
    /// One loss too many: the state fails.
    Last,
    /// A loss while the suspect was not executed: not charged.
    LetOff,
}

/// The status of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    Running,
    Success,
    Failed,
    Cancelled,
}

impl RunStatus {
    /// Returns the status as it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "RUNNING",
            RunStatus::Success => "SUCCESS",
            RunStatus::Failed => "FAILED",
            RunStatus::Cancelled => "CANCELLED",
        }
    }
}

/// The reason why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The state has not failed.
    NotFailed,
    /// The state is a blocked unite: the failed state below it must be retried instead.
    Blocked,
    /// A unite above has continued without the state.
    UnitePassed,
    /// No state can be retried.
    Nothing,
    /// The run has ended.
    Ended,
    /// The run was cancelled.
    Cancelled,
}

/// An entry of a gather: an output by state and number, or a gap.
pub type Entry = Option<(usize, u32)>;

/// The end of one branch of a united execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Branch {
    Success,
    Pruned,
    /// The state that failed first in path order.
    Errored(usize),
}

/// A run: a tree of executions.
pub struct Run {
    graph: Graph,
    shape: Shape,
    /// All states.
    pub execs: Vec<Exec>,
    pub paused: bool,
    cancelled: bool,
    /// The number of states that the sweep of the cancelled run has visited.
    swept: usize,
    tickets: u64,
}

impl Run {
    /// Creates a run that has just begun.
    pub fn new(graph: &Graph) -> Self {
        let shape = Shape::from_graph(graph);
        let mut run = Run {
            graph: graph.clone(),
            shape,
            execs: Vec::new(),
            paused: false,
            cancelled: false,
            swept: 0,
            tickets: 0,
        };
        let root = run.graph.root();
        run.create(root, None, Vec::new(), Status::Created);
        run
    }

    fn create(&mut self, node: usize, parent: Option<usize>, steps: Vec<Step>, status: Status) {
        let text = |step: &Step| match step {
            Step::Child(output, edge) => format!("{output}.{edge}"),
            Step::Unite(node) => format!("u{node}"),
        };
        let key = format!("/{}", steps.iter().map(text).collect::<Vec<_>>().join("/"));
        self.execs.push(Exec {
            node,
            parent,
            steps,
            key,
            status,
            failure_kind: None,
            outputs: 0,
            counts_in: Vec::new(),
            attempts: 0,
            retries: 0,
            losses: 0,
            conflicts: 0,
            held: None,
        });
    }

    /// Claims a state for a host. The ticket is its claim.
    pub fn claim(&mut self, at: usize, host: i64) -> u64 {
        assert_eq!(self.status(), RunStatus::Running, "a state of a finished run is claimed");
        assert!(!self.paused, "a state of a paused run is claimed");
        let exec = &mut self.execs[at];
        assert_eq!(exec.status, Status::Created, "{} is not CREATED", exec.key);
        assert!(exec.held.is_none(), "{} is claimed twice", exec.key);
        self.tickets += 1;
        exec.attempts += 1;
        exec.held = Some(Held { ticket: self.tickets, host, begin_recorded: false });
        self.tickets
    }

    fn is_current(&self, at: usize, ticket: u64) -> bool {
        !self.cancelled && self.execs[at].held.is_some_and(|held| held.ticket == ticket)
    }

    /// Begins the execution of a state. Returns whether its claim holds.
    pub fn record_begin(&mut self, at: usize, ticket: u64) -> bool {
        let is_current = self.is_current(at, ticket);
        if let (true, Some(held)) = (is_current, &mut self.execs[at].held) {
            held.begin_recorded = true;
        }
        is_current
    }

    /// Applies the outcome of an execution and all its effects, or nothing if the claim no longer
    /// holds.
    pub fn apply(&mut self, at: usize, ticket: u64, outcome: &ScriptedOutcome) -> bool {
        if !self.is_current(at, ticket) {
            return false;
        }
        let exec = &mut self.execs[at];
        exec.held = None;
        match outcome {
            ScriptedOutcome::Outputs(count) => self.succeed(at, *count),
            ScriptedOutcome::Prune => exec.status = Status::Pruned,
            ScriptedOutcome::Requeue => (exec.losses, exec.conflicts) = (0, 0),
            ScriptedOutcome::Released => exec.attempts -= 1,
            ScriptedOutcome::KillsHost => panic!("{} ended its host and had an outcome", exec.key),
            ScriptedOutcome::Conflict => {
                exec.losses = 0;
                exec.conflicts += 1;
                if exec.conflicts == 3 {
                    self.fail(at, "store");
                }
            }
            ScriptedOutcome::Fail(kind) => self.fail(at, kind),
        }
        self.close_unites();
        true
    }

    /// Ends the claim of a lost host. The first loss is charged even if the state was not executed,
    /// since that is unknown.
    pub fn lose_host(&mut self, at: usize, host: i64) -> Loss {
        let exec = &mut self.execs[at];
        let held = exec.held.take().expect("a lost state was claimed");
        assert_eq!(held.host, host, "another host has claimed {}", exec.key);
        if exec.losses > 0 && !held.begin_recorded {
            exec.attempts -= 1;
            return Loss::LetOff;
        }
        exec.losses += 1;
        match exec.losses {
            1 => Loss::First,
            10 => {
                exec.status = Status::Errored;
                exec.failure_kind = Some("host-lost");
                self.close_unites();
                Loss::Last
            }
            _ => Loss::Again,
        }
    }

    /// Returns the number of a host's claimed states.
    pub fn held_by(&self, host: i64) -> usize {
        let is_held = |exec: &&Exec| exec.held.is_some_and(|held| held.host == host);
        self.execs.iter().filter(is_held).count()
    }

    /// Cancels the run, or returns why it cannot be cancelled.
    pub fn cancel(&mut self) -> Result<(), Refusal> {
        if self.status() != RunStatus::Running {
            return Err(Refusal::Ended);
        }
        self.cancelled = true;
        Ok(())
    }

    /// Sweeps the next `max` states in path order, and ends the open ones.
    pub fn sweep(&mut self, max: usize) {
        let mut all: Vec<_> = self.execs.iter_mut().collect();
        all.sort_by(|a, b| a.steps.cmp(&b.steps));
        for exec in all.into_iter().skip(self.swept).take(max) {
            if exec.status.is_open() {
                (exec.status, exec.held) = (Status::Cancelled, None);
            }
        }
        self.swept += max;
    }

    fn fail(&mut self, at: usize, kind: &'static str) {
        let max = self.graph.nodes[self.execs[at].node].max_retries;
        let exec = &mut self.execs[at];
        let is_final = ["permanent", "invalid-input", "invalid-output"].contains(&kind);
        (exec.losses, exec.conflicts) = (0, 0);
        if is_final || exec.retries == max {
            exec.status = Status::Errored;
            exec.failure_kind = Some(kind);
        } else {
            exec.retries += 1;
        }
    }

    fn succeed(&mut self, at: usize, outputs: u32) {
        let Exec { node, steps, .. } = self.execs[at].clone();
        self.execs[at].status = Status::Success;
        self.execs[at].outputs = outputs;
        let first = self.execs.len();
        let below = |step| steps.iter().copied().chain([step]).collect();
        for unite in self.graph.unites_of(node) {
            self.create(unite, Some(at), below(Step::Unite(unite)), Status::Waiting);
        }
        for (edge, next) in self.graph.nodes[node].next.clone().into_iter().enumerate() {
            if self.graph.nodes[next].unites.is_some() {
                continue;
            }
            for output in 0..outputs {
                let step = Step::Child(output, edge as u32);
                self.create(next, Some(at), below(step), Status::Created);
            }
        }
        for created in first..self.execs.len() {
            self.execs[created].counts_in = self.scopes_of(created);
        }
    }

    /// Returns the unites around a state in which it counts.
    fn scopes_of(&self, at: usize) -> Vec<usize> {
        let unites = &self.shape.counts_in[self.execs[at].node];
        unites.iter().map(|&unite| self.unite_above(at, unite)).collect()
    }

    /// Returns the state of a unite around a state: the one that unites an execution above it.
    fn unite_above(&self, at: usize, unite: usize) -> usize {
        let source = self.graph.nodes[unite].unites.as_ref().unwrap().source;
        let united =
            self.lineage(at).find(|&ancestor| self.execs[ancestor].node == source).unwrap();
        let is_unite = |exec: &Exec| exec.node == unite && exec.parent == Some(united);
        self.execs.iter().position(is_unite).unwrap()
    }

    /// Returns a state and all its ancestors.
    fn lineage(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(at), |&at| self.execs[at].parent)
    }

    /// Closes unites until each waiting one has an open state below it.
    fn close_unites(&mut self) {
        loop {
            let mut busy = vec![false; self.execs.len()];
            for exec in self.execs.iter().filter(|exec| exec.status.is_open()) {
                exec.counts_in.iter().for_each(|&unite| busy[unite] = true);
            }
            let drained = |&at: &usize| self.execs[at].status == Status::Waiting && !busy[at];
            let Some(unite) = (0..self.execs.len()).find(drained) else { return };
            self.close(unite);
        }
    }

    fn close(&mut self, unite: usize) {
        let (failed, arrived) = (self.failed(Some(unite)), self.arrived(unite));
        let unites = self.graph.nodes[self.execs[unite].node].unites.as_ref().unwrap();
        let branches = self.execs[self.execs[unite].parent.unwrap()].outputs;
        let is_satisfied = match unites.strategy {
            Strategy::AllSuccess => failed == 0,
            Strategy::AllDone(MaxFailed::Any) => true,
            Strategy::AllDone(MaxFailed::Count(max)) => failed <= max,
            Strategy::AllDone(MaxFailed::Percent(max)) => failed * 100 <= max * branches,
        };
        let exec = &mut self.execs[unite];
        if failed == 0 && arrived == 0 && !unites.run_when_empty {
            exec.status = Status::Pruned;
        } else if is_satisfied {
            exec.status = Status::Created;
        } else {
            exec.status = Status::Errored;
            exec.failure_kind = Some("blocked");
        }
    }

    /// Returns the number of open states in a unite, or in the run.
    pub fn open(&self, scope: Option<usize>) -> u32 {
        self.count(scope, |exec| exec.status.is_open())
    }

    /// Returns the number of failed states in a unite, or in the run.
    pub fn failed(&self, scope: Option<usize>) -> u32 {
        self.count(scope, |exec| exec.status == Status::Errored)
    }

    fn count(&self, scope: Option<usize>, predicate: impl Fn(&Exec) -> bool) -> u32 {
        let is_in_scope = |exec: &&Exec| match scope {
            Some(unite) => exec.counts_in.contains(&unite),
            None => exec.counts_in.is_empty(),
        };
        self.execs.iter().filter(is_in_scope).filter(|exec| predicate(exec)).count() as u32
    }

    /// Returns the number of outputs that reached an edge into a unite.
    pub fn arrived(&self, unite: usize) -> u32 {
        let united = self.execs[unite].parent.unwrap();
        let node = self.execs[unite].node;
        let leads_to_unite = |exec: &Exec| self.graph.nodes[exec.node].next.contains(&node);
        let sources = (0..self.execs.len()).filter(|&at| leads_to_unite(&self.execs[at]));
        sources
            .filter(|&at| self.lineage(at).any(|ancestor| ancestor == united))
            .map(|at| self.execs[at].outputs)
            .sum()
    }

    /// Returns the run's status.
    pub fn status(&self) -> RunStatus {
        if self.cancelled {
            return RunStatus::Cancelled;
        }
        if self.execs.iter().any(|exec| exec.status.is_open()) {
            return RunStatus::Running;
        }
        if self.failed(None) > 0 { RunStatus::Failed } else { RunStatus::Success }
    }

    /// Retries a failed state. A unite that it blocked waits again.
    pub fn retry(&mut self, at: usize) -> Result<(), Refusal> {
        if self.cancelled {
            return Err(Refusal::Cancelled);
        }
        match self.execs[at].failure_kind {
            None => return Err(Refusal::NotFailed),
            Some("blocked") => return Err(Refusal::Blocked),
            Some(_) => {}
        }
        let mut blocked = BTreeSet::new();
        self.blocked_above(at, &mut blocked)?;
        let exec = &mut self.execs[at];
        (exec.status, exec.failure_kind) = (Status::Created, None);
        (exec.retries, exec.losses, exec.conflicts) = (0, 0, 0);
        for unite in blocked {
            (self.execs[unite].status, self.execs[unite].failure_kind) = (Status::Waiting, None);
        }
        Ok(())
    }

    /// Redrives all failed states, except blocked unites and states that are too late. Returns
    /// how many were retried, and how many came too late. The order does not matter.
    pub fn redrive(&mut self) -> Result<(usize, usize), Refusal> {
        let all: Vec<_> = (0..self.execs.len()).map(|at| self.retry(at)).collect();
        let count = |expected| all.iter().filter(|&&branch| branch == expected).count();
        match (count(Ok(())), count(Err(Refusal::UnitePassed))) {
            _ if self.cancelled => Err(Refusal::Cancelled),
            (0, _) => Err(Refusal::Nothing),
            counts => Ok(counts),
        }
    }

    fn blocked_above(&self, at: usize, blocked: &mut BTreeSet<usize>) -> Result<(), Refusal> {
        for &unite in &self.execs[at].counts_in {
            match (self.execs[unite].status, self.execs[unite].failure_kind) {
                (Status::Waiting, _) => {}
                (Status::Errored, Some("blocked")) => {
                    blocked.insert(unite);
                    self.blocked_above(unite, blocked)?;
                }
                _ => return Err(Refusal::UnitePassed),
            }
        }
        Ok(())
    }

    /// Returns the output of `node` that a state comes from.
    pub fn single(&self, at: usize, node: usize) -> (usize, u32) {
        let is_source = |&ancestor: &usize| self.execs[ancestor].node == node;
        let found = self.lineage(at).find(is_source).unwrap();
        match self.execs[at].steps[self.execs[found].steps.len()] {
            Step::Child(output, _) => (found, output),
            Step::Unite(_) => panic!("a unite of {node} comes from no single output of it"),
        }
    }

    /// Returns the entries that a unite gathers of its source or of a node in its region.
    pub fn gather(&self, unite: usize, node: usize) -> Vec<Entry> {
        let united = self.execs[unite].parent.unwrap();
        if self.execs[united].node == node {
            return (0..self.execs[united].outputs).map(|output| Some((united, output))).collect();
        }
        let mut entries = Vec::new();
        for at in self.members(unite) {
            let exec = &self.execs[at];
            let is_target = exec.node == node;
            match exec.status {
                Status::Success if is_target => {
                    entries.extend((0..exec.outputs).map(|n| Some((at, n))))
                }
                Status::Errored
                    if is_target || self.shape.leaves_gap(&self.graph, exec.node, node) =>
                {
                    entries.push(None);
                }
                _ => {}
            }
        }
        entries
    }

    /// Returns the end of each branch that a unite joins. A branch failed if a failed state in
    /// it counts in this unite or in another one of the same execution. It succeeded if one of
    /// its outputs reached such a unite.
    pub fn branches(&self, unite: usize) -> Vec<Branch> {
        let united = self.execs[unite].parent.unwrap();
        let members = self.members(unite);
        let is_own = |at: usize| {
            let exec = &self.execs[at];
            exec.parent == Some(united) && matches!(exec.steps.last(), Some(Step::Unite(_)))
        };
        // The unites of the same execution that this one waits for, and itself.
        let mut joins: Vec<_> =
            members.iter().filter(|&&at| is_own(at)).map(|&at| self.execs[at].node).collect();
        joins.push(self.execs[unite].node);
        let depth = self.execs[united].steps.len();
        let is_in_branch = |at: usize, branch: u32| match self.execs[at].steps.get(depth) {
            Some(Step::Child(output, _)) => *output == branch,
            _ => false,
        };
        let arrives = |at: usize| {
            let exec = &self.execs[at];
            exec.outputs > 0 && self.graph.nodes[exec.node].next.iter().any(|n| joins.contains(n))
        };
        let status = |branch| {
            let mut states = members.iter().copied().filter(|&at| is_in_branch(at, branch));
            let failed = states.clone().find(|&at| {
                let exec = &self.execs[at];
                exec.status == Status::Errored && exec.counts_in.iter().any(|&w| is_own(w))
            });
            match failed {
                Some(at) => Branch::Errored(at),
                None if arrives(united) || states.any(arrives) => Branch::Success,
                None => Branch::Pruned,
            }
        };
        (0..self.execs[united].outputs).map(status).collect()
    }

    /// Returns all states of a unite's region below the execution that it joins, in path order.
    fn members(&self, unite: usize) -> Vec<usize> {
        let united = self.execs[unite].parent.unwrap();
        let region = &self.shape.region[self.execs[unite].node];
        let mut members: Vec<_> = (0..self.execs.len())
            .filter(|&at| region.contains(&self.execs[at].node))
            .filter(|&at| self.lineage(at).any(|ancestor| ancestor == united))
            .collect();
        members.sort_by(|a, b| self.execs[*a].steps.cmp(&self.execs[*b].steps));
        members
    }
}
