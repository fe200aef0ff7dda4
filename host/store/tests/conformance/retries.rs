//! Manual retries: of one state, and of all failed states (a redrive).

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::StateId;
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_store::{ClaimMode, Control, Operation, PendingSweep, RedrivePart, Reply};
use serde_json::json;

use crate::harness::{Harness, Run, fails, pause};
use crate::test_database::Kind;

on_both! {
    a_failed_state_can_be_retried,
    a_retry_reopens_the_unites_above,
    a_retry_past_its_unite_is_rejected,
    only_failed_states_can_be_retried,
    a_redrive_reopens_all_states_together,
    a_redrive_reports_late_states,
    a_pause_holds_back_retried_states,
    a_partial_redrive_holds_back_states,
    a_cancel_ends_a_partial_redrive,
}

/// Starts a run of a graph whose first state has `count` outputs, and returns its children.
async fn fanned(harness: &Harness, builder: GraphBuilder, count: usize) -> (Run, Vec<Claimed>) {
    let template = harness.template(builder).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, count).await;
    let children = harness.commit_and_claim(fan).await;
    (run, children)
}

fn fanout() -> GraphBuilder {
    GraphBuilder::from_text("U > X; X > W; W(U) > Z")
}

/// Ends states in one commit, those at `failed` with a failure and the others with success. The
/// states after them are claimed.
async fn end(harness: &Harness, run: &Run, states: &[Claimed], failed: &[usize]) -> Vec<Claimed> {
    let mut operations = Vec::new();
    for (at, state) in states.iter().enumerate() {
        operations.push(if failed.contains(&at) {
            harness.finish_plain(&run.info, state, fails(FailureKind::Permanent)).await
        } else {
            harness.finish_with_outputs(&run.info, state, 1).await
        });
    }
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(99)).await;
    assert!(done.replies.iter().all(|answer| *answer == Reply::Done));
    done.claimed.into_iter().map(|claimed| claimed.state).collect()
}

fn retry(run: &Run, state: StateId) -> Operation {
    Operation::Control(run.info.clone(), Control::Retry(state))
}

fn is_refused(answer: &Reply, cause: &str) -> bool {
    matches!(answer, Reply::Refused(message) if message.contains(cause))
}

async fn a_failed_state_can_be_retried(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = GraphBuilder::from_text("A").with("A", |node| {
        node["retry_policy"] = json!({"max_retries": 1, "strategy": "FIXED", "backoff_factor": 0});
    });
    let template = harness.template(builder).await;
    let run = harness.start(&template).await;
    let first = harness.finish_plain(&run.info, &run.root, fails(FailureKind::Retryable)).await;
    harness.commit_one(first).await;
    let reclaimed = harness.claim(1).await.remove(0);
    assert_eq!(reclaimed.attempts.retries, 1);
    let last = harness.finish_plain(&run.info, &reclaimed, fails(FailureKind::Retryable)).await;
    let done = harness.commit_ok(vec![last], ClaimMode::NewOnly(0)).await;
    assert_eq!(done.run_updates[0].status, RunStatus::Failed);

    let done = harness.commit_ok(vec![retry(&run, reclaimed.id)], ClaimMode::AllDue(9)).await;
    assert_eq!(done.replies, [Reply::Done]);
    assert_eq!(
        (done.run_updates[0].status, done.run_updates[0].status_changed),
        (RunStatus::Running, true)
    );
    let state = &done.claimed[0].state;
    assert_eq!((state.attempts.retries, state.attempts.attempt, state.claim.fence.0), (0, 3, 3));
    assert_eq!(harness.number("SELECT COUNT(*) FROM run WHERE ended_at IS NULL").await, 1);
    harness.check().await;
    let end = harness.finish_with_outputs(&run.info, state, 1).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(0)).await;
    assert_eq!(done.run_updates[0].status, RunStatus::Success);
    harness.check().await;
}

async fn a_retry_reopens_the_unites_above(kind: Kind) {
    let harness = Harness::new(kind).await;
    // A unite in a unite: both are blocked.
    let builder = GraphBuilder::from_text("A > B; B > C; C > V; V(B) > W; W(A)");
    let (run, both) = fanned(&harness, builder, 2).await;
    let fan = harness.finish_with_outputs(&run.info, &both[0], 2).await;
    let branches = harness.commit_and_claim(fan).await;
    end(&harness, &run, &branches, &[1]).await;
    let succeeded = harness.finish_with_outputs(&run.info, &both[1], 1).await;
    let rest = harness.commit_and_claim(succeeded).await;
    let unite = end(&harness, &run, &rest, &[]).await;
    end(&harness, &run, &unite, &[]).await;
    assert_eq!(harness.text("SELECT status FROM run").await, "FAILED");
    let blocked = "SELECT COUNT(*) FROM state WHERE kind = 'blocked'";
    assert_eq!(harness.number(blocked).await, 2);
    harness.check().await;

    assert_eq!(harness.commit_one(retry(&run, branches[1].id)).await, Reply::Done);
    assert_eq!(harness.number(blocked).await, 0);
    assert_eq!(harness.number("SELECT COUNT(*) FROM state WHERE status = 'WAITING'").await, 2);
    assert_eq!(harness.number("SELECT errored FROM run").await, 0);
    assert_eq!(harness.number("SELECT failed FROM run").await, 0);
    harness.check().await;
    let mut held = harness.claim(9).await;
    while !held.is_empty() {
        held = end(&harness, &run, &held, &[]).await;
    }
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    harness.check().await;
}

async fn a_retry_past_its_unite_is_rejected(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = fanout().with("W", |node| node["unites"]["strategy"] = json!("ALL_DONE"));
    let (run, children) = fanned(&harness, builder, 3).await;
    let unite = end(&harness, &run, &children, &[1]).await;
    assert_eq!(unite.len(), 1, "the unite runs without the failed branch");
    let before = harness.database.table("run").await;
    let answer = harness.commit_one(retry(&run, children[1].id)).await;
    assert!(is_refused(&answer, "has continued without"), "{answer:?}");
    let answer = harness.commit_one(harness.redrive(&run.info).await).await;
    assert!(is_refused(&answer, "none of its 1 failed states"), "{answer:?}");
    assert_eq!(harness.states().await, "ERRORED 1, QUEUED 1, SUCCESS 3");
    assert_eq!(harness.database.table("run").await, before);
    harness.check().await;
}

async fn only_failed_states_can_be_retried(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (run, children) = fanned(&harness, fanout(), 2).await;
    let valid_retry = retry(&run, children[0].id);
    assert!(is_refused(&harness.commit_one(valid_retry).await, "only an ERRORED state"));
    assert!(is_refused(
        &harness.commit_one(harness.redrive(&run.info).await).await,
        "no state of this run has failed"
    ));
    end(&harness, &run, &children, &[0]).await;
    let blocked = harness.number("SELECT id FROM state WHERE kind = 'blocked'").await;
    let answer = harness.commit_one(retry(&run, StateId(blocked))).await;
    assert!(is_refused(&answer, "blocked"), "{answer:?}");
    assert_eq!(harness.commit_one(retry(&run, StateId(1 << 40))).await, Reply::Missing);
    // A state of another run is missing.
    let other = harness.start_of("A").await;
    assert_eq!(harness.commit_one(retry(&other, children[0].id)).await, Reply::Missing);
    // Two retries in one batch count once.
    let duplicate_retries = vec![retry(&run, children[0].id), retry(&run, children[0].id)];
    let done = harness.commit_ok(duplicate_retries, ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies[0], Reply::Done);
    assert!(is_refused(&done.replies[1], "CREATED"), "{:?}", done.replies);
    harness.check().await;
}

/// No unite runs between the first retried state and the last.
async fn a_redrive_reopens_all_states_together(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (run, children) = fanned(&harness, fanout(), 5).await;
    end(&harness, &run, &children, &[0, 2, 3]).await;
    assert_eq!(harness.text("SELECT status FROM run").await, "FAILED");
    let done =
        harness.commit_ok(vec![harness.redrive(&run.info).await], ClaimMode::AllDue(9)).await;
    assert_eq!(done.replies, [Reply::Redriven { states: 3, late: 0 }]);
    assert_eq!(done.claimed.len(), 3);
    let counts = harness.database.rows("SELECT open, failed, arrived FROM unite").await.concat();
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    assert_eq!(counts, ["3", "0", "2"]);
    harness.check().await;
    let held: Vec<_> = done.claimed.into_iter().map(|claimed| claimed.state).collect();
    // Not all of them succeed; the failed ones are retried once more.
    end(&harness, &run, &held, &[1]).await;
    let done =
        harness.commit_ok(vec![harness.redrive(&run.info).await], ClaimMode::AllDue(9)).await;
    assert_eq!(done.replies, [Reply::Redriven { states: 1, late: 0 }]);
    let last = vec![done.claimed[0].state.clone()];
    let mut held = end(&harness, &run, &last, &[]).await;
    while !held.is_empty() {
        held = end(&harness, &run, &held, &[]).await;
    }
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    harness.check().await;
}

async fn a_redrive_reports_late_states(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = GraphBuilder::from_text("A > B S; B > C; C > V; V(B)")
        .with("V", |node| node["unites"]["strategy"] = json!("ALL_DONE"));
    let (run, both) = fanned(&harness, builder, 1).await;
    // S fails in the run; below B, one of two fails and V runs.
    let names: Vec<_> = both
        .iter()
        .map(|state| run.info.graph.node(state.place.node).identifier.as_str())
        .collect();
    let (b, s) = if names[0] == "B" { (0, 1) } else { (1, 0) };
    let fan = harness.finish_with_outputs(&run.info, &both[b], 2).await;
    let branches = harness.commit_and_claim(fan).await;
    end(&harness, &run, &branches, &[0]).await;
    end(&harness, &run, std::slice::from_ref(&both[s]), &[0]).await;
    let done =
        harness.commit_ok(vec![harness.redrive(&run.info).await], ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Redriven { states: 1, late: 1 }]);
    harness.check().await;
}

async fn a_pause_holds_back_retried_states(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (run, children) = fanned(&harness, fanout(), 2).await;
    let event = harness.commit_for_sweep(pause(&run.info, true)).await;
    harness.sweep(&run.info, event, 9).await;
    end(&harness, &run, &children, &[0, 1]).await;
    let done =
        harness.commit_ok(vec![harness.redrive(&run.info).await], ClaimMode::AllDue(9)).await;
    assert_eq!(done.replies, [Reply::Redriven { states: 2, late: 0 }]);
    assert!(done.claimed.is_empty());
    assert_eq!(harness.number("SELECT COUNT(*) FROM state WHERE held_back = 1").await, 2);
    let event = harness.commit_for_sweep(pause(&run.info, false)).await;
    harness.sweep(&run.info, event, 9).await;
    assert_eq!(harness.claim(9).await.len(), 2);
    harness.check().await;
}

/// Starts a run with ten children, all but one of which failed. Returns the failed ones.
async fn failed(harness: &Harness) -> (Run, Vec<StateId>) {
    let (run, children) = fanned(harness, fanout(), 10).await;
    end(harness, &run, &children, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    (run, children[1..].iter().map(|state| state.id).collect())
}

fn reopen_part(run: &Run, part: RedrivePart) -> Operation {
    Operation::Control(run.info.clone(), Control::Redrive(part))
}

/// No unite runs between the first retried state and the last.
async fn a_partial_redrive_holds_back_states(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (run, failed) = failed(&harness).await;
    let event = harness.commit_for_sweep(reopen_part(&run, RedrivePart::Begin)).await;
    assert!(is_refused(
        &harness.commit_one(reopen_part(&run, RedrivePart::Begin)).await,
        "under way"
    ));
    assert!(is_refused(&harness.commit_one(harness.redrive(&run.info).await).await, "under way"));
    harness.check().await;
    for states in failed.chunks(4) {
        let part = RedrivePart::Some { event, states: states.to_vec() };
        let done = harness.commit_ok(vec![reopen_part(&run, part)], ClaimMode::AllDue(9)).await;
        assert_eq!(done.replies, [Reply::Redriven { states: states.len(), late: 0 }]);
        assert!(done.claimed.is_empty() && !done.more_due, "all are held back");
        harness.check().await;
    }
    let sweep_event = PendingSweep { run: run.info.key, event: 0, redrive: event };
    assert_eq!(harness.store.pending_sweeps().await.unwrap(), [sweep_event]);
    // A resume in between releases no state.
    let paused = harness.commit_for_sweep(pause(&run.info, true)).await;
    let resumed = harness.commit_for_sweep(pause(&run.info, false)).await;
    assert!(paused < resumed);
    harness.sweep(&run.info, resumed, 3).await;
    assert!(harness.claim(9).await.is_empty());
    harness.check().await;

    let last = harness.commit_for_sweep(reopen_part(&run, RedrivePart::End { event })).await;
    let late_part = RedrivePart::Some { event, states: failed.clone() };
    assert_eq!(harness.commit_one(reopen_part(&run, late_part)).await, Reply::Stale);
    assert!(harness.claim(9).await.is_empty());
    harness.sweep(&run.info, last, 3).await;
    let held = harness.claim(99).await;
    assert_eq!(held.len(), 9);
    let mut next = end(&harness, &run, &held, &[]).await;
    while !next.is_empty() {
        next = end(&harness, &run, &next, &[]).await;
    }
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    harness.check().await;
}

async fn a_cancel_ends_a_partial_redrive(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (run, failed) = failed(&harness).await;
    let event = harness.commit_for_sweep(reopen_part(&run, RedrivePart::Begin)).await;
    let part = RedrivePart::Some { event, states: failed[..4].to_vec() };
    harness.commit_one(reopen_part(&run, part)).await;
    let cancelled =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    let rest = RedrivePart::Some { event, states: failed[4..].to_vec() };
    assert_eq!(harness.commit_one(reopen_part(&run, rest)).await, Reply::Stale);
    assert_eq!(
        harness.commit_one(reopen_part(&run, RedrivePart::End { event })).await,
        Reply::Stale
    );
    harness.sweep(&run.info, cancelled, 3).await;
    assert_eq!(harness.states().await, "CANCELLED 5, ERRORED 5, SUCCESS 2");
    harness.check().await;
}
