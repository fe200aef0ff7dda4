//! Engine and reference model in lockstep: the same graph, outcomes and faults, compared after each
//! step.
//!
//! Not here: the order of the steps, and the hosts (`simulation`).

use std::collections::BTreeMap;

use exosphere_domain::graph::{Graph as RealGraph, Problem};
use exosphere_domain::ids::Digest;
use exosphere_domain::state::{RunStatus, Status};
use serde_json::{Map, Value, json};

use crate::engine::{self, Engine, Row};
use crate::outcomes::ScriptedOutcome;
use crate::reference::{Branch, Entry, Exec, Refusal, Run};
use crate::shape::{Graph, MaxFailed, Shape, Strategy};
use crate::simulation::{HostClaim, Hosts};

/// Builds the crate's graph of the same shape. The inputs of a node name all its single references;
/// those of a unite also name all that it can gather, and its branches.
pub fn domain_graph(graph: &Graph) -> Result<RealGraph, Vec<Problem>> {
    let shape = Shape::from_graph(graph);
    let name = |at: usize| graph.nodes[at].name.clone();
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let mut gathers: Vec<_> = shape.region[at].iter().copied().collect();
            gathers.extend(node.unites.as_ref().map(|unites| unites.source));
            let named: Vec<_> = node.singles.iter().copied().chain(gathers).collect();
            let input = |at| (name(at), json!(format!("${{{{ {}.outputs.v }}}}", name(at))));
            let mut json = json!({
                "node_name": "any",
                "identifier": node.name,
                "plugin": "any",
                "digest": Digest::from_content(b"any"),
                "inputs": named.into_iter().map(input).collect::<Map<_, _>>(),
                "next_nodes": node.next.iter().map(|&next| name(next)).collect::<Vec<_>>(),
                "retry_policy": {"max_retries": node.max_retries},
            });
            if let Some(unites) = &node.unites {
                json["inputs"]["branches"] = json!("${{ unite.branches }}");
                json["unites"] = json!({
                    "identifier": name(unites.source),
                    "on_empty": if unites.run_when_empty { "RUN" } else { "PRUNE" },
                });
                let (strategy, max_failed) = match unites.strategy {
                    Strategy::AllSuccess => ("ALL_SUCCESS", Value::Null),
                    Strategy::AllDone(MaxFailed::Any) => ("ALL_DONE", Value::Null),
                    Strategy::AllDone(MaxFailed::Count(max)) => ("ALL_DONE", json!(max)),
                    Strategy::AllDone(MaxFailed::Percent(max)) => {
                        ("ALL_DONE", json!(format!("{max}%")))
                    }
                };
                json["unites"]["strategy"] = json!(strategy);
                json["unites"]["max_failed"] = max_failed;
            }
            json
        })
        .collect();
    RealGraph::from_json(&json!({ "nodes": nodes }))
}

/// The end of a state: its node, status and reason of failure, its retries and requeues, and its
/// inputs.
pub type End = (u32, Status, Option<String>, (u32, u32), Option<Map<String, Value>>);

/// The end of a run: the end of each state by its path.
pub type Ending = BTreeMap<String, End>;

/// Returns the outcome of an execution, by the node's name, the state's path and the number of
/// earlier outcomes.
pub type OutcomeSource = Box<dyn Fn(&str, &str, u32) -> ScriptedOutcome>;

/// The engine and the reference model of one run.
pub struct Lockstep {
    /// The engine, which uses the crate.
    pub engine: Engine,
    /// The reference model of the same run.
    pub reference: Run,
    /// The graph of both.
    pub graph: Graph,
    /// The hosts that work on the run.
    pub hosts: Hosts,
    /// The number of events by kind.
    pub events: BTreeMap<&'static str, usize>,
    /// The reference's index of each row of the engine.
    pub reference_indices: Vec<usize>,
    /// True after the sweep of the cancelled run has ended.
    pub swept: bool,
    /// The number of outcomes of each row so far.
    pub outcome_counts: Vec<u32>,
    outcomes: OutcomeSource,
    /// The states that had ended when the run was cancelled, and the number of states then.
    ended_before_cancel: Option<(BTreeMap<usize, String>, usize)>,
}

impl Lockstep {
    /// Creates a run that has just begun.
    pub fn new(graph: &Graph, outcomes: OutcomeSource) -> Self {
        let domain_graph =
            domain_graph(graph).unwrap_or_else(|problems| panic!("{graph:?}: {problems:#?}"));
        let mut lockstep = Lockstep {
            engine: Engine::new(domain_graph),
            reference: Run::new(graph),
            graph: graph.clone(),
            hosts: Hosts::new(),
            events: BTreeMap::new(),
            reference_indices: Vec::new(),
            swept: false,
            outcomes,
            outcome_counts: Vec::new(),
            ended_before_cancel: None,
        };
        lockstep.compare();
        lockstep
    }

    /// Counts an event.
    pub fn count_event(&mut self, event: &'static str) {
        *self.events.entry(event).or_insert(0) += 1;
    }

    /// Counts an event if it has happened.
    pub fn count_event_if(&mut self, condition: bool, event: &'static str) {
        if condition {
            self.count_event(event);
        }
    }

    /// Draws the outcome of a state's next execution.
    pub fn next_outcome(&self, at: usize) -> ScriptedOutcome {
        let row = &self.engine.rows[at];
        (self.outcomes)(
            &self.graph.nodes[row.place.node.at()].name,
            &row.key,
            self.outcome_counts[at],
        )
    }

    /// Commits executions in one transaction. A claim that no longer holds changes nothing.
    pub fn commit(&mut self, holds: &[HostClaim]) {
        let with_outcome = |hold: &HostClaim| (hold.at, hold.claim, self.next_outcome(hold.at));
        let batch: Vec<_> = holds.iter().map(with_outcome).collect();
        let accepted = self.engine.commit(&batch);
        for ((hold, (at, _, outcome)), taken) in holds.iter().zip(batch).zip(accepted) {
            let expected = self.reference.apply(self.reference_indices[at], hold.ticket, &outcome);
            let key = &self.engine.rows[at].key;
            assert_eq!(taken, expected, "whether the outcome of {key} is taken");
            match (taken, self.engine.status) {
                (true, _) => self.outcome_counts[at] += 1,
                (false, RunStatus::Cancelled) => self.count_event("outcomes after a cancel"),
                (false, _) => self.count_event("late outcomes refused"),
            }
        }
    }

    /// Retries a state manually.
    pub fn retry(&mut self, at: usize) -> Result<(), Refusal> {
        let actual = self.engine.retry(at).map_err(refusal);
        let expected = self.reference.retry(self.reference_indices[at]);
        assert_eq!(actual, expected, "the retry of {}", self.engine.rows[at].key);
        actual
    }

    /// Redrives the run: retries all failed states manually.
    pub fn redrive(&mut self) -> Result<(usize, usize), Refusal> {
        let actual = self.engine.redrive().map_err(refusal);
        assert_eq!(actual, self.reference.redrive(), "the redrive");
        actual
    }

    /// Pauses the run, or resumes it.
    pub fn pause(&mut self, paused: bool) {
        self.engine.paused = paused;
        self.reference.paused = paused;
    }

    /// Cancels the run. Ended states must stay as they are.
    pub fn cancel(&mut self) -> Result<(), Refusal> {
        let actual = self.engine.cancel().map_err(refusal);
        assert_eq!(actual, self.reference.cancel(), "the cancel");
        if actual.is_ok() {
            let rows = self.engine.rows.iter().enumerate();
            let ended = rows.filter(|(_, row)| row.status.is_terminal());
            let ended = ended.map(|(at, row)| (at, format!("{row:?}"))).collect();
            self.ended_before_cancel = Some((ended, self.engine.rows.len()));
        }
        actual
    }

    /// Asserts that engine and reference are in the same state.
    pub fn compare(&mut self) {
        self.pair_new_states();
        for (row, &twin) in self.engine.rows.iter().zip(&self.reference_indices) {
            compare_state(row, &self.reference.execs[twin]);
        }
        assert_eq!(self.engine.status.as_str(), self.reference.status().as_str(), "the run");
    }

    /// Pairs each new state with its twin, and asserts that none is left over.
    fn pair_new_states(&mut self) {
        let new = self.reference_indices.len();
        let known: BTreeMap<&str, usize> = self.reference.execs[new..]
            .iter()
            .zip(new..)
            .map(|(exec, at)| (exec.key.as_str(), at))
            .collect();
        for row in &self.engine.rows[new..] {
            let twin = known.get(row.key.as_str()).copied();
            let twin = twin.unwrap_or_else(|| panic!("the reference has no state {}", row.key));
            let node = self.reference.execs[twin].node;
            assert_eq!(row.place.node.at(), node, "the node of {}", row.key);
            self.reference_indices.push(twin);
            self.outcome_counts.push(0);
        }
        assert_eq!(self.reference_indices.len(), self.reference.execs.len(), "states are missing");
    }

    /// Asserts that both ended alike: inputs, reasons, counters, ends.
    pub fn compare_end(&self) {
        assert_ne!(self.engine.status, RunStatus::Running, "the run hangs");
        assert_eq!(self.engine.run.open, 0);
        assert_eq!(self.engine.run.failed, i64::from(self.reference.failed(None)));
        for (at, (row, &twin)) in self.engine.rows.iter().zip(&self.reference_indices).enumerate() {
            let exec = &self.reference.execs[twin];
            assert!(row.status.is_terminal(), "{} is left {}", row.key, row.status);
            let failure_kind = row.failure.as_ref().map(|failure| failure.kind.as_str());
            assert_eq!(failure_kind, exec.failure_kind, "why {} failed", row.key);
            if self.ended_before_cancel.is_none() {
                self.recount(row, twin);
            }
            if let Some(inputs) = &row.inputs {
                assert_eq!(inputs, &self.inputs(twin), "the inputs of {}", row.key);
                assert_eq!(inputs, &self.engine.inputs(at), "the inputs of {} changed", row.key);
            }
        }
        self.compare_cancelled();
    }

    /// Asserts that a unite's counts match the reference's. Not called for a cancelled run, whose
    /// sweep leaves them stale: no decision depends on them any more.
    fn recount(&self, row: &Row, twin: usize) {
        let Some(unite) = &row.unite else { return };
        let counts = (unite.counts.open, unite.counts.failed, unite.counts.arrived);
        let recount = (
            i64::from(self.reference.open(Some(twin))),
            i64::from(self.reference.failed(Some(twin))),
            i64::from(self.reference.arrived(twin)),
        );
        assert_eq!(counts, recount, "the counts of {}", row.key);
    }

    /// Asserts that the cancel changed no ended state, and ended all others.
    fn compare_cancelled(&self) {
        let Some((ended, states)) = &self.ended_before_cancel else { return };
        assert_eq!(self.engine.status, RunStatus::Cancelled);
        assert_eq!(self.engine.rows.len(), *states, "a cancelled run has grown");
        for (at, row) in self.engine.rows.iter().enumerate() {
            match ended.get(&at) {
                Some(ended) => assert_eq!(ended, &format!("{row:?}"), "it had ended"),
                None => assert_eq!(row.status, Status::Cancelled, "{} was open", row.key),
            }
        }
    }

    /// Returns the inputs that a state must have.
    fn inputs(&self, twin: usize) -> Map<String, Value> {
        let exec = &self.reference.execs[twin];
        let node = &self.graph.nodes[exec.node];
        let text = |(at, n): (usize, u32)| format!("{}#{n}", self.reference.execs[at].key);
        let entry = |entry: Entry| json!(entry.map(text));
        let mut inputs = Map::new();
        for &single in &node.singles {
            let value = json!(text(self.reference.single(twin, single)));
            inputs.insert(self.graph.nodes[single].name.clone(), value);
        }
        let Some(unites) = &node.unites else { return inputs };
        let shape = Shape::from_graph(&self.graph);
        for &target in shape.region[exec.node].iter().chain([&unites.source]) {
            let entries = self.reference.gather(twin, target).into_iter().map(entry);
            inputs.insert(self.graph.nodes[target].name.clone(), entries.collect());
        }
        let branches = self.reference.branches(twin).into_iter().enumerate();
        let branches: Vec<_> = branches.map(|(at, branch)| self.branch(at, &branch)).collect();
        inputs.insert("branches".into(), json!(branches));
        inputs
    }

    fn branch(&self, index: usize, branch: &Branch) -> Value {
        let (status, error) = match branch {
            Branch::Success => ("SUCCESS", Value::Null),
            Branch::Pruned => ("PRUNED", Value::Null),
            Branch::Errored(at) => {
                let exec = &self.reference.execs[*at];
                let twin = self
                    .reference_indices
                    .iter()
                    .position(|twin| twin == at)
                    .expect("it has a twin");
                // The message's words are the crate's own; only the failed states that it names are
                // compared.
                let message = self.engine.rows[twin].failure.as_ref().map(|f| &f.message);
                let identifier = &self.graph.nodes[exec.node].name;
                (
                    "ERRORED",
                    json!({"identifier": identifier, "kind": exec.failure_kind, "message": message}),
                )
            }
        };
        json!({"index": index, "status": status, "error": error})
    }

    /// Returns the end of the run.
    pub fn ending(&self) -> Ending {
        let ending = |row: &Row| {
            let failure_kind = row.failure.as_ref().map(|failure| failure.to_string());
            let repeats = (row.attempts.retries, row.attempts.requeues);
            (
                row.key.clone(),
                (row.place.node.0, row.status, failure_kind, repeats, row.inputs.clone()),
            )
        };
        self.engine.rows.iter().map(ending).collect()
    }
}

/// Asserts that a state matches the reference.
fn compare_state(row: &Row, exec: &Exec) {
    let status = match row.status {
        // The reference stores the holder of a state separately from its status.
        Status::Queued => Status::Created.as_str(),
        status => status.as_str(),
    };
    assert_eq!(status, exec.status.as_str(), "{} at {}", row.key, row.place.node.0);
    let is_held = row.status == Status::Queued;
    assert_eq!(is_held, exec.held.is_some(), "whether {} is held", row.key);
    // An end leaves the counters as they were before it.
    if !row.status.is_terminal() {
        let attempts = row.attempts;
        let actual = (attempts.attempt, attempts.retries, attempts.host_losses, attempts.conflicts);
        let expected = (exec.attempts, exec.retries, exec.losses, exec.conflicts);
        assert_eq!(actual, expected, "attempt, retries, losses and conflicts of {}", row.key);
    }
}

fn refusal(refusal: engine::Refusal) -> Refusal {
    match refusal {
        engine::Refusal::NotFailed => Refusal::NotFailed,
        engine::Refusal::Blocked => Refusal::Blocked,
        engine::Refusal::UnitePassed => Refusal::UnitePassed,
        engine::Refusal::Nothing => Refusal::Nothing,
        engine::Refusal::Ended => Refusal::Ended,
        engine::Refusal::Cancelled => Refusal::Cancelled,
    }
}
