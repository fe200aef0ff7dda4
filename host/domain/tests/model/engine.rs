//! The engine: applies the crate's plans to states in memory, as the store applies them to a
//! database. The deltas of a transaction come first; then unites without open members close,
//! repeatedly, because closing one may close its parent.
//!
//! Not here: decisions, which are the crate's, and hosts, except for their writes.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::{Graph, Node};
use exosphere_domain::ids::{Fence, IdSource, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::json::{FieldSet, PickedFields, read_stored};
use exosphere_domain::limits::Limits;
use exosphere_domain::manual_retry::{EnclosingUnite, RetryError, failed_by_itself, plan_retry};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::path::Path;
use exosphere_domain::plan::{
    Changes, Deltas, NewUnite, Transition, counters, outcome_of_lost_claim, plan, root_state,
};
use exosphere_domain::render::{Ended, Gathered, Member, Sources, branches, gather, render};
use exosphere_domain::state::{
    AttemptCounts, Claim, Claimed, Counter, Counts, NewState, Place, RunStatus, Status,
};
use exosphere_domain::unite::{FailedMember, UniteDecision, blocked_failure, close};
use serde_json::{Map, Value};

use crate::outcomes::ScriptedOutcome;

/// One state, as a database row would have it.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: StateId,
    pub place: Place,
    /// The state's path, as users see it.
    pub key: String,
    pub status: Status,
    pub failure: Option<Failure>,
    pub outputs: Vec<Arc<Value>>,
    /// The unite's own row, if it is a unite.
    pub unite: Option<Unite>,
    /// The inputs of the latest attempt.
    pub inputs: Option<Map<String, Value>>,
    pub attempts: AttemptCounts,
    /// The session that has claimed the state.
    session: Option<SessionId>,
    fence: i64,
    /// True after the host has recorded the begin. Only for suspects.
    begin_recorded: bool,
}

/// The row of a unite.
#[derive(Debug, Clone)]
pub struct Unite {
    /// The counts of the unite's scope.
    pub counts: Counts,
    /// The number of times that it ran; at most once.
    pub closings: u32,
    source: StateId,
    branches: u32,
}

/// The reason why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFailed,
    Blocked,
    UnitePassed,
    Nothing,
    Ended,
    Cancelled,
}

/// A run, with its states in memory.
pub struct Engine {
    /// All states, in the order of their creation.
    pub rows: Vec<Row>,
    /// The counts of the run.
    pub run: Counts,
    pub status: RunStatus,
    pub paused: bool,
    graph: Graph,
    numbers: IdCounter,
    rows_by_id: HashMap<StateId, usize>,
    rows_by_path: HashMap<String, usize>,
    /// Count changes of unites, collected within a transaction.
    counts: BTreeMap<StateId, Counts>,
    drained: Vec<StateId>,
    /// The position of the sweep of the cancelled run.
    swept: Option<Path>,
}

#[derive(Default)]
struct IdCounter(Cell<i64>);

impl IdSource for IdCounter {
    fn next(&self) -> StateId {
        self.0.set(self.0.get() + 1);
        StateId(self.0.get())
    }
}

impl Engine {
    /// Creates a run that has just begun.
    pub fn new(graph: Graph) -> Self {
        let numbers = IdCounter::default();
        let (root, run) = root_state(&graph, &numbers);
        let mut engine = Engine {
            rows: Vec::new(),
            run,
            status: RunStatus::Running,
            paused: false,
            graph,
            numbers,
            rows_by_id: HashMap::new(),
            rows_by_path: HashMap::new(),
            counts: BTreeMap::new(),
            drained: Vec::new(),
            swept: None,
        };
        engine.insert(root, Status::Created, None);
        engine
    }

    /// Returns the states at a node.
    pub fn all(&self, node: &str) -> Vec<&Row> {
        let node = self.graph.find(node).expect("the graph has this node");
        self.rows.iter().filter(|row| row.place.node == node).collect()
    }

    /// Returns the counters of a state's scopes.
    pub fn counters(&self, row: &Row) -> Vec<Counter> {
        counters(&self.graph, &row.place).expect("a state fits its graph")
    }

    fn row(&mut self, id: StateId) -> &mut Row {
        &mut self.rows[self.rows_by_id[&id]]
    }

    fn insert(&mut self, new: NewState, status: Status, unite: Option<Unite>) {
        let NewState { id, place } = new;
        let key = place.path.to_string();
        let at = self.rows.len();
        assert!(self.rows_by_id.insert(id, at).is_none(), "the id of {key} is not unique");
        assert!(self.rows_by_path.insert(key.clone(), at).is_none(), "{key} is created twice");
        self.rows.push(Row {
            id,
            place,
            key,
            status,
            failure: None,
            outputs: Vec::new(),
            unite,
            inputs: None,
            attempts: AttemptCounts::default(),
            session: None,
            fence: 0,
            begin_recorded: false,
        });
    }

    /// Returns the claimable states.
    pub fn claimable(&self) -> Vec<usize> {
        if self.status != RunStatus::Running || self.paused {
            return Vec::new();
        }
        let is_due = |&at: &usize| self.rows[at].status == Status::Created;
        (0..self.rows.len()).filter(is_due).collect()
    }

    /// Claims a created state, and renders its inputs.
    pub fn claim(&mut self, at: usize, session: SessionId) -> Claim {
        let inputs = self.inputs(at);
        let row = &mut self.rows[at];
        assert_eq!(row.status, Status::Created, "a claimed state was not CREATED");
        (row.status, row.session, row.begin_recorded) = (Status::Queued, Some(session), false);
        row.fence += 1;
        row.attempts.attempt += 1;
        row.inputs = Some(inputs);
        Claim { session, fence: Fence(row.fence) }
    }

    /// Returns whether a claim still holds, which guards every write of a host.
    fn is_current(&self, at: usize, claim: Claim) -> bool {
        let row = &self.rows[at];
        self.status == RunStatus::Running
            && row.status == Status::Queued
            && row.session == Some(claim.session)
            && row.fence == claim.fence.0
    }

    /// Begins a claimed state, and records the begin of a suspect. Returns whether the claim holds.
    pub fn record_begin(&mut self, at: usize, claim: Claim) -> bool {
        let is_current = self.is_current(at, claim);
        let row = &mut self.rows[at];
        row.begin_recorded |= is_current && row.attempts.is_poison_suspect();
        is_current
    }

    /// Ends executions in one transaction. Returns for each whether its claim held; without the
    /// claim, nothing has changed.
    pub fn commit(&mut self, batch: &[(usize, Claim, ScriptedOutcome)]) -> Vec<bool> {
        let mut end = |(at, claim, scripted): &(usize, Claim, ScriptedOutcome)| {
            let is_current = self.is_current(*at, *claim);
            if is_current {
                self.end(*at, to_outcome(scripted, &self.rows[*at].key));
            }
            is_current
        };
        let accepted = batch.iter().map(&mut end).collect();
        self.close_unites();
        accepted
    }

    /// Reclaims up to `max` states of a lost host's session in one transaction. Returns them.
    pub fn reclaim(&mut self, session: SessionId, max: usize) -> Vec<usize> {
        if self.status != RunStatus::Running {
            return Vec::new();
        }
        let is_held = |&at: &usize| self.rows[at].session == Some(session);
        let held: Vec<_> = (0..self.rows.len()).filter(is_held).take(max).collect();
        for &at in &held {
            let row = &self.rows[at];
            self.end(at, outcome_of_lost_claim(row.attempts, row.begin_recorded));
        }
        self.close_unites();
        held
    }

    fn end(&mut self, at: usize, outcome: Outcome) {
        let row = &mut self.rows[at];
        assert_eq!(row.status, Status::Queued, "an ending state was not QUEUED");
        let session = row.session.take().expect("a claimed state has a session");
        let claim = Claim { session, fence: Fence(row.fence) };
        let (id, place, attempts) = (row.id, row.place.clone(), row.attempts);
        let claimed = Claimed { id, run: RunKey(1), place, attempts, claim };
        let changes = plan(&self.graph, &claimed, outcome, 0.5, &self.numbers);
        self.apply(at, changes.expect("a state fits its graph"));
    }

    /// Cancels the run: from now on no outcome counts.
    pub fn cancel(&mut self) -> Result<(), Refusal> {
        if self.status != RunStatus::Running {
            return Err(Refusal::Ended);
        }
        self.status = RunStatus::Cancelled;
        Ok(())
    }

    /// Sweeps up to `max` states of the cancelled run, in path order after those of the last
    /// sweep, and ends the open ones. Returns whether more may follow.
    pub fn sweep(&mut self, max: usize) -> bool {
        assert_eq!(self.status, RunStatus::Cancelled, "only a cancelled run is swept");
        let swept = self.swept.as_ref();
        let is_after = |&at: &usize| swept.is_none_or(|swept| self.rows[at].place.path > *swept);
        let mut next: Vec<_> = (0..self.rows.len()).filter(is_after).collect();
        next.sort_by(|a, b| self.rows[*a].place.path.cmp(&self.rows[*b].place.path));
        next.truncate(max);
        for &at in &next {
            let row = &mut self.rows[at];
            if !row.status.is_terminal() {
                (row.status, row.session) = (Status::Cancelled, None);
            }
        }
        if next.len() < max {
            self.run.open = 0;
            return false;
        }
        self.swept = next.last().map(|&at| self.rows[at].place.path.clone());
        true
    }

    fn apply(&mut self, at: usize, changes: Changes) {
        let row = &mut self.rows[at];
        match changes.end {
            Transition::Pruned { .. } => row.status = Status::Pruned,
            Transition::Errored { failure } => {
                (row.status, row.failure) = (Status::Errored, Some(failure));
            }
            Transition::Reschedule { attempts, .. } => {
                (row.status, row.attempts) = (Status::Created, attempts)
            }
            Transition::Success { outputs, children, unites } => {
                row.status = Status::Success;
                let value = |text: &String| read_stored(text).map(Arc::new);
                row.outputs = outputs.iter().map(value).collect::<Result<_, _>>().unwrap();
                for NewUnite { state, source, branches, counts } in unites {
                    if counts.open == 0 {
                        self.drained.push(state.id);
                    }
                    let unite = Unite { counts, closings: 0, source, branches };
                    self.insert(state, Status::Waiting, Some(unite));
                }
                for child in children {
                    self.insert(child, Status::Created, None);
                }
            }
        }
        self.count(changes.counts);
    }

    fn count(&mut self, deltas: Deltas) {
        for (counter, delta) in deltas {
            match counter {
                Counter::Run => self.run += delta,
                Counter::Unite(unite) => *self.counts.entry(unite).or_default() += delta,
            }
        }
    }

    fn close_unites(&mut self) {
        loop {
            let mut drained = std::mem::take(&mut self.drained);
            for (id, delta) in std::mem::take(&mut self.counts) {
                let counts = &mut self.row(id).unite.as_mut().expect("a unite").counts;
                *counts += delta;
                let Counts { open, failed, arrived } = *counts;
                assert!(open >= 0 && failed >= 0 && arrived >= 0, "{id} counts {counts:?}");
                if open == 0 {
                    drained.push(id);
                }
            }
            if drained.is_empty() {
                break;
            }
            drained.into_iter().for_each(|id| self.close(id));
        }
        assert!(self.run.open >= 0 && self.run.failed >= 0, "the run counts {:?}", self.run);
        if self.status != RunStatus::Cancelled {
            self.status = RunStatus::from_counts(self.run.open, self.run.failed);
        }
    }

    fn close(&mut self, id: StateId) {
        let row = self.row(id).clone();
        if row.status != Status::Waiting {
            return;
        }
        let Unite { counts, branches, source, .. } = row.unite.expect("a unite");
        let (closing, deltas) = close(&self.graph, &row.place, counts, branches).expect("it fits");
        let failure = match closing {
            UniteDecision::Block => Some(self.blocked_failure(id, source, counts)),
            UniteDecision::Run | UniteDecision::Prune => None,
        };
        let row = self.row(id);
        row.status = match closing {
            UniteDecision::Run => Status::Created,
            UniteDecision::Prune => Status::Pruned,
            UniteDecision::Block => Status::Errored,
        };
        if let (UniteDecision::Run, Some(unite)) = (closing, &mut row.unite) {
            unite.closings += 1;
            assert_eq!(unite.closings, 1, "{} continues twice", row.key);
        }
        row.failure = failure;
        self.count(deltas);
    }

    fn blocked_failure(&mut self, unite: StateId, source: StateId, counts: Counts) -> Failure {
        let is_member = |row: &&Row| self.counters(row).contains(&Counter::Unite(unite));
        let mut failed: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.status == Status::Errored)
            .filter(is_member)
            .map(|row| FailedMember {
                place: row.place.clone(),
                state: row.key.clone(),
                failure: row.failure.clone().expect("it failed for a reason"),
            })
            .collect();
        assert_eq!(failed.len() as i64, counts.failed, "the failed members differ from the count");
        failed.sort_by(|a, b| a.place.path.cmp(&b.place.path));
        let source_path = self.row(source).place.path.clone();
        blocked_failure(&self.graph, &source_path, counts, &failed)
    }

    /// Retries a state manually, in a transaction of its own.
    pub fn retry(&mut self, at: usize) -> Result<(), Refusal> {
        if self.status == RunStatus::Cancelled {
            return Err(Refusal::Cancelled);
        }
        self.reopen(at)?;
        self.close_unites();
        Ok(())
    }

    /// Redrives all states that failed by themselves, in one transaction. Returns the number of
    /// retried states, and of those that were too late.
    pub fn redrive(&mut self) -> Result<(usize, usize), Refusal> {
        if self.status == RunStatus::Cancelled {
            return Err(Refusal::Cancelled);
        }
        let is_failed = |&at: &usize| failed_by_itself(self.rows[at].status, self.failed(at));
        let mut all: Vec<_> = (0..self.rows.len()).filter(is_failed).collect();
        all.sort_by(|a, b| self.rows[*a].place.path.cmp(&self.rows[*b].place.path));
        let reopened = all.iter().filter(|&&at| self.reopen(at).is_ok()).count();
        if reopened == 0 {
            return Err(Refusal::Nothing);
        }
        self.close_unites();
        Ok((reopened, all.len() - reopened))
    }

    fn failed(&self, at: usize) -> Option<FailureKind> {
        self.rows[at].failure.as_ref().map(|failure| failure.kind)
    }

    fn reopen(&mut self, at: usize) -> Result<(), Refusal> {
        let row = &self.rows[at];
        if !failed_by_itself(row.status, self.failed(at)) {
            let blocked = row.status == Status::Errored;
            return Err(if blocked { Refusal::Blocked } else { Refusal::NotFailed });
        }
        let look_up = |id: StateId| {
            let at = self.rows_by_id[&id];
            let (status, place) = (self.rows[at].status, self.rows[at].place.clone());
            Ok::<_, ()>(EnclosingUnite { status, failed: self.failed(at), place })
        };
        let reopened = match plan_retry(&self.graph, &row.place, look_up) {
            Ok(reopened) => reopened,
            Err(RetryError::UnitePassed { .. }) => return Err(Refusal::UnitePassed),
            Err(error) => panic!("{error:?}"),
        };
        let id = row.id;
        self.reset(id, Status::Created);
        reopened.unites.iter().for_each(|unite| self.reset(*unite, Status::Waiting));
        self.count(reopened.counts);
        Ok(())
    }

    fn reset(&mut self, id: StateId, status: Status) {
        let row = self.row(id);
        assert_eq!(row.status, Status::Errored, "a reopened state was not ERRORED");
        (row.status, row.failure) = (status, None);
        row.attempts = AttemptCounts {
            attempt: row.attempts.attempt,
            requeues: row.attempts.requeues,
            ..AttemptCounts::default()
        };
    }

    /// Renders the inputs of a state from the run's current values.
    pub fn inputs(&self, at: usize) -> Map<String, Value> {
        let row = &self.rows[at];
        let node = self.graph.node(row.place.node);
        let mut sources = Sources::default();
        for &target in node.singles() {
            let from = row.place.refs.iter().find(|from| from.node == target);
            let from =
                from.unwrap_or_else(|| panic!("{} carries no output of {target:?}", row.key));
            let referenced = &self.rows[self.rows_by_id[&from.state]];
            let picked = picked(node, target, &referenced.outputs[from.output as usize]);
            sources.singles.insert(target, picked);
        }
        if let (Some(unites), Some(unite)) = (&node.unites, &row.unite) {
            let source = &self.rows[self.rows_by_id[&unite.source]];
            let source_path = &source.place.path;
            let members = self.members(node, &source.place, &unites.region);
            let to_entry =
                |output: &Arc<Value>| Gathered::Output(picked(node, unites.source, output));
            for &target in node.gathers() {
                let entries = if target == unites.source {
                    source.outputs.iter().map(to_entry).collect()
                } else {
                    gather(&self.graph, target, &members)
                };
                sources.gathers.insert(target, entries);
            }
            let all = branches(&self.graph, row.place.node, source_path, unite.branches, &members);
            sources.branches = Some(all);
        }
        let inputs = render(&self.graph, row.place.node, &sources, 0, &Limits::default());
        inputs.unwrap_or_else(|failure| panic!("the inputs of {}: {failure}", row.key))
    }

    /// Reads the ended states below an execution at some nodes, by a range of paths as the store
    /// does.
    fn members(&self, unite: &Node, source_place: &Place, nodes: &[NodeIx]) -> Vec<Member> {
        let end = source_place.path.end();
        let is_member = |row: &&Row| {
            row.place.path > source_place.path
                && row.place.path.as_str() < end.as_str()
                && nodes.contains(&row.place.node)
        };
        let ended = |row: &Row| {
            let end = match row.status {
                Status::Success => {
                    let outputs = row.outputs.iter();
                    Ended::Success(
                        outputs.map(|output| picked(unite, row.place.node, output)).collect(),
                    )
                }
                Status::Errored => Ended::Failed(row.failure.clone()?),
                _ => return None,
            };
            let (node, path) = (row.place.node, row.place.path.clone());
            Some(Member { node, path, end, outputs: row.outputs.len() as u32 })
        };
        let mut members: Vec<_> = self.rows.iter().filter(is_member).filter_map(ended).collect();
        members.sort_by(|a, b| a.path.cmp(&b.path));
        members
    }
}

/// Returns the fields of an output that a node names.
fn picked(node: &Node, source: NodeIx, output: &Value) -> Arc<PickedFields> {
    let none = FieldSet::default();
    Arc::new(node.fields(source).unwrap_or(&none).pick_from(output))
}

/// Builds the domain's outcome of an execution. Each output names its state.
fn to_outcome(scripted: &ScriptedOutcome, key: &str) -> Outcome {
    match scripted {
        ScriptedOutcome::Outputs(count) => {
            let output = |n| serde_json::json!({"v": format!("{key}#{n}")}).to_string();
            Outcome::Outputs((0..*count).map(output).collect())
        }
        ScriptedOutcome::Prune => Outcome::Prune(None),
        ScriptedOutcome::Requeue => Outcome::RequeueAfter(1),
        ScriptedOutcome::KillsHost => panic!("{key} killed its host and has no outcome"),
        ScriptedOutcome::Released => Outcome::Released,
        ScriptedOutcome::Conflict => Outcome::Conflict,
        ScriptedOutcome::Fail(kind) => {
            let kind = FailureKind::parse(kind).expect("a known failure kind");
            Outcome::Failed(Failure::new(kind, format!("{key} fails")))
        }
    }
}
