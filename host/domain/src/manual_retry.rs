//! Manual retry: a state that failed for good runs again. The unites that ended
//! only because of its failure reopen with it. A redrive does so for a whole
//! run.

use std::collections::BTreeSet;

use crate::failure::FailureKind;
use crate::graph::Graph;
use crate::ids::StateId;
use crate::plan::{Deltas, GraphMismatch, count, counters};
use crate::state::{Counter, Counts, Place, Status};

/// A unite above a retried state, as the retry finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnclosingUnite {
    /// The unite's status.
    pub status: Status,
    /// The kind of its failure, if it failed.
    pub failed: Option<FailureKind>,
    /// The unite's place in its run.
    pub place: Place,
}

/// The effects of a manual retry, besides those on the state itself and the
/// run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPlan {
    /// Blocked unites that wait again.
    pub unites: Vec<StateId>,
    /// Changes of the counters.
    pub counts: Deltas,
}

/// The reason why a state cannot be retried by hand.
#[derive(Debug, thiserror::Error)]
pub enum RetryError<E> {
    /// A unite above the state has continued without it.
    #[error(
        "the unite {identifier} has continued without this state (it is {status}), so a retry would come too late"
    )]
    UnitePassed {
        /// The unite's identifier.
        identifier: String,
        /// The unite's status.
        status: Status,
    },
    /// The state does not fit its graph.
    #[error(transparent)]
    GraphMismatch(#[from] GraphMismatch),
    /// A unite could not be read.
    #[error(transparent)]
    LookUp(E),
}

/// Returns whether a state failed by itself. Such a state can be retried by
/// hand, unless [`plan_retry`] refuses it. A redrive retries every such state of a
/// run, in any order. A blocked unite failed because of the failures below it,
/// and reopens with them.
pub fn failed_by_itself(status: Status, failed: Option<FailureKind>) -> bool {
    status == Status::Errored && failed != Some(FailureKind::Blocked)
}

/// Computes the effects of a manual retry of the failed state at `place`.
/// `look_up` reads a unite.
pub fn plan_retry<E>(
    graph: &Graph,
    place: &Place,
    mut look_up: impl FnMut(StateId) -> Result<EnclosingUnite, E>,
) -> Result<RetryPlan, RetryError<E>> {
    let mut plan = RetryPlan { unites: Vec::new(), counts: Deltas::new() };
    let mut seen = BTreeSet::new();
    let mut places = vec![place.clone()];
    while let Some(place) = places.pop() {
        count(graph, &place, Counts::REOPENED, &mut plan.counts)?;
        for counter in counters(graph, &place)? {
            let Counter::Unite(id) = counter else { continue };
            if !seen.insert(id) {
                continue;
            }
            let enclosing = look_up(id).map_err(RetryError::LookUp)?;
            match (enclosing.status, enclosing.failed) {
                (Status::Waiting, _) => {}
                (Status::Errored, Some(FailureKind::Blocked)) => {
                    plan.unites.push(id);
                    places.push(enclosing.place);
                }
                (status, _) => {
                    let identifier = graph.node(enclosing.place.node).identifier.to_string();
                    return Err(RetryError::UnitePassed { identifier, status });
                }
            }
        }
    }
    Ok(plan)
}
