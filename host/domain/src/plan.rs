//! From one outcome to what it changes: a pure function. Who applies the
//! changes does so in one transaction, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::{Failure, FailureKind};
use crate::graph::{Graph, Node};
use crate::ids::{Ids, Millis, NodeIx, StateId};
use crate::outcome::Outcome;
use crate::path::Path;
use crate::repeat::floor;
use crate::state::{Claimed, Counter, Counts, NewState, Place, Ref, Scope, Tries};

/// So many hosts lost in succession end a state: it may be what kills them.
pub const MAX_LOSSES: u32 = 10;

/// So many store conflicts in succession become a failure.
pub const MAX_CONFLICTS: u32 = 3;

/// What has come of a state whose host is gone. It may be what ended the host,
/// so it is charged with the loss; but once it was, its next host notes when it
/// begins (see [`Tries::is_suspect`]), and then what was merely held is let off.
pub fn lost(tries: Tries, noted: bool) -> Outcome {
    match tries.is_suspect() && !noted {
        true => Outcome::Released,
        false => Outcome::HostLost,
    }
}

/// What an outcome changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// What becomes of the state itself.
    pub end: End,
    /// What is counted otherwise, for all that is there already.
    pub counts: Deltas,
}

/// Changes of counts, each counter once.
pub type Deltas = BTreeMap<Counter, Counts>;

/// What becomes of a state after one execution.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It is done, and these follow from it.
    Success {
        /// Its outputs, JSON text each.
        outputs: Vec<String>,
        /// What its outputs begin.
        children: Vec<NewState>,
        /// The unites of its node, which wait for all that.
        unites: Vec<NewUnite>,
    },
    /// Its branch ends.
    Pruned {
        /// JSON text, for people.
        data: Option<String>,
    },
    /// It is to run again.
    Again {
        /// How long after the commit, in milliseconds: who commits knows what
        /// time it is, on the clock that all hosts share.
        after: Millis,
        /// How often it has been tried.
        tries: Tries,
        /// Why.
        why: Again,
    },
    /// It has failed for good.
    Errored {
        /// Why.
        failure: Failure,
    },
}

/// Why a state runs again.
#[derive(Debug, Clone, PartialEq)]
pub enum Again {
    /// It asked to.
    Requeued,
    /// It failed and has retries left, its host was lost, or a key it had read
    /// was changed.
    Failed(Failure),
    /// It was claimed and never begun.
    Released,
}

impl End {
    /// Returns how many states it creates.
    pub fn new_states(&self) -> usize {
        match self {
            End::Success { children, unites, .. } => children.len() + unites.len(),
            _ => 0,
        }
    }

    /// Whether the attempt's store writes are kept.
    pub fn keeps_writes(&self) -> bool {
        matches!(
            self,
            End::Success { .. } | End::Pruned { .. } | End::Again { why: Again::Requeued, .. }
        )
    }
}

/// A unite that a commit creates, waiting.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUnite {
    /// The state.
    pub state: NewState,
    /// The execution whose branches it joins.
    pub source: StateId,
    /// How many outputs that had.
    pub branches: u32,
    /// What is counted in it from the first.
    pub counts: Counts,
}

/// A state that does not fit its graph: no transition has written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state at {path} does not fit its graph: it lacks {what}")]
pub struct Misfit {
    path: Path,
    what: String,
}

/// What `outcome` changes. `random` is a uniform number in [0, 1) for the jitter
/// of a retry.
pub fn plan(
    graph: &Graph,
    state: &Claimed,
    outcome: Outcome,
    random: f64,
    ids: &impl Ids,
) -> Result<Changes, Misfit> {
    let tries = state.tries;
    let settled = Tries { losses: 0, conflicts: 0, ..tries };
    let again = |after, tries, why| {
        Ok(Changes { end: End::Again { after, tries, why }, counts: Deltas::new() })
    };
    match outcome {
        Outcome::Outputs(outputs) => succeed(graph, state, outputs, ids),
        Outcome::Prune(data) => end(graph, &state.place, End::Pruned { data }, Counts::ENDED),
        Outcome::RequeueAfter(delay) => {
            let tries = Tries { requeues: tries.requeues.saturating_add(1), ..settled };
            again(delay.max(1).max(floor(&tries)), tries, Again::Requeued)
        }
        Outcome::Released => {
            let tries = Tries { attempt: tries.attempt.saturating_sub(1), ..tries };
            again(0, tries, Again::Released)
        }
        Outcome::HostLost if tries.losses + 1 < MAX_LOSSES => {
            let failure = Failure::new(FailureKind::HostLost, "the host that held it is gone");
            again(0, Tries { losses: tries.losses + 1, ..tries }, Again::Failed(failure))
        }
        Outcome::HostLost => {
            let words = format!("{MAX_LOSSES} hosts were lost in succession that held it");
            let failure = Failure::new(FailureKind::HostLost, words);
            end(graph, &state.place, End::Errored { failure }, Counts::FAILED)
        }
        Outcome::Conflict if tries.conflicts + 1 < MAX_CONFLICTS => {
            let words = "a store key that it had read was changed by another state";
            let failure = Failure::new(FailureKind::Store, words);
            let tries = Tries { conflicts: tries.conflicts + 1, losses: 0, ..tries };
            again(floor(&tries), tries, Again::Failed(failure))
        }
        Outcome::Conflict => {
            let words = format!("{MAX_CONFLICTS} store conflicts in a row");
            fail(graph, state, Failure::new(FailureKind::Store, words), random)
        }
        Outcome::Failed(failure) => fail(graph, state, failure, random),
    }
}

/// How many numbers [`plan`] takes at most.
pub fn numbers_needed(graph: &Graph, state: &Claimed, outcome: &Outcome) -> u64 {
    let Outcome::Outputs(outputs) = outcome else { return 0 };
    let node = graph.node(state.place.node);
    (outputs.len() as u64).saturating_mul(node.next.len() as u64) + node.united_by.len() as u64
}

/// Numbers for the plan of what nothing follows: a failure, a loss, a release.
pub struct NoNumbers;

impl Ids for NoNumbers {
    fn next(&self) -> StateId {
        debug_assert!(false, "something follows");
        StateId(0)
    }
}

/// A failure: again if the policy allows it, the end if not.
fn fail(graph: &Graph, state: &Claimed, failure: Failure, random: f64) -> Result<Changes, Misfit> {
    let policy = &graph.node(state.place.node).retry;
    let tries = Tries { losses: 0, conflicts: 0, ..state.tries };
    if !failure.is_retried() || tries.retries >= policy.max_retries {
        return end(graph, &state.place, End::Errored { failure }, Counts::FAILED);
    }
    let tries = Tries { retries: tries.retries + 1, ..tries };
    let after = policy.delay(tries.retries, random).max(floor(&tries));
    let again = End::Again { after, tries, why: Again::Failed(failure) };
    Ok(Changes { end: again, counts: Deltas::new() })
}

/// The end of a state whose outcome cannot be committed: it fails for good,
/// whatever its policy.
pub fn give_up(graph: &Graph, state: &Claimed, failure: Failure) -> Result<Changes, Misfit> {
    end(graph, &state.place, End::Errored { failure }, Counts::FAILED)
}

/// A terminal end without followers.
fn end(graph: &Graph, place: &Place, end: End, delta: Counts) -> Result<Changes, Misfit> {
    let mut counts = Deltas::new();
    count(graph, place, delta, &mut counts)?;
    Ok(Changes { end, counts })
}

/// Counts `delta` wherever the state at `place` counts.
pub(crate) fn count(
    graph: &Graph,
    place: &Place,
    delta: Counts,
    counts: &mut Deltas,
) -> Result<(), Misfit> {
    for counter in counters(graph, place)? {
        *counts.entry(counter).or_default() += delta;
    }
    Ok(())
}

/// Where the state at `place` counts: in the innermost unites around it, or in
/// the run if there are none.
pub fn counters(graph: &Graph, place: &Place) -> Result<Vec<Counter>, Misfit> {
    let counts_in = &graph.node(place.node).counts_in;
    if counts_in.is_empty() {
        return Ok(vec![Counter::Run]);
    }
    let counter = |&unite| find(graph, &place.path, &place.scopes, unite).map(Counter::Unite);
    counts_in.iter().map(counter).collect()
}

/// The state of the unite among `scopes` whose node is `unite`.
fn find(graph: &Graph, at: &Path, scopes: &[Scope], unite: NodeIx) -> Result<StateId, Misfit> {
    let found = scopes.iter().find(|scope| scope.unite == unite);
    found.map(|scope| scope.state).ok_or_else(|| Misfit {
        path: at.clone(),
        what: format!("its scope {}", graph.node(unite).identifier),
    })
}

/// Outputs: children, the unites that wait for them, and what both count.
fn succeed(
    graph: &Graph,
    state: &Claimed,
    outputs: Vec<String>,
    ids: &impl Ids,
) -> Result<Changes, Misfit> {
    let follow = Followers::of(graph, state, outputs.len() as u32, ids)?;
    let edges = follow.edges()?;
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
    for unite in &follow.unites {
        count(graph, &unite.state.place, Counts::BEGUN, &mut counts)?;
    }
    count(graph, &state.place, Counts::ENDED, &mut counts)?;
    // What counts in a unite that begins here begins with it.
    let mut unites = follow.unites;
    for unite in &mut unites {
        unite.counts = counts.remove(&Counter::Unite(unite.state.id)).unwrap_or_default();
    }
    Ok(Changes { end: End::Success { outputs, children, unites }, counts })
}

/// Where an edge leads.
enum Edge {
    /// Into a unite that waits.
    Into(StateId),
    /// To an ordinary node: a child for each output, all alike but for the
    /// path and the output they come from.
    To { place: Place, counters: Vec<Counter>, from: Option<usize> },
}

/// What follows an execution, before its outputs are looked at.
struct Followers<'a> {
    graph: &'a Graph,
    state: &'a Claimed,
    node: &'a Node,
    unites: Vec<NewUnite>,
    /// The unites around the execution and those that begin with it.
    scopes: Vec<Scope>,
}

impl<'a> Followers<'a> {
    fn of(
        graph: &'a Graph,
        state: &'a Claimed,
        branches: u32,
        ids: &impl Ids,
    ) -> Result<Self, Misfit> {
        let node = graph.node(state.place.node);
        let begun: Vec<_> =
            node.united_by.iter().map(|&unite| Scope { unite, state: ids.next() }).collect();
        let scopes = state.place.scopes.iter().copied().chain(begun.iter().copied()).collect();
        let mut all = Followers { graph, state, node, unites: Vec::new(), scopes };
        all.unites = begun
            .iter()
            .map(|scope| {
                let path = state.place.path.unite(scope.unite);
                Ok(NewUnite {
                    state: NewState { id: scope.state, place: all.place(scope.unite, path)?.0 },
                    source: state.id,
                    branches,
                    counts: Counts::default(),
                })
            })
            .collect::<Result<_, Misfit>>()?;
        Ok(all)
    }

    fn edges(&self) -> Result<Vec<Edge>, Misfit> {
        let edge = |&to: &NodeIx| {
            if self.graph.node(to).unites.is_some() {
                return self.scope(to).map(Edge::Into);
            }
            let (place, from) = self.place(to, Path::root())?;
            Ok(Edge::To { counters: counters(self.graph, &place)?, place, from })
        };
        self.node.next.iter().map(edge).collect()
    }

    /// The place of a follower at `node`, and where in its refs the output
    /// stands that it comes from, if it carries that at all.
    fn place(&self, node: NodeIx, path: Path) -> Result<(Place, Option<usize>), Misfit> {
        let target = self.graph.node(node);
        let here = self.state.place.node;
        let known = |node: &NodeIx| match *node == here {
            true => Ok(Ref { node: here, state: self.state.id, output: 0 }),
            false => self.known(*node),
        };
        let refs = target.carries.iter().map(known).collect::<Result<_, _>>()?;
        let from = target.carries.iter().position(|node| *node == here);
        let scopes = target
            .scopes
            .iter()
            .map(|&unite| Ok(Scope { unite, state: self.scope(unite)? }))
            .collect::<Result<_, Misfit>>()?;
        Ok((Place { node, path, refs, scopes }, from))
    }

    fn known(&self, node: NodeIx) -> Result<Ref, Misfit> {
        let refs = &self.state.place.refs;
        refs.iter().find(|known| known.node == node).copied().ok_or_else(|| Misfit {
            path: self.state.place.path.clone(),
            what: format!("an output of {}", self.graph.node(node).identifier),
        })
    }

    fn scope(&self, unite: NodeIx) -> Result<StateId, Misfit> {
        find(self.graph, &self.state.place.path, &self.scopes, unite)
    }
}

/// The first state of a run, and what the run counts from the first.
pub fn begin(graph: &Graph, ids: &impl Ids) -> (NewState, Counts) {
    let place =
        Place { node: graph.root(), path: Path::root(), refs: Vec::new(), scopes: Arc::from([]) };
    (NewState { id: ids.next(), place }, Counts::BEGUN)
}

#[cfg(test)]
mod tests;
