//! Reports of commits for traces: the attempts and runs that a commit ended, and the same ends read
//! again.

use std::sync::Arc;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Millis, StateId};
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::{AttemptOutcome, Outcome};
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_store::{
    AttemptEnd, Batch, ClaimMode, CommitReport, Control, EndedAttempt, HostIdentity, Operation,
    Reply, RunInfo,
};

use serde_json::json;

use crate::harness::{Harness, fails, outputs, sweep};
use crate::test_database::Kind;

on_both! {
    ends_are_reported_as_they_are_read,
    a_lost_claim_is_reported_from_its_begin,
    cancelled_attempts_are_reported_once,
    nothing_is_reported_unasked,
    creators_and_members_are_found,
    lost_sessions_are_those_right_before,
}

const FANOUT: &str = "U > X; X > W; W(U)";

/// Every state.
const ALL: (StateId, StateId) = (StateId(0), StateId(i64::MAX));

const USAGE: Usage =
    Usage { cpu_us: 1, peak_memory_bytes: 2, host_calls: 3, input_bytes: 4, output_bytes: 5 };

/// Ends an execution that began a moment ago.
async fn end(
    harness: &Harness,
    run: &Arc<RunInfo>,
    state: &Claimed,
    outcome: Outcome,
) -> (CommitReport, Vec<Claimed>) {
    let Operation::Finish(mut finished) = harness.finish_plain(run, state, outcome).await else {
        panic!("an end")
    };
    let now = std::time::Instant::now();
    (finished.began_at, finished.usage) = (Some(now), Some(USAGE));
    let operations = vec![Operation::Finish(finished)];
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(9)).await;
    assert_eq!(done.replies, [Reply::Done]);
    let claimed = done.claimed.into_iter().map(|claimed| claimed.state).collect();
    (done.report, claimed)
}

/// Reads the ends of the harness's session again, by state and attempt.
async fn read_again(harness: &Harness, window: Millis) -> Vec<EndedAttempt> {
    let mut read = harness.store.recent_ends(harness.session, &[ALL], window, 99).await.unwrap();
    sort(&mut read);
    read
}

fn sort(attempts: &mut [EndedAttempt]) {
    attempts.sort_by(|a, b| (a.run, &a.path, a.number).cmp(&(b.run, &b.path, b.number)));
}

async fn ends_are_reported_as_they_are_read(kind: Kind) {
    let harness = Harness::new(kind).await;
    let graph = GraphBuilder::from_text(FANOUT)
        .with("U", |node| node["retry_policy"] = json!({"max_retries": 9, "backoff_factor": 0}));
    let template = harness.template(graph).await;
    let run = harness.start(&template).await;
    let mut reported = Vec::new();
    let (report, members) = end(&harness, &run.info, &run.root, outputs(3)).await;
    reported.extend(report.attempts);
    let ends = [outputs(1), Outcome::Prune(None), fails(FailureKind::Permanent)];
    let mut kinds = Vec::new();
    for (member, outcome) in members.iter().zip(ends) {
        let (report, _) = end(&harness, &run.info, member, outcome).await;
        assert!(report.runs.contains_key(&run.info.key), "{report:?}");
        kinds.push(report.attempts[0].end);
        assert_eq!(report.ended_runs.is_empty(), kinds.len() < 3, "{report:?}");
        for ended in &report.ended_runs {
            assert_eq!((ended.run, ended.status), (run.info.key, RunStatus::Failed));
            assert!(ended.created_at <= ended.ended_at && ended.missed.is_none(), "{ended:?}");
        }
        reported.extend(report.attempts);
    }
    let outcome = |outcome, kind| AttemptEnd::Outcome(outcome, kind);
    assert_eq!(
        kinds,
        [
            outcome(AttemptOutcome::Success, None),
            outcome(AttemptOutcome::Pruned, None),
            outcome(AttemptOutcome::Errored, Some(FailureKind::Permanent)),
        ]
    );
    // An attempt that another follows.
    let run = harness.start(&template).await;
    let (report, _) = end(&harness, &run.info, &run.root, fails(FailureKind::Trap)).await;
    reported.extend(report.attempts);
    for attempt in &reported {
        assert!(attempt.began_at.is_some_and(|began| began <= attempt.ended_at), "{attempt:?}");
        assert_eq!((attempt.usage, attempt.session), (Some(USAGE), harness.session));
    }
    sort(&mut reported);
    assert_eq!(read_again(&harness, Millis::MAX).await, reported);
    harness.advance(10_000).await;
    let again = harness.claim(1).await.remove(0);
    let (report, _) = end(&harness, &run.info, &again, Outcome::RequeueAfter(1)).await;
    assert_eq!(report.attempts[0].number, 2);
    // Of the last moment there is the last one alone.
    assert_eq!(read_again(&harness, 1_000).await, report.attempts);
    let newest = harness.store.newest_states(2).await.unwrap();
    assert!(newest.0 < newest.1, "{newest:?}");
    let none = harness.store.recent_ends(harness.session, &[], Millis::MAX, 99).await.unwrap();
    assert_eq!(none, []);
}

async fn a_lost_claim_is_reported_from_its_begin(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    harness.advance(50).await;
    let mut held = harness.store.held_by(harness.session, StateId(0), 9, harness.now()).await;
    let held = held.as_mut().unwrap().remove(0);
    let claimed_at = held.claimed_at.unwrap();
    let lost = harness.finish_plain(&run.info, &held.state, Outcome::HostLost).await;
    let Operation::Finish(mut lost) = lost else { panic!("an end") };
    lost.changes.end = lost.changes.end.with_claim_time(held.claimed_at);
    let done = harness.commit_ok(vec![Operation::Finish(lost)], ClaimMode::NewOnly(0)).await;
    let attempt = &done.report.attempts[0];
    let end = AttemptEnd::Outcome(AttemptOutcome::Errored, Some(FailureKind::HostLost));
    assert_eq!((attempt.end, attempt.began_at, attempt.number), (end, Some(claimed_at), 1));
    assert!(attempt.ended_at >= claimed_at + 50, "{attempt:?}");
    assert_eq!(read_again(&harness, 0).await, std::slice::from_ref(attempt));
}

async fn cancelled_attempts_are_reported_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    // One of the children is claimed.
    let done = harness.commit_ok(vec![fan], ClaimMode::NewOnly(1)).await;
    let child = done.claimed.into_iter().next().unwrap().state;
    let cancel = Operation::Control(run.info.clone(), Control::Cancel);
    let cancelled = harness.commit_ok(vec![cancel], ClaimMode::NewOnly(0)).await;
    let Reply::ToSweep(event) = cancelled.replies[0] else { panic!("{:?}", cancelled.replies) };
    let report = cancelled.report;
    assert_eq!(report.ended_runs[0].status, RunStatus::Cancelled);
    // Its end comes too late.
    let late = harness.finish_plain(&run.info, &child, outputs(1)).await;
    let done = harness.commit_ok(vec![late], ClaimMode::NewOnly(0)).await;
    assert_eq!((done.replies, done.report.attempts), (vec![Reply::Stale], vec![]));
    let swept = sweep(&run.info, event, "", 99);
    let done = harness.commit_ok(vec![swept], ClaimMode::NewOnly(0)).await;
    let [attempt] = &done.report.attempts[..] else { panic!("{:?}", done.report) };
    assert_eq!((&attempt.path, attempt.end), (&child.place.path, AttemptEnd::Cancelled));
    let read = read_again(&harness, Millis::MAX).await;
    assert_eq!(read.iter().filter(|read| read.end == AttemptEnd::Cancelled).count(), 1);
    assert!(read.contains(attempt), "{read:?}");
}

async fn nothing_is_reported_unasked(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let finish = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    let unasked = Batch { traces: None, ..harness.batch(vec![finish], ClaimMode::NewOnly(0)) };
    let done = harness.store.commit(unasked).await.unwrap();
    assert!(done.report.is_empty() && done.report.runs.is_empty(), "{:?}", done.report);
    let run = harness.start_of("A").await;
    let finish = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    let none = "0".parse().unwrap();
    let traces = Some(none);
    let unsampled = Batch { traces, ..harness.batch(vec![finish], ClaimMode::NewOnly(0)) };
    let done = harness.store.commit(unsampled).await.unwrap();
    assert!(done.report.is_empty() && done.report.runs.is_empty(), "{:?}", done.report);
}

async fn creators_and_members_are_found(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let (_, members) = end(&harness, &run.info, &run.root, outputs(3)).await;
    let root = run.root.place.path.clone();
    let missing = root.child(7, 0);
    let places = [(run.info.key, root.clone()), (run.info.key, missing)];
    let [found] = &harness.store.attempts_at(&places).await.unwrap()[..] else { panic!("one") };
    assert_eq!((found.run, &found.path, found.number), (run.info.key, &root, 1));
    for member in &members[1..] {
        end(&harness, &run.info, member, outputs(1)).await;
    }
    let node = members[0].place.node;
    let below =
        async |limit| harness.store.successes_below(run.info.key, &root, &[node], limit).await;
    let expected = |member: &Claimed| (member.place.path.clone(), 1);
    assert_eq!(below(9).await.unwrap(), members[1..].iter().map(expected).collect::<Vec<_>>());
    assert_eq!(below(1).await.unwrap(), [expected(&members[1])]);
    let hosts = harness.store.hosts_of(&[harness.session]).await.unwrap();
    assert_eq!(hosts.get(&harness.session), Some(&1));
}

async fn lost_sessions_are_those_right_before(kind: Kind) {
    let harness = Harness::new(kind).await;
    let begin = async || {
        harness.advance(1_000).await;
        let host = HostIdentity::new("crashing", "crashing");
        harness.store.begin_session(&host, harness.now()).await.unwrap()
    };
    let lost_before = async |session| harness.store.lost_sessions_before(session).await.unwrap();
    let first = begin().await;
    assert_eq!(lost_before(first).await, []);
    harness.advance(1_000).await;
    harness.store.end_session(first, harness.now()).await.unwrap();
    let second = begin().await;
    assert_eq!(lost_before(second).await, [], "the first one was stopped gracefully");
    let third = begin().await;
    let fourth = begin().await;
    assert_eq!(lost_before(third).await, [second]);
    assert_eq!(lost_before(fourth).await, [third, second]);
}
