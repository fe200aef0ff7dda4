//! Transitions: a pure function from one outcome to the changes that it makes.
//! The caller applies all changes in one transaction, or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::{Failure, FailureKind};
use crate::graph::{Graph, Node};
use crate::ids::{IdSource, Millis, NodeIx, StateId};
use crate::outcome::{AttemptOutcome, Outcome};
use crate::path::Path;
use crate::repeat::floor;
use crate::state::{AttemptCounts, Claimed, Counter, Counts, NewState, Place, Ref, Scope};

/// The number of hosts lost in succession after which a state fails, because it
/// may be a poison state.
pub const MAX_LOSSES: u32 = 10;

/// The number of store conflicts in succession after which a state fails.
pub const MAX_CONFLICTS: u32 = 3;

/// Returns the outcome of a state whose host died. The state may be a poison state that ended
/// the host, so it is charged with the loss. After its first loss, the next host records when
/// it begins the state (see [`AttemptCounts::is_poison_suspect`]). From then on, a state that
/// was claimed and not begun is not charged.
pub fn outcome_of_lost_claim(attempts: AttemptCounts, has_begun: bool) -> Outcome {
    if attempts.is_poison_suspect() && !has_begun { Outcome::Released } else { Outcome::HostLost }
}

/// The changes that an outcome makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The end of the state's execution.
    pub end: Transition,
    /// Changes of existing counters.
    pub counts: Deltas,
}

/// Changes of counters, one entry per counter.
pub type Deltas = BTreeMap<Counter, Counts>;

/// The end of one execution of a state.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// The execution succeeded, with these outputs and successors.
    Success {
        /// The outputs, each as JSON text.
        outputs: Vec<String>,
        /// The states that the outputs create.
        children: Vec<NewState>,
        /// The unites of the state's node, which wait for all these states.
        unites: Vec<NewUnite>,
    },
    /// The state is pruned: its branch ends.
    Pruned {
        /// JSON text for people.
        data: Option<String>,
    },
    /// The state is to run again.
    Reschedule {
        /// The delay after the commit, in milliseconds: the committer knows the
        /// time on the clock that all hosts share.
        after: Millis,
        /// The counters of the state's attempts.
        attempts: AttemptCounts,
        /// The reason why the state runs again.
        reason: RescheduleReason,
    },
    /// The state has failed for good.
    Errored {
        /// The failure that ended the state.
        failure: Failure,
    },
}

/// The reason why a state runs again.
#[derive(Debug, Clone, PartialEq)]
pub enum RescheduleReason {
    /// The state requeued itself.
    Requeued,
    /// The state failed and has retries left, its host died, or another state
    /// changed a key that it had read.
    Failed(Failure),
    /// The state was claimed and never begun.
    Released,
}

impl Transition {
    /// Returns the number of states that this end creates.
    pub fn new_states(&self) -> usize {
        match self {
            Transition::Success { children, unites, .. } => children.len() + unites.len(),
            _ => 0,
        }
    }

    /// Returns the outcome of the attempt, and its failure; `None` if it never
    /// ran.
    pub fn attempt(&self) -> Option<(AttemptOutcome, Option<&Failure>)> {
        match self {
            Transition::Success { .. } => Some((AttemptOutcome::Success, None)),
            Transition::Pruned { .. } => Some((AttemptOutcome::Pruned, None)),
            Transition::Reschedule { reason: RescheduleReason::Requeued, .. } => {
                Some((AttemptOutcome::Requeued, None))
            }
            Transition::Reschedule { reason: RescheduleReason::Failed(failure), .. }
            | Transition::Errored { failure } => Some((AttemptOutcome::Errored, Some(failure))),
            Transition::Reschedule { reason: RescheduleReason::Released, .. } => None,
        }
    }

    /// Returns the same end with the time of the claim, if it is the loss of a host.
    pub fn with_claim_time(self, claimed_at: Option<Millis>) -> Self {
        match self {
            Transition::Reschedule {
                after,
                attempts,
                reason: RescheduleReason::Failed(failure),
            } => {
                let reason = RescheduleReason::Failed(failure.with_claim_time(claimed_at));
                Transition::Reschedule { after, attempts, reason }
            }
            Transition::Errored { failure } => {
                Transition::Errored { failure: failure.with_claim_time(claimed_at) }
            }
            other => other,
        }
    }

    /// Returns whether the attempt's store writes are kept.
    pub fn keeps_writes(&self) -> bool {
        matches!(
            self,
            Transition::Success { .. }
                | Transition::Pruned { .. }
                | Transition::Reschedule { reason: RescheduleReason::Requeued, .. }
        )
    }
}

/// A waiting unite that a commit creates.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUnite {
    /// The unite's state.
    pub state: NewState,
    /// The execution whose branches it joins.
    pub source: StateId,
    /// Number of outputs of that execution.
    pub branches: u32,
    /// The initial counters.
    pub counts: Counts,
}

/// A state that does not fit its graph: no transition has written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state at {path} does not fit its graph: it lacks {missing}")]
pub struct GraphMismatch {
    path: Path,
    missing: String,
}

/// Plans the changes that `outcome` makes. `random` is uniform in [0, 1), for
/// the jitter of a retry.
pub fn plan(
    graph: &Graph,
    state: &Claimed,
    outcome: Outcome,
    random: f64,
    ids: &impl IdSource,
) -> Result<Changes, GraphMismatch> {
    let attempts = state.attempts;
    let reset = AttemptCounts { host_losses: 0, conflicts: 0, ..attempts };
    let reschedule = |after, attempts, reason| {
        Ok(Changes {
            end: Transition::Reschedule { after, attempts, reason },
            counts: Deltas::new(),
        })
    };
    match outcome {
        Outcome::Outputs(outputs) => succeed(graph, state, outputs, ids),
        Outcome::Prune(data) => {
            end(graph, &state.place, Transition::Pruned { data }, Counts::ENDED)
        }
        Outcome::RequeueAfter(delay) => {
            let attempts = AttemptCounts { requeues: attempts.requeues.saturating_add(1), ..reset };
            reschedule(delay.max(1).max(floor(&attempts)), attempts, RescheduleReason::Requeued)
        }
        Outcome::Released => {
            let attempts =
                AttemptCounts { attempt: attempts.attempt.saturating_sub(1), ..attempts };
            reschedule(0, attempts, RescheduleReason::Released)
        }
        Outcome::HostLost if attempts.host_losses + 1 < MAX_LOSSES => {
            let failure = Failure::new(FailureKind::HostLost, "the host that held it is gone");
            reschedule(
                0,
                AttemptCounts { host_losses: attempts.host_losses + 1, ..attempts },
                RescheduleReason::Failed(failure),
            )
        }
        Outcome::HostLost => {
            let message = format!("{MAX_LOSSES} hosts were lost in succession that held it");
            let failure = Failure::new(FailureKind::HostLost, message);
            end(graph, &state.place, Transition::Errored { failure }, Counts::FAILED)
        }
        Outcome::Conflict if attempts.conflicts + 1 < MAX_CONFLICTS => {
            let message = "a store key that it had read was changed by another state";
            let failure = Failure::new(FailureKind::Store, message);
            let attempts =
                AttemptCounts { conflicts: attempts.conflicts + 1, host_losses: 0, ..attempts };
            reschedule(floor(&attempts), attempts, RescheduleReason::Failed(failure))
        }
        Outcome::Conflict => {
            let message = format!("{MAX_CONFLICTS} store conflicts in a row");
            fail(graph, state, Failure::new(FailureKind::Store, message), random)
        }
        Outcome::Failed(failure) => fail(graph, state, failure, random),
    }
}

/// Returns the maximum number of ids that [`plan`] takes.
pub fn ids_needed(graph: &Graph, state: &Claimed, outcome: &Outcome) -> u64 {
    let Outcome::Outputs(outputs) = outcome else { return 0 };
    let node = graph.node(state.place.node);
    (outputs.len() as u64).saturating_mul(node.next.len() as u64) + node.united_by.len() as u64
}

/// An id source for plans that create no states: a failure, a loss, a release.
pub struct NoIds;

impl IdSource for NoIds {
    fn next(&self) -> StateId {
        debug_assert!(false, "something follows");
        StateId(0)
    }
}

/// Plans a failure: a retry if the policy allows it, else a final failure.
fn fail(
    graph: &Graph,
    state: &Claimed,
    failure: Failure,
    random: f64,
) -> Result<Changes, GraphMismatch> {
    let policy = &graph.node(state.place.node).retry;
    let attempts = AttemptCounts { host_losses: 0, conflicts: 0, ..state.attempts };
    if !failure.is_retried() || attempts.retries >= policy.max_retries {
        return end(graph, &state.place, Transition::Errored { failure }, Counts::FAILED);
    }
    let attempts = AttemptCounts { retries: attempts.retries + 1, ..attempts };
    let after = policy.delay(attempts.retries, random).max(floor(&attempts));
    let reschedule =
        Transition::Reschedule { after, attempts, reason: RescheduleReason::Failed(failure) };
    Ok(Changes { end: reschedule, counts: Deltas::new() })
}

/// Plans the end of a state whose outcome cannot be committed: it fails for
/// good, regardless of its retry policy.
pub fn fail_permanently(
    graph: &Graph,
    state: &Claimed,
    failure: Failure,
) -> Result<Changes, GraphMismatch> {
    end(graph, &state.place, Transition::Errored { failure }, Counts::FAILED)
}

/// Plans a terminal end that creates no states.
fn end(
    graph: &Graph,
    place: &Place,
    end: Transition,
    delta: Counts,
) -> Result<Changes, GraphMismatch> {
    let mut counts = Deltas::new();
    count(graph, place, delta, &mut counts)?;
    Ok(Changes { end, counts })
}

/// Adds `delta` to every counter that counts the state at `place`.
pub(crate) fn count(
    graph: &Graph,
    place: &Place,
    delta: Counts,
    counts: &mut Deltas,
) -> Result<(), GraphMismatch> {
    for counter in counters(graph, place)? {
        *counts.entry(counter).or_default() += delta;
    }
    Ok(())
}

/// Returns the counters of the state at `place`: those of the innermost unites
/// around it, or the run's if there are none.
pub fn counters(graph: &Graph, place: &Place) -> Result<Vec<Counter>, GraphMismatch> {
    let counts_in = &graph.node(place.node).counts_in;
    if counts_in.is_empty() {
        return Ok(vec![Counter::Run]);
    }
    let counter =
        |&unite| scope_state(graph, &place.path, &place.scopes, unite).map(Counter::Unite);
    counts_in.iter().map(counter).collect()
}

/// Returns the state of the unite among `scopes` whose node is `unite`.
fn scope_state(
    graph: &Graph,
    at: &Path,
    scopes: &[Scope],
    unite: NodeIx,
) -> Result<StateId, GraphMismatch> {
    let found = scopes.iter().find(|scope| scope.unite == unite);
    found.map(|scope| scope.state).ok_or_else(|| GraphMismatch {
        path: at.clone(),
        missing: format!("its scope {}", graph.node(unite).identifier),
    })
}

/// Plans a success: children, the unites that wait for them, and the changes of
/// the counters.
fn succeed(
    graph: &Graph,
    state: &Claimed,
    outputs: Vec<String>,
    ids: &impl IdSource,
) -> Result<Changes, GraphMismatch> {
    let successors = Successors::new(graph, state, outputs.len() as u32, ids)?;
    let edges = successors.edges()?;
    let mut children = Vec::with_capacity(outputs.len() * edges.len());
    let mut counts = Deltas::new();
    for (edge, target) in edges.iter().enumerate() {
        match target {
            Edge::Into(unite) => {
                counts.entry(Counter::Unite(*unite)).or_default().arrived += outputs.len() as i64;
            }
            Edge::To { place, counters, from } => {
                for counter in counters {
                    counts.entry(*counter).or_default().open += outputs.len() as i64;
                }
                for output in 0..outputs.len() as u32 {
                    let path = state.place.path.child(output, edge as u32);
                    let mut place = Place { path, ..place.clone() };
                    if let Some(at) = from {
                        place.refs[*at].output = output;
                    }
                    children.push(NewState { id: ids.next(), place });
                }
            }
        }
    }
    for unite in &successors.unites {
        count(graph, &unite.state.place, Counts::BEGUN, &mut counts)?;
    }
    count(graph, &state.place, Counts::ENDED, &mut counts)?;
    // A new unite's counters start with the members that begin with it.
    let mut unites = successors.unites;
    for unite in &mut unites {
        unite.counts = counts.remove(&Counter::Unite(unite.state.id)).unwrap_or_default();
    }
    Ok(Changes { end: Transition::Success { outputs, children, unites }, counts })
}

/// The target of an edge.
enum Edge {
    /// A waiting unite.
    Into(StateId),
    /// An ordinary node, with a child for each output. The children differ only
    /// in their path and the output from which they come.
    To { place: Place, counters: Vec<Counter>, from: Option<usize> },
}

/// The successors of an execution, before its outputs are read.
struct Successors<'a> {
    graph: &'a Graph,
    state: &'a Claimed,
    node: &'a Node,
    unites: Vec<NewUnite>,
    /// The unites around the execution and those that begin with it.
    scopes: Vec<Scope>,
}

impl<'a> Successors<'a> {
    fn new(
        graph: &'a Graph,
        state: &'a Claimed,
        branches: u32,
        ids: &impl IdSource,
    ) -> Result<Self, GraphMismatch> {
        let node = graph.node(state.place.node);
        let opened: Vec<_> =
            node.united_by.iter().map(|&unite| Scope { unite, state: ids.next() }).collect();
        let scopes = state.place.scopes.iter().copied().chain(opened.iter().copied()).collect();
        let mut all = Successors { graph, state, node, unites: Vec::new(), scopes };
        all.unites = opened
            .iter()
            .map(|scope| {
                let path = state.place.path.unite(scope.unite);
                Ok(NewUnite {
                    state: NewState {
                        id: scope.state,
                        place: all.successor_place(scope.unite, path)?.0,
                    },
                    source: state.id,
                    branches,
                    counts: Counts::default(),
                })
            })
            .collect::<Result<_, GraphMismatch>>()?;
        Ok(all)
    }

    fn edges(&self) -> Result<Vec<Edge>, GraphMismatch> {
        let edge = |&to: &NodeIx| {
            if self.graph.node(to).unites.is_some() {
                return self.scope(to).map(Edge::Into);
            }
            let (place, from) = self.successor_place(to, Path::root())?;
            Ok(Edge::To { counters: counters(self.graph, &place)?, place, from })
        };
        self.node.next.iter().map(edge).collect()
    }

    /// Returns the place of a successor at `node`. Also returns the index in its refs of the
    /// output that creates it, if its node carries that output.
    fn successor_place(
        &self,
        node: NodeIx,
        path: Path,
    ) -> Result<(Place, Option<usize>), GraphMismatch> {
        let target = self.graph.node(node);
        let here = self.state.place.node;
        let known = |node: &NodeIx| {
            if *node == here {
                Ok(Ref { node: here, state: self.state.id, output: 0 })
            } else {
                self.known_output(*node)
            }
        };
        let refs = target.carries.iter().map(known).collect::<Result<_, _>>()?;
        let from = target.carries.iter().position(|node| *node == here);
        let scopes = target
            .scopes
            .iter()
            .map(|&unite| Ok(Scope { unite, state: self.scope(unite)? }))
            .collect::<Result<_, GraphMismatch>>()?;
        Ok((Place { node, path, refs, scopes }, from))
    }

    fn known_output(&self, node: NodeIx) -> Result<Ref, GraphMismatch> {
        let refs = &self.state.place.refs;
        refs.iter().find(|known| known.node == node).copied().ok_or_else(|| GraphMismatch {
            path: self.state.place.path.clone(),
            missing: format!("an output of {}", self.graph.node(node).identifier),
        })
    }

    fn scope(&self, unite: NodeIx) -> Result<StateId, GraphMismatch> {
        scope_state(self.graph, &self.state.place.path, &self.scopes, unite)
    }
}

/// Returns the first state of a run, and the run's initial counters.
pub fn root_state(graph: &Graph, ids: &impl IdSource) -> (NewState, Counts) {
    let place =
        Place { node: graph.root(), path: Path::root(), refs: Vec::new(), scopes: Arc::from([]) };
    (NewState { id: ids.next(), place }, Counts::BEGUN)
}

#[cfg(test)]
mod tests;
