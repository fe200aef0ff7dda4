//! A write with an old fence changes nothing, however often it is repeated; and a claimed state is
//! not claimed again.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::{Fence, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::{Claim, Claimed};
use exosphere_store::{Answer, Member, Want};

use crate::bed::{Bed, begins, fails, outputs, sets};
use crate::place::Kind;

on_both! {
    an_old_fence_changes_nothing,
    a_claimed_state_is_not_handed_out_again,
    a_state_is_created_once,
    what_went_through_is_not_done_again,
    a_loss_is_counted_once_however_many_find_it,
    only_the_right_claim_begins,
}

const FANOUT: &str = "U > X; X > W; W(U)";

async fn an_old_fence_changes_nothing(kind: Kind) {
    let bed = Bed::new(kind).await;
    let other = bed.another("second").await;
    let run = bed.start_of(FANOUT).await;
    let (old, run) = (run.root, run.info);
    let lost = bed.plainly(&run, &old, Outcome::HostLost).await;
    let done = other.done(vec![lost], Want::Claims(1)).await;
    let new = done.leased[0].state.clone();
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
    let before = bed.place.table("run").await;
    // The old claim, and one in which only half is wrong.
    let old_session = Claim { session: old.claim.session, ..new.claim };
    let old_fence = Claim { session: new.claim.session, ..old.claim };
    for claim in [old.claim, old_session, old_fence] {
        let late = Claimed { claim, ..new.clone() };
        for outcome in &outcomes {
            let member = bed.ends(&run, &late, outcome.clone(), sets("k", "v")).await;
            let done = bed.done(vec![member], Want::Births(9)).await;
            assert_eq!(done.answers, [Answer::Stale], "{outcome:?} by {claim:?}");
            assert!(done.leased.is_empty() && done.touched.is_empty());
        }
    }
    let held = format!(
        "SELECT COUNT(*) FROM state WHERE status = 'QUEUED' AND session = {} AND fence = 2",
        other.session.0
    );
    assert_eq!(bed.number(&held).await, 1, "the new claim stands");
    assert_eq!(bed.states().await, "QUEUED 1");
    assert_eq!(bed.place.table("run").await, before);
    for table in ["entry", "output"] {
        assert_eq!(bed.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0);
    }
    assert_eq!(bed.number("SELECT COUNT(*) FROM attempt").await, 1, "that of the loss");

    let member = other.outputs(&run, &new, 1).await;
    assert_eq!(other.one(member).await, Answer::Done);
    let again = other.outputs(&run, &new, 1).await;
    assert_eq!(other.one(again).await, Answer::Stale, "an end is an end");
    bed.check().await;
}

async fn a_claimed_state_is_not_handed_out_again(kind: Kind) {
    let bed = Bed::new(kind).await;
    let other = bed.another("second").await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, 5).await;
    bed.one(fan).await;
    let first = bed.claim(3).await;
    let second = other.claim(9).await;
    assert_eq!((first.len(), second.len()), (3, 2));
    assert!(bed.claim(9).await.is_empty() && other.claim(9).await.is_empty());
    let mut all: Vec<_> = first.iter().chain(&second).map(|state| state.id).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert!(first.iter().all(|state| state.claim.session == bed.session));
    assert!(second.iter().all(|state| state.claim.session == other.session));
    assert!(first.iter().chain(&second).all(|state| state.tries.attempt == 1));
    bed.check().await;
}

async fn a_state_is_created_once(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    // Two plans of the same execution: other ids, the same paths.
    let first = bed.outputs(&run.info, &run.root, 2).await;
    let second = bed.outputs(&run.info, &run.root, 2).await;
    let done = bed.done(vec![first, second], Want::Births(0)).await;
    assert_eq!(done.answers, [Answer::Done, Answer::Stale]);
    assert_eq!(bed.states().await, "CREATED 2, SUCCESS 1, WAITING 1");
    // Nor can any other statement create it twice.
    let twice = "INSERT INTO state (id, run, node, path, status, due_at, fence, attempt, retries, requeues, losses, conflicts, refs, scopes, created_at) \
                 SELECT id + 100, run, node, path, status, due_at, fence, attempt, retries, requeues, losses, conflicts, refs, scopes, created_at \
                 FROM state WHERE status = 'WAITING'";
    let refused = bed.place.execute(twice).await.unwrap_err().to_lowercase();
    assert!(refused.contains("unique"), "{refused}");
    bed.check().await;
}

/// A commit that succeeded and whose answer was lost is repeated.
async fn what_went_through_is_not_done_again(kind: Kind) {
    let bed = Bed::new(kind).await;
    let template = bed.template(Sketch::of(FANOUT)).await;
    let new = bed.new_run(&template).await;
    let run = new.info.clone();
    let start = bed.batch(vec![Member::Start(new.into())], Want::Births(1));
    let first = bed.store.commit(start.clone()).await.unwrap();
    let again = bed.store.commit(start).await.unwrap();
    assert_eq!((first.answers, again.answers), (vec![Answer::Done], vec![Answer::Done]));
    assert!(again.leased.is_empty(), "it is held already");
    assert_eq!(bed.number("SELECT COUNT(*) FROM run").await, 1);
    assert_eq!(bed.states().await, "QUEUED 1");

    let root = first.leased[0].state.clone();
    let fan = bed.ends(&run, &root, outputs(3), sets("k", "v")).await;
    let fan = bed.batch(vec![fan], Want::Births(2));
    let first = bed.store.commit(fan.clone()).await.unwrap();
    assert_eq!((first.answers, first.leased.len()), (vec![Answer::Done], 2));
    let tables = ["run", "state", "output", "unite", "entry", "attempt"];
    let mut before = Vec::new();
    for table in tables {
        before.push(bed.place.table(table).await);
    }
    let again = bed.store.commit(fan).await.unwrap();
    assert_eq!((again.answers, again.leased.len()), (vec![Answer::Stale], 0));
    for (table, before) in tables.into_iter().zip(before) {
        assert_eq!(bed.place.table(table).await, before, "{table}");
    }
    // The host looks for states that the first commit claimed without its knowledge.
    let held = bed.store.held_by(bed.session, StateId(0), 9, bed.now());
    assert_eq!(held.await.unwrap().len(), 2);
    bed.check().await;
}

/// Every host may find the same session lost.
async fn a_loss_is_counted_once_however_many_find_it(kind: Kind) {
    let bed = Bed::new(kind).await;
    let other = bed.another("second").await;
    let run = bed.start_of(FANOUT).await;
    let first = bed.plainly(&run.info, &run.root, Outcome::HostLost).await;
    let second = other.plainly(&run.info, &run.root, Outcome::HostLost).await;
    let (first, second) = (bed.one(first).await, other.one(second).await);
    assert_eq!((first, second), (Answer::Done, Answer::Stale));
    let found = bed.claim(9).await;
    assert_eq!(found[0].tries.losses, 1);
    assert_eq!(bed.number("SELECT COUNT(*) FROM attempt").await, 1);
    bed.check().await;
}

async fn only_the_right_claim_begins(kind: Kind) {
    let bed = Bed::new(kind).await;
    let other = bed.another("second").await;
    let run = bed.start_of(FANOUT).await;
    let lost = bed.plainly(&run.info, &run.root, Outcome::HostLost).await;
    let new = other.done(vec![lost], Want::Claims(1)).await.leased.remove(0).state;
    assert!(new.tries.is_poison_suspect());
    let held = async || {
        let held = other.store.held_by(other.session, StateId(0), 9, 0);
        let held = held.await.unwrap();
        assert_eq!(held.len(), 1);
        held[0].noted
    };
    assert!(!held().await);
    let half = Claimed { claim: Claim { fence: Fence(1), ..new.claim }, ..new.clone() };
    for stale in [&run.root, &half] {
        assert_eq!(bed.one(begins(&run, stale)).await, Answer::Stale);
    }
    assert!(!held().await);
    assert_eq!(other.one(begins(&run, &new)).await, Answer::Done);
    assert!(held().await);
    // A note of a begin is valid for its own claim alone.
    let released = other.plainly(&run.info, &new, Outcome::Released).await;
    let again = other.done(vec![released], Want::Claims(1)).await.leased.remove(0).state;
    assert_eq!(again.claim.fence, Fence(3));
    assert!(!held().await);
    // The note may be in one batch with the end.
    let begun = begins(&run, &again);
    let end = other.ends(&run.info, &again, outputs(0), Journal::default()).await;
    let done = other.done(vec![begun, end], Want::Births(0)).await;
    assert_eq!(done.answers, [Answer::Stale, Answer::Done], "ends are written first");
    bed.check().await;
}
