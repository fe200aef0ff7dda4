//! Tests of the outcome of a lost host for the states that it had claimed. All
//! other plans are tested against the reference, in `host/domain/tests/model`.

use super::*;
use crate::graph::testing::GraphBuilder;
use crate::ids::{Fence, RunKey, SessionId};
use crate::state::Claim;
use crate::testing::SameId;

fn after(host_losses: u32) -> AttemptCounts {
    AttemptCounts { attempt: 7, retries: 2, requeues: 3, host_losses, conflicts: 1 }
}

/// Plans the end of a state whose host was lost.
fn lose_claim(attempts: AttemptCounts, has_begun: bool) -> Transition {
    let graph = GraphBuilder::from_text("a").build().unwrap();
    let (root, _) = root_state(&graph, &SameId);
    let claim = Claim { session: SessionId(1), fence: Fence(7) };
    let state = Claimed { id: root.id, run: RunKey(1), place: root.place, attempts, claim };
    plan(&graph, &state, outcome_of_lost_claim(attempts, has_begun), 0.0, &SameId).unwrap().end
}

/// Returns the counters of a state that runs again without delay.
fn attempts(end: &Transition) -> AttemptCounts {
    match end {
        Transition::Reschedule { after: 0, attempts, .. } => *attempts,
        other => panic!("it does not run again at once: {other:?}"),
    }
}

#[test]
fn only_a_begun_suspect_is_charged() {
    let table = [
        (0, false, Outcome::HostLost),
        (0, true, Outcome::HostLost),
        (1, false, Outcome::Released),
        (1, true, Outcome::HostLost),
        (MAX_LOSSES - 1, false, Outcome::Released),
        (MAX_LOSSES - 1, true, Outcome::HostLost),
    ];
    for (host_losses, has_begun, outcome) in table {
        assert_eq!(
            outcome_of_lost_claim(after(host_losses), has_begun),
            outcome,
            "losses: {host_losses}, noted: {has_begun}"
        );
    }
}

#[test]
fn a_charge_counts_only_a_loss() {
    let Transition::Reschedule { after: 0, attempts, reason: RescheduleReason::Failed(failure) } =
        lose_claim(after(4), true)
    else {
        panic!("it is to run again at once")
    };
    assert_eq!(attempts, after(5));
    assert_eq!(failure.kind, FailureKind::HostLost);
}

#[test]
fn a_released_state_keeps_its_counts() {
    let end = lose_claim(after(4), false);
    assert!(
        matches!(end, Transition::Reschedule { reason: RescheduleReason::Released, .. }),
        "{end:?}"
    );
    assert_eq!(attempts(&end), AttemptCounts { attempt: 6, ..after(4) });
}

#[test]
fn a_state_fails_after_ten_losses() {
    let mut now = AttemptCounts::default();
    for host_losses in 1..MAX_LOSSES {
        // The state may be released in between, which changes nothing.
        now = attempts(&lose_claim(now, true));
        assert_eq!(now.host_losses, host_losses);
        now = attempts(&lose_claim(now, false));
    }
    match lose_claim(now, true) {
        Transition::Errored { failure } => assert_eq!(failure.kind, FailureKind::HostLost),
        other => panic!("not an end: {other:?}"),
    }
}

#[test]
fn an_unbegun_state_is_charged_once() {
    let mut now = AttemptCounts::default();
    for _ in 0..3 * MAX_LOSSES {
        now = attempts(&lose_claim(now, false));
        assert_eq!(now.host_losses, 1);
        assert!(now.is_poison_suspect());
    }
}
