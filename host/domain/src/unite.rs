//! The end of unites: when a unite has no open member left, its counters alone
//! decide how it ends.
//!
//! Not here: the count of open members (the store, `commit/unites.rs`).

use serde_json::json;

use crate::failure::{Failure, FailureKind};
use crate::graph::{Graph, MaxFailed, OnEmpty, Strategy};
use crate::plan::{Deltas, GraphMismatch, count};
use crate::state::{Counts, Place};

/// The end of a unite whose count of open members reached zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniteDecision {
    /// The strategy is met: the unite is to run.
    Run,
    /// Nothing arrived and nothing failed: the unite is pruned.
    Prune,
    /// The strategy is not met: the unite fails as `blocked`.
    Block,
}

/// The maximum number of failed members that the failure of a blocked unite names.
pub const MAX_NAMED: usize = 10;

/// Decides the end of the unite at `place`, and the changes to the counters of
/// its scopes. `branches` is the number of outputs of the united execution.
pub fn close(
    graph: &Graph,
    place: &Place,
    counts: Counts,
    branches: u32,
) -> Result<(UniteDecision, Deltas), GraphMismatch> {
    let decision = decide(graph, place, counts, branches);
    let mut deltas = Deltas::new();
    match decision {
        UniteDecision::Run => {}
        UniteDecision::Prune => count(graph, place, Counts::ENDED, &mut deltas)?,
        UniteDecision::Block => count(graph, place, Counts::FAILED, &mut deltas)?,
    }
    Ok((decision, deltas))
}

fn decide(graph: &Graph, place: &Place, counts: Counts, branches: u32) -> UniteDecision {
    let Some(unites) = &graph.node(place.node).unites else { return UniteDecision::Block };
    if counts.arrived == 0 && counts.failed == 0 {
        return match unites.on_empty {
            OnEmpty::Prune => UniteDecision::Prune,
            OnEmpty::Run => UniteDecision::Run,
        };
    }
    let is_satisfied = match unites.strategy {
        Strategy::AllSuccess => counts.failed == 0,
        Strategy::AllDone(MaxFailed::Any) => true,
        Strategy::AllDone(MaxFailed::Count(max)) => counts.failed <= i64::from(max),
        Strategy::AllDone(MaxFailed::Percent(max)) => {
            counts.failed as f64 * 100.0 <= max * f64::from(branches)
        }
    };
    if is_satisfied { UniteDecision::Run } else { UniteDecision::Block }
}

/// A failed member of a scope.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedMember {
    /// The member's place in its run.
    pub place: Place,
    /// The member's state id, as users see it.
    pub state: String,
    /// The member's failure.
    pub failure: Failure,
}

/// Returns the failure of a blocked unite, which names the first failed branches. `source_path` is
/// the path of the state whose branches it unites. `members` are some of the `counts.failed` failed
/// members, in path order.
pub fn blocked_failure(
    graph: &Graph,
    source_path: &crate::path::Path,
    counts: Counts,
    members: &[FailedMember],
) -> Failure {
    let mut named = Vec::new();
    let mut details = Vec::new();
    for member in members.iter().take(MAX_NAMED) {
        let identifier = &graph.node(member.place.node).identifier;
        let branch = member.place.path.branch_below(source_path);
        let location =
            branch.map_or_else(|| "beside the branches".into(), |n| format!("branch {n}"));
        let message: String = member.failure.message.chars().take(200).collect();
        named.push(format!("{location}: {identifier} ({}: {message})", member.failure.kind));
        details.push(json!({
            "branch": branch,
            "identifier": identifier,
            "state": member.state,
            "kind": member.failure.kind,
            "message": message,
        }));
    }
    let rest = counts.failed - named.len() as i64;
    if rest > 0 {
        named.push(format!("and {rest} more"));
    }
    let message = format!(
        "{} of its members failed: {}. Retry those to heal it.",
        counts.failed,
        named.join("; ")
    );
    Failure::new(FailureKind::Blocked, message)
        .with(json!({ "failed": counts.failed, "members": details }))
}
