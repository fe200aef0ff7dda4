//! Deadlines of runs: what a run that misses one comes to.

use exosphere_domain::deadline::{DeadlineKind, Deadlines};
use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    ClaimMode, Control, Operation, PendingDeadline, RedrivePart, Reply, RunView,
};

use crate::harness::{Harness, Run, fails, outputs};
use crate::test_database::Kind;

on_both! {
    a_run_fails_at_its_deadline,
    a_missed_run_is_not_retried,
    a_run_that_never_began_fails,
    a_run_that_has_begun_meets_its_start,
    an_ended_run_meets_its_deadline,
    a_deadline_yields_to_the_last_end,
    a_run_without_deadlines_has_no_row,
}

const FANOUT: &str = "U > X; X > W; W(U)";

const BOTH: Deadlines = Deadlines { end: Some(10_000), begin: Some(2_000) };

/// Starts a run with deadlines, and claims its root if `claims` says so.
async fn start(harness: &Harness, deadlines: Deadlines, claims: bool) -> Run {
    let template = harness.template(GraphBuilder::from_text(FANOUT)).await;
    let mut new = harness.new_run(&template).await;
    new.deadlines = deadlines;
    let info = new.info.clone();
    let claim_mode = ClaimMode::NewOnly(u32::from(claims));
    let mut done = harness.commit_ok(vec![Operation::Start(new.into())], claim_mode).await;
    assert_eq!(done.replies, [Reply::Done]);
    let root = match done.claimed.pop() {
        Some(claimed) => claimed.state,
        // A root that nobody has claimed: any claim will do.
        None => harness.start_of("A").await.root,
    };
    Run { info, root }
}

fn expire(run: &Run, kind: DeadlineKind) -> Operation {
    Operation::Control(run.info.clone(), Control::Expire(kind))
}

async fn view(harness: &Harness, run: &Run) -> RunView {
    harness.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap()
}

async fn pending(harness: &Harness) -> Vec<(DeadlineKind, bool)> {
    let (next, now) = harness.store.next_deadlines(9, harness.now()).await.unwrap();
    next.into_iter().map(|PendingDeadline { kind, due_at, .. }| (kind, due_at <= now)).collect()
}

async fn a_run_fails_at_its_deadline(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, true).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 5).await;
    assert_eq!(harness.commit_one(fan).await, Reply::Done);
    let held = harness.claim(2).await;
    assert_eq!(pending(&harness).await, [(DeadlineKind::Begin, false), (DeadlineKind::End, false)]);
    assert_eq!(harness.commit_one(expire(&run, DeadlineKind::End)).await, Reply::Stale, "early");
    assert!(view(&harness, &run).await.deadline_at.is_some());

    harness.advance(10_001).await;
    assert_eq!(pending(&harness).await, [(DeadlineKind::Begin, true), (DeadlineKind::End, true)]);
    let done =
        harness.commit_ok(vec![expire(&run, DeadlineKind::End)], ClaimMode::NewOnly(9)).await;
    let Reply::ToSweep(event) = done.replies[0] else { panic!("{:?}", done.replies) };
    let update = done.run_updates[0];
    assert!(update.is_stopped && update.status == RunStatus::Failed, "{update:?}");
    assert_eq!(done.ended[0].missed, Some(DeadlineKind::End));
    assert_eq!(harness.store.run_statuses(&[run.info.key]).await.unwrap(), [update]);
    let found = view(&harness, &run).await;
    assert_eq!((found.status, found.missed), (RunStatus::Failed, Some(DeadlineKind::End)));
    assert_eq!(pending(&harness).await, []);
    harness.check().await;

    // Nothing goes on: neither the states that are executed nor the others.
    let late = harness.finish_with_outputs(&run.info, &held[0], 1).await;
    assert_eq!(harness.commit_one(late).await, Reply::Stale);
    assert!(harness.claim(9).await.is_empty());
    harness.sweep(&run.info, event, 2).await;
    assert_eq!(harness.states().await, "CANCELLED 6, SUCCESS 1");
    assert_eq!(harness.commit_one(expire(&run, DeadlineKind::End)).await, Reply::Stale, "once");
    harness.check().await;
}

async fn a_missed_run_is_not_retried(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, true).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    harness.commit_one(fan).await;
    let held = harness.claim(1).await.remove(0);
    let failed = harness.finish_plain(&run.info, &held, fails(FailureKind::Permanent)).await;
    assert_eq!(harness.commit_one(failed).await, Reply::Done);
    harness.advance(10_001).await;
    let event = harness.commit_for_sweep(expire(&run, DeadlineKind::End)).await;
    harness.sweep(&run.info, event, 9).await;
    for control in [
        Control::Retry(held.id),
        Control::Redrive(RedrivePart::Whole(vec![held.id])),
        Control::Redrive(RedrivePart::Begin),
    ] {
        let refused = harness.commit_one(Operation::Control(run.info.clone(), control)).await;
        assert!(matches!(&refused, Reply::Refused(why) if why.contains("deadline")), "{refused:?}");
    }
    let delete = Operation::Control(run.info.clone(), Control::Delete);
    assert_eq!(harness.commit_one(delete).await, Reply::Done);
    harness.check().await;
    while harness.store.remove_piece(run.info.key, "", 1).await.unwrap()
        != exosphere_store::Removal::Done
    {}
    assert_eq!(harness.number("SELECT COUNT(*) FROM deadline").await, 0);
    harness.check().await;
}

async fn a_run_that_never_began_fails(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, false).await;
    harness.advance(1_000).await;
    assert_eq!(harness.commit_one(expire(&run, DeadlineKind::Begin)).await, Reply::Stale, "early");
    harness.advance(1_001).await;
    let event = harness.commit_for_sweep(expire(&run, DeadlineKind::Begin)).await;
    harness.sweep(&run.info, event, 9).await;
    let found = view(&harness, &run).await;
    assert_eq!((found.status, found.missed), (RunStatus::Failed, Some(DeadlineKind::Begin)));
    assert_eq!(pending(&harness).await, [], "the other deadline does not matter any more");
    harness.check().await;
}

async fn a_run_that_has_begun_meets_its_start(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, true).await;
    // Its root has failed once, and waits for its retry.
    let retried = harness.finish_plain(&run.info, &run.root, Outcome::RequeueAfter(9_000)).await;
    assert_eq!(harness.commit_one(retried).await, Reply::Done);
    harness.advance(2_001).await;
    assert_eq!(harness.commit_one(expire(&run, DeadlineKind::Begin)).await, Reply::Done);
    assert_eq!(view(&harness, &run).await.status, RunStatus::Running);
    assert_eq!(pending(&harness).await, [(DeadlineKind::End, false)]);
    harness.check().await;
}

async fn an_ended_run_meets_its_deadline(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, true).await;
    let end = harness.finish_plain(&run.info, &run.root, outputs(0)).await;
    assert_eq!(harness.commit_one(end).await, Reply::Done);
    let found = view(&harness, &run).await;
    assert_eq!((found.status, found.deadline_at), (RunStatus::Success, None));
    harness.advance(10_001).await;
    for kind in DeadlineKind::ALL {
        assert_eq!(harness.commit_one(expire(&run, kind)).await, Reply::Done);
    }
    assert_eq!(pending(&harness).await, []);
    assert_eq!(view(&harness, &run).await.status, RunStatus::Success);
    harness.check().await;
}

async fn a_deadline_yields_to_the_last_end(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start(&harness, BOTH, true).await;
    harness.advance(10_001).await;
    let end = harness.finish_plain(&run.info, &run.root, outputs(0)).await;
    let both = vec![expire(&run, DeadlineKind::End), end];
    let done = harness.commit_ok(both, ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Done, Reply::Done]);
    assert_eq!(view(&harness, &run).await.status, RunStatus::Success);
    // But not to an end that leaves others open, in whichever order they arrive.
    let run = start(&harness, BOTH, true).await;
    harness.advance(10_001).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let both = vec![fan, expire(&run, DeadlineKind::End)];
    let done = harness.commit_ok(both, ClaimMode::NewOnly(9)).await;
    assert!(matches!(done.replies[..], [Reply::Done, Reply::ToSweep(_)]), "{:?}", done.replies);
    let Reply::ToSweep(event) = done.replies[1] else { panic!() };
    harness.sweep(&run.info, event, 9).await;
    harness.check().await;
}

async fn a_run_without_deadlines_has_no_row(kind: Kind) {
    let harness = Harness::new(kind).await;
    start(&harness, Deadlines::default(), true).await;
    assert_eq!(harness.number("SELECT COUNT(*) FROM deadline").await, 0);
    assert_eq!(harness.store.next_deadlines(9, harness.now()).await.unwrap().0, []);
}
