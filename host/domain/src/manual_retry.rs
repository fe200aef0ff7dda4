//! Manual retry: a state that failed for good runs again, and what ended only because
//! of it opens with it. A redrive does so for a whole run.

use std::collections::BTreeSet;

use crate::failure::FailureKind;
use crate::graph::Graph;
use crate::ids::StateId;
use crate::plan::{Deltas, Misfit, count, counters};
use crate::state::{Counter, Counts, Place, Status};

/// A unite as a retry below it finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// How it stands.
    pub status: Status,
    /// Why it failed, if it did.
    pub failed: Option<FailureKind>,
    /// Where it lies.
    pub place: Place,
}

/// What a manual retry opens, besides the state itself and the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopened {
    /// Unites that were blocked and wait again.
    pub unites: Vec<StateId>,
    /// What is counted otherwise.
    pub counts: Deltas,
}

/// Why a state cannot be retried by hand.
#[derive(Debug, thiserror::Error)]
pub enum Refused<E> {
    /// A unite above has gone on without it.
    #[error(
        "the unite {identifier} has gone on without this state (it is {status}), so a retry would come too late"
    )]
    WentOn {
        /// The unite's identifier.
        identifier: String,
        /// How it stands.
        status: Status,
    },
    /// It does not fit its graph.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A unite could not be looked up.
    #[error(transparent)]
    LookUp(E),
}

/// Whether a state that stands so failed by itself. Such a state can be retried
/// by hand, unless [`manual_retry`] refuses it; a redrive retries all of a run that
/// can be, and no order of theirs matters. A unite that is blocked failed by
/// what failed below it, and opens with that.
pub fn failed_by_itself(status: Status, failed: Option<FailureKind>) -> bool {
    status == Status::Errored && failed != Some(FailureKind::Blocked)
}

/// What a manual retry of the failed state at `place` opens. `look_up` finds a
/// unite.
pub fn reopen<E>(
    graph: &Graph,
    place: &Place,
    mut look_up: impl FnMut(StateId) -> Result<Above, E>,
) -> Result<Reopened, Refused<E>> {
    let mut reopened = Reopened { unites: Vec::new(), counts: Deltas::new() };
    let mut seen = BTreeSet::new();
    let mut places = vec![place.clone()];
    while let Some(place) = places.pop() {
        count(graph, &place, Counts::REOPENED, &mut reopened.counts)?;
        for counter in counters(graph, &place)? {
            let Counter::Unite(id) = counter else { continue };
            if !seen.insert(id) {
                continue;
            }
            let above = look_up(id).map_err(Refused::LookUp)?;
            match (above.status, above.failed) {
                (Status::Waiting, _) => {}
                (Status::Errored, Some(FailureKind::Blocked)) => {
                    reopened.unites.push(id);
                    places.push(above.place);
                }
                (status, _) => {
                    let identifier = graph.node(above.place.node).identifier.to_string();
                    return Err(Refused::WentOn { identifier, status });
                }
            }
        }
    }
    Ok(reopened)
}
