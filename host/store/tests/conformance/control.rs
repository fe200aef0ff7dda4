//! Control of runs: pause, resume and cancel, and the sweeps after them.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{ClaimMode, Control, Operation, PendingSweep, Reply};
use serde_json::json;

use crate::harness::{Harness, Run, fails, outputs, pause, sets, sweep};
use crate::test_database::Kind;

on_both! {
    states_of_paused_runs_are_not_claimed,
    a_pause_holds_back_rescheduled_states,
    a_pause_holds_back_new_unites,
    sweeps_are_bounded_and_resume,
    sweeps_of_older_events_are_stale,
    a_finished_run_cannot_be_paused,
    a_cancelled_run_rejects_late_outcomes,
    a_cancel_interrupts_a_pause_sweep,
    a_cancelled_run_clears_its_store,
}

const FANOUT: &str = "U > X; X > W; W(U)";

/// Starts a run whose first state has `count` outputs; none of its states is claimed.
async fn fanned(harness: &Harness, count: usize) -> Run {
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, count).await;
    assert_eq!(harness.commit_one(fan).await, Reply::Done);
    run
}

fn pending_sweep(run: &Run, event: i64) -> PendingSweep {
    PendingSweep { run: run.info.key, event, redrive: 0 }
}

async fn held_back(harness: &Harness) -> i64 {
    harness.number("SELECT COUNT(*) FROM state WHERE held_back = 1").await
}

async fn states_of_paused_runs_are_not_claimed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = fanned(&harness, 3).await;
    let other = harness.start_of("A").await;
    let released = harness.finish_plain(&other.info, &other.root, Outcome::Released).await;
    harness.commit_one(released).await;
    let paused = harness.commit_ok(vec![pause(&run.info, true)], ClaimMode::AllDue(9)).await;
    assert_eq!(paused.claimed.len(), 1, "of the other run");
    let run_updates = paused.run_updates[0];
    assert!(
        run_updates.paused
            && run_updates.status_changed
            && run_updates.status == RunStatus::Running
    );
    // No state is claimed, neither before the sweep nor after it.
    assert!(harness.claim(9).await.is_empty());
    let Reply::ToSweep(event) = paused.replies[0] else { panic!("{:?}", paused.replies) };
    assert_eq!(harness.store.pending_sweeps().await.unwrap(), [pending_sweep(&run, event)]);
    harness.sweep(&run.info, event, 100).await;
    assert_eq!(harness.store.pending_sweeps().await.unwrap(), []);
    assert_eq!(held_back(&harness).await, 3);
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(9)).await;
    assert!(done.claimed.is_empty() && done.next_due.is_none());
    assert_eq!(harness.commit_one(pause(&run.info, true)).await, Reply::Done, "no change");
    harness.check().await;

    // The run resumes gradually: a swept state may be claimed.
    let event = harness.commit_for_sweep(pause(&run.info, false)).await;
    assert!(harness.claim(9).await.is_empty(), "all states are still held back");
    let done = harness.commit_ok(vec![sweep(&run.info, event, "", 2)], ClaimMode::NewOnly(9)).await;
    assert!(matches!(&done.replies[0], Reply::More(_)) && done.more_due);
    assert_eq!(harness.claim(9).await.len(), 1, "the root, and one child");
    harness.sweep(&run.info, event, 100).await;
    assert_eq!(harness.claim(9).await.len(), 2);
    assert_eq!(held_back(&harness).await, 0);
    assert_eq!(harness.commit_one(pause(&run.info, false)).await, Reply::Done, "no change");
    harness.check().await;
}

async fn a_pause_holds_back_rescheduled_states(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = GraphBuilder::from_text(FANOUT)
        .with("X", |node| node["retry_policy"] = json!({"max_retries": 1, "backoff_factor": 0}));
    let template = harness.template(builder).await;
    let run = harness.start(&template).await;
    let (info, root) = (&run.info, &run.root);
    let event = harness.commit_for_sweep(pause(info, true)).await;
    harness.sweep(info, event, 100).await;
    // Running states may finish, with all effects; their children are created and held back.
    let fan = harness.finish(info, root, outputs(5), sets("k", "v")).await;
    let done = harness.commit_ok(vec![fan], ClaimMode::NewOnly(9)).await;
    assert_eq!((done.replies, done.claimed.len(), done.more_due), (vec![Reply::Done], 0, false));
    assert_eq!(held_back(&harness).await, 5);
    harness.check().await;

    let event = harness.commit_for_sweep(pause(info, false)).await;
    harness.sweep(info, event, 100).await;
    let held = harness.claim(5).await;
    assert_eq!(held.len(), 5);
    let event = harness.commit_for_sweep(pause(info, true)).await;
    let requeues = [
        Outcome::Released,
        Outcome::HostLost,
        Outcome::RequeueAfter(1),
        fails(FailureKind::Retryable),
        Outcome::Conflict,
    ];
    for (state, outcome) in held.iter().zip(requeues) {
        let operation = harness.finish(info, state, outcome, Journal::default()).await;
        let done = harness.commit_ok(vec![operation], ClaimMode::NewOnly(9)).await;
        assert_eq!((done.replies, done.more_due), (vec![Reply::Done], false));
    }
    assert_eq!(held_back(&harness).await, 5, "before the sweep");
    harness.sweep(info, event, 100).await;
    assert_eq!(held_back(&harness).await, 5, "and after it");
    harness.advance(1).await;
    assert!(harness.claim(9).await.is_empty());
    harness.check().await;
    let event = harness.commit_for_sweep(pause(info, false)).await;
    harness.sweep(info, event, 2).await;
    assert_eq!(harness.claim(9).await.len(), 5);
    harness.check().await;
}

async fn a_pause_holds_back_new_unites(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 1).await;
    let child = harness.commit_and_claim(fan).await.remove(0);
    let event = harness.commit_for_sweep(pause(&run.info, true)).await;
    harness.sweep(&run.info, event, 9).await;
    let end = harness.finish_with_outputs(&run.info, &child, 1).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(9)).await;
    assert!(done.claimed.is_empty() && !done.more_due);
    assert_eq!(harness.states().await, "CREATED 1, SUCCESS 2");
    assert_eq!(held_back(&harness).await, 1);
    let event = harness.commit_for_sweep(pause(&run.info, false)).await;
    harness.sweep(&run.info, event, 9).await;
    assert_eq!(harness.claim(9).await.len(), 1);
    harness.check().await;
}

async fn sweeps_are_bounded_and_resume(kind: Kind) {
    let harness = Harness::new(kind).await;
    // The root, a unite, and 98 children.
    let run = fanned(&harness, 98).await;
    let event = harness.commit_for_sweep(pause(&run.info, true)).await;
    let mut from = String::new();
    for step in 1..=10 {
        match harness.commit_one(sweep(&run.info, event, &from, 10)).await {
            Reply::More(next) => from = next,
            other => panic!("{step}: {other:?}"),
        }
        // Paths: the root, its children, its unite.
        assert_eq!(held_back(&harness).await, (step * 10 - 1).min(98));
    }
    assert_eq!(harness.commit_one(sweep(&run.info, event, &from, 10)).await, Reply::Done);
    assert_eq!(harness.number("SELECT sweep_event FROM run").await, 0);
    assert_eq!(harness.commit_one(sweep(&run.info, event, "", 10)).await, Reply::Stale);
    // If a host dies during a sweep, another host starts the sweep again.
    let event =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    for _ in 0..3 {
        harness.commit_one(sweep(&run.info, event, "", 40)).await;
    }
    assert_eq!(harness.number("SELECT cancelled FROM run").await, 39);
    assert_eq!(harness.sweep(&run.info, event, 30).await, 4);
    assert_eq!(harness.number("SELECT cancelled FROM run").await, 99);
    harness.check().await;
}

async fn sweeps_of_older_events_are_stale(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = fanned(&harness, 4).await;
    let first = harness.commit_for_sweep(pause(&run.info, true)).await;
    assert!(matches!(harness.commit_one(sweep(&run.info, first, "", 3)).await, Reply::More(_)));
    let second = harness.commit_for_sweep(pause(&run.info, false)).await;
    assert_eq!(harness.commit_one(sweep(&run.info, first, "", 3)).await, Reply::Stale);
    let third = harness.commit_for_sweep(pause(&run.info, true)).await;
    assert!(first < second && second < third);
    for stale in [first, second] {
        assert_eq!(harness.commit_one(sweep(&run.info, stale, "", 100)).await, Reply::Stale);
    }
    assert_eq!(harness.store.pending_sweeps().await.unwrap(), [pending_sweep(&run, third)]);
    assert_eq!(held_back(&harness).await, 2, "by the one that was not stale");
    harness.sweep(&run.info, third, 3).await;
    assert_eq!(held_back(&harness).await, 4);
    assert!(harness.claim(9).await.is_empty());
    harness.check().await;
}

async fn a_finished_run_cannot_be_paused(kind: Kind) {
    let harness = Harness::new(kind).await;
    let finished = harness.start_of("A").await;
    let end = harness.finish_with_outputs(&finished.info, &finished.root, 1).await;
    harness.commit_one(end).await;
    let operations = |run: &Run| {
        [
            pause(&run.info, true),
            pause(&run.info, false),
            Operation::Control(run.info.clone(), Control::Cancel),
        ]
    };
    for operation in operations(&finished) {
        let answer = harness.commit_one(operation).await;
        assert!(
            matches!(&answer, Reply::Refused(cause) if cause.contains("SUCCESS")),
            "{answer:?}"
        );
    }
    // A run that failed while it was paused can be resumed before a retry.
    let failed = harness.start_of("A").await;
    let event = harness.commit_for_sweep(pause(&failed.info, true)).await;
    harness.sweep(&failed.info, event, 9).await;
    let end = harness.finish_plain(&failed.info, &failed.root, fails(FailureKind::Permanent)).await;
    harness.commit_one(end).await;
    assert!(matches!(harness.commit_one(pause(&failed.info, true)).await, Reply::Refused(_)));
    let event = harness.commit_for_sweep(pause(&failed.info, false)).await;
    harness.sweep(&failed.info, event, 9).await;
    let retry = Operation::Control(failed.info.clone(), Control::Retry(failed.root.id));
    assert_eq!(harness.commit_one(retry).await, Reply::Done);
    assert_eq!(harness.claim(9).await.len(), 1);
    harness.check().await;
}

async fn a_cancelled_run_rejects_late_outcomes(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = fanned(&harness, 4).await;
    let held = harness.claim(2).await;
    let cancel = Operation::Control(run.info.clone(), Control::Cancel);
    // An outcome in the same batch comes before the cancel; one after it is too late.
    let first = harness.finish_with_outputs(&run.info, &held[0], 1).await;
    let done = harness.commit_ok(vec![cancel, first], ClaimMode::AllDue(9)).await;
    let [Reply::ToSweep(event), Reply::Done] = done.replies[..] else {
        panic!("{:?}", done.replies)
    };
    assert_eq!(
        (done.run_updates[0].status, done.run_updates[0].status_changed),
        (RunStatus::Cancelled, true)
    );
    assert!(done.claimed.is_empty(), "no state of the run is claimed");
    let late_finish = harness.finish(&run.info, &held[1], outputs(1), sets("k", "v")).await;
    assert_eq!(harness.commit_one(late_finish).await, Reply::Stale);
    let lost = harness.finish_plain(&run.info, &held[1], Outcome::HostLost).await;
    assert_eq!(harness.commit_one(lost).await, Reply::Stale);
    harness.check().await;
    harness.sweep(&run.info, event, 2).await;
    assert_eq!(harness.states().await, "CANCELLED 4, SUCCESS 2");
    let row = harness
        .database
        .rows("SELECT status, open, states, succeeded, cancelled, sweep_event FROM run");
    let row: Vec<_> = row.await.remove(0).into_iter().flatten().collect();
    assert_eq!(row, ["CANCELLED", "0", "6", "2", "4", "0"]);
    for operation in [
        Operation::Control(run.info.clone(), Control::Cancel),
        harness.redrive(&run.info).await,
        Operation::Control(run.info.clone(), Control::Retry(held[1].id)),
        pause(&run.info, true),
    ] {
        let answer = harness.commit_one(operation).await;
        assert!(matches!(answer, Reply::Refused(_)), "{answer:?}");
    }
    harness.check().await;
}

async fn a_cancel_interrupts_a_pause_sweep(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = fanned(&harness, 8).await;
    let paused = harness.commit_for_sweep(pause(&run.info, true)).await;
    let Reply::More(from) = harness.commit_one(sweep(&run.info, paused, "", 4)).await else {
        panic!()
    };
    let cancelled =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    assert_eq!(harness.commit_one(sweep(&run.info, paused, &from, 4)).await, Reply::Stale);
    harness.sweep(&run.info, cancelled, 4).await;
    assert_eq!(harness.states().await, "CANCELLED 9, SUCCESS 1");
    harness.check().await;
    // Both in one batch are one event; only the run's last status counts.
    let other = fanned(&harness, 8).await;
    let operations =
        vec![pause(&other.info, true), Operation::Control(other.info.clone(), Control::Cancel)];
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(0)).await;
    let [Reply::ToSweep(first), Reply::ToSweep(second)] = done.replies[..] else { panic!() };
    assert_eq!(first, second);
    harness.sweep(&other.info, first, 4).await;
    assert_eq!(harness.states().await, "CANCELLED 18, SUCCESS 2");
    harness.check().await;
}

async fn a_cancelled_run_clears_its_store(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish(&run.info, &run.root, outputs(2), sets("k", "v")).await;
    harness.commit_one(fan).await;
    assert_eq!(harness.number("SELECT COUNT(*) FROM entry").await, 1);
    let event =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    assert_eq!(harness.number("SELECT COUNT(*) FROM entry").await, 0);
    harness.sweep(&run.info, event, 9).await;
    harness.check().await;
}
