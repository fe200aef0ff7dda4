//! Fences: a write with an old fence changes nothing, repeated commits have one effect, and a
//! claimed state is not claimed again.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Fence, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::{Claim, Claimed};
use exosphere_store::{ClaimMode, Operation, Reply};

use crate::harness::{Harness, begin_op, fails, outputs, sets};
use crate::test_database::Kind;

on_both! {
    an_old_fence_changes_nothing,
    a_claimed_state_is_not_claimed_again,
    a_state_is_created_once,
    a_repeated_commit_changes_nothing,
    a_loss_is_counted_once,
    only_the_current_claim_can_begin,
}

const FANOUT: &str = "U > X; X > W; W(U)";

async fn an_old_fence_changes_nothing(kind: Kind) {
    let harness = Harness::new(kind).await;
    let other = harness.another("second").await;
    let run = harness.start_of(FANOUT).await;
    let (old, run) = (run.root, run.info);
    let lost = harness.finish_plain(&run, &old, Outcome::HostLost).await;
    let done = other.commit_ok(vec![lost], ClaimMode::AllDue(1)).await;
    let new = done.claimed[0].state.clone();
    assert_eq!(new.claim, Claim { session: other.session, fence: Fence(2) });

    let outcomes = [
        outputs(1),
        Outcome::Prune(None),
        Outcome::RequeueAfter(5),
        fails(FailureKind::Permanent),
        fails(FailureKind::Retryable),
        Outcome::Released,
        Outcome::HostLost,
    ];
    let before = harness.database.table("run").await;
    // The old claim, and two of which one half is current.
    let old_session = Claim { session: old.claim.session, ..new.claim };
    let old_fence = Claim { session: new.claim.session, ..old.claim };
    for claim in [old.claim, old_session, old_fence] {
        let stale = Claimed { claim, ..new.clone() };
        for outcome in &outcomes {
            let operation = harness.finish(&run, &stale, outcome.clone(), sets("k", "v")).await;
            let done = harness.commit_ok(vec![operation], ClaimMode::NewOnly(9)).await;
            assert_eq!(done.replies, [Reply::Stale], "{outcome:?} by {claim:?}");
            assert!(done.claimed.is_empty() && done.run_updates.is_empty());
        }
    }
    let held = format!(
        "SELECT COUNT(*) FROM state WHERE status = 'QUEUED' AND session = {} AND fence = 2",
        other.session.0
    );
    assert_eq!(harness.number(&held).await, 1, "the new claim is unchanged");
    assert_eq!(harness.states().await, "QUEUED 1");
    assert_eq!(harness.database.table("run").await, before);
    for table in ["entry", "output"] {
        assert_eq!(harness.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0);
    }
    assert_eq!(harness.number("SELECT COUNT(*) FROM attempt").await, 1, "that of the loss");

    let operation = other.finish_with_outputs(&run, &new, 1).await;
    assert_eq!(other.commit_one(operation).await, Reply::Done);
    let second_finish = other.finish_with_outputs(&run, &new, 1).await;
    assert_eq!(
        other.commit_one(second_finish).await,
        Reply::Stale,
        "a finished state cannot finish again"
    );
    harness.check().await;
}

async fn a_claimed_state_is_not_claimed_again(kind: Kind) {
    let harness = Harness::new(kind).await;
    let other = harness.another("second").await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 5).await;
    harness.commit_one(fan).await;
    let first = harness.claim(3).await;
    let second = other.claim(9).await;
    assert_eq!((first.len(), second.len()), (3, 2));
    assert!(harness.claim(9).await.is_empty() && other.claim(9).await.is_empty());
    let mut all: Vec<_> = first.iter().chain(&second).map(|state| state.id).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert!(first.iter().all(|state| state.claim.session == harness.session));
    assert!(second.iter().all(|state| state.claim.session == other.session));
    assert!(first.iter().chain(&second).all(|state| state.attempts.attempt == 1));
    harness.check().await;
}

async fn a_state_is_created_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    // Two plans of one execution have the same paths and other ids.
    let first = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let second = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let done = harness.commit_ok(vec![first, second], ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Done, Reply::Stale]);
    assert_eq!(harness.states().await, "CREATED 2, SUCCESS 1, WAITING 1");
    // A unique index rejects any other statement.
    let duplicate_insert = "INSERT INTO state (id, run, node, path, status, due_at, fence, attempt, retries, \
                 requeues, losses, conflicts, refs, scopes, created_at) \
                 SELECT id + 100, run, node, path, status, due_at, fence, attempt, retries, \
                 requeues, losses, conflicts, refs, scopes, created_at \
                 FROM state WHERE status = 'WAITING'";
    let refused = harness.database.execute(duplicate_insert).await.unwrap_err().to_lowercase();
    assert!(refused.contains("unique"), "{refused}");
    harness.check().await;
}

/// A commit that succeeded and whose answer was lost is repeated.
async fn a_repeated_commit_changes_nothing(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text(FANOUT)).await;
    let new = harness.new_run(&template).await;
    let run = new.info.clone();
    let start = harness.batch(vec![Operation::Start(new.into())], ClaimMode::NewOnly(1));
    let first = harness.store.commit(start.clone()).await.unwrap();
    let restarted = harness.store.commit(start).await.unwrap();
    assert_eq!((first.replies, restarted.replies), (vec![Reply::Done], vec![Reply::Done]));
    assert!(restarted.claimed.is_empty(), "the state is claimed already");
    assert_eq!(harness.number("SELECT COUNT(*) FROM run").await, 1);
    assert_eq!(harness.states().await, "QUEUED 1");

    let root = first.claimed[0].state.clone();
    let fan = harness.finish(&run, &root, outputs(3), sets("k", "v")).await;
    let fan = harness.batch(vec![fan], ClaimMode::NewOnly(2));
    let first = harness.store.commit(fan.clone()).await.unwrap();
    assert_eq!((first.replies, first.claimed.len()), (vec![Reply::Done], 2));
    let tables = ["run", "state", "output", "unite", "entry", "attempt"];
    let mut before = Vec::new();
    for table in tables {
        before.push(harness.database.table(table).await);
    }
    let restarted = harness.store.commit(fan).await.unwrap();
    assert_eq!((restarted.replies, restarted.claimed.len()), (vec![Reply::Stale], 0));
    for (table, before) in tables.into_iter().zip(before) {
        assert_eq!(harness.database.table(table).await, before, "{table}");
    }
    // The host finds the states that the first commit claimed.
    let held = harness.store.held_by(harness.session, StateId(0), 9, harness.now());
    assert_eq!(held.await.unwrap().len(), 2);
    harness.check().await;
}

/// Several hosts may find the same lost session.
async fn a_loss_is_counted_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let other = harness.another("second").await;
    let run = harness.start_of(FANOUT).await;
    let first = harness.finish_plain(&run.info, &run.root, Outcome::HostLost).await;
    let second = other.finish_plain(&run.info, &run.root, Outcome::HostLost).await;
    let (first, second) = (harness.commit_one(first).await, other.commit_one(second).await);
    assert_eq!((first, second), (Reply::Done, Reply::Stale));
    let found = harness.claim(9).await;
    assert_eq!(found[0].attempts.host_losses, 1);
    assert_eq!(harness.number("SELECT COUNT(*) FROM attempt").await, 1);
    harness.check().await;
}

async fn only_the_current_claim_can_begin(kind: Kind) {
    let harness = Harness::new(kind).await;
    let other = harness.another("second").await;
    let run = harness.start_of(FANOUT).await;
    let lost = harness.finish_plain(&run.info, &run.root, Outcome::HostLost).await;
    let new = other.commit_ok(vec![lost], ClaimMode::AllDue(1)).await.claimed.remove(0).state;
    assert!(new.attempts.is_poison_suspect());
    let held = async || {
        let held = other.store.held_by(other.session, StateId(0), 9, 0);
        let held = held.await.unwrap();
        assert_eq!(held.len(), 1);
        held[0].has_begun
    };
    assert!(!held().await);
    let mismatched = Claimed { claim: Claim { fence: Fence(1), ..new.claim }, ..new.clone() };
    for stale in [&run.root, &mismatched] {
        assert_eq!(harness.commit_one(begin_op(&run, stale)).await, Reply::Stale);
    }
    assert!(!held().await);
    assert_eq!(other.commit_one(begin_op(&run, &new)).await, Reply::Done);
    assert!(held().await);
    // The record of a begin is valid for one claim.
    let released = other.finish_plain(&run.info, &new, Outcome::Released).await;
    let reclaimed =
        other.commit_ok(vec![released], ClaimMode::AllDue(1)).await.claimed.remove(0).state;
    assert_eq!(reclaimed.claim.fence, Fence(3));
    assert!(!held().await);
    // The begin may be in one batch with the finish.
    let record_begin = begin_op(&run, &reclaimed);
    let end = other.finish(&run.info, &reclaimed, outputs(0), Journal::default()).await;
    let done = other.commit_ok(vec![record_begin, end], ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Stale, Reply::Done], "finishes are written first");
    harness.check().await;
}
