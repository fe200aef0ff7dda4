//! Figures for metrics: those of the whole database, and the counts of commits.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    ClaimMode, CommitCounts, Committed, Control, DatabaseGauges, NewPause, Operation, Reply,
};

use crate::harness::{Harness, fails, outputs, pause, sweep};
use crate::test_database::Kind;

on_both! {
    due_states_are_counted,
    commits_are_tallied,
    a_stale_end_is_not_tallied,
    a_claim_tells_the_due_time,
}

async fn figures(harness: &Harness) -> DatabaseGauges {
    harness.store.database_gauges(harness.now()).await.unwrap()
}

async fn due_states_are_counted(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let found = figures(&harness).await;
    assert_eq!((found.states_due, found.oldest_due_ms, found.hosts_alive), (0, 0, 1));
    assert!(found.bytes > 100_000, "{found:?}");
    let mut runs = Vec::new();
    for delay in [0, 0, 600_000] {
        let mut new = harness.new_run(&template).await;
        new.delay = delay;
        runs.push(new.info.clone());
        assert_eq!(harness.commit_one(Operation::Start(new.into())).await, Reply::Done);
    }
    harness.advance(50).await;
    let found = figures(&harness).await;
    assert_eq!(found.states_due, 2, "the third is due later");
    assert!((50..60_000).contains(&found.oldest_due_ms), "{found:?}");
    let event = harness.commit_for_sweep(pause(&runs[0], true)).await;
    harness.commit_one(sweep(&runs[0], event, "", 9)).await;
    assert_eq!(figures(&harness).await.states_due, 1, "the run is paused");
    let why = NewPause { by: None, reason: "r".into() };
    let store = &harness.store;
    store.pause_namespace(&template.namespace, Some(&why), harness.now()).await.unwrap();
    assert_eq!(figures(&harness).await.states_due, 0, "the namespace is paused");
    store.pause_namespace(&template.namespace, None, harness.now()).await.unwrap();
    assert_eq!(harness.claim(9).await.len(), 1);
    assert_eq!(figures(&harness).await.states_due, 0, "it is claimed");
}

/// Returns the only counts of a commit.
fn counts(mut done: Committed) -> CommitCounts {
    assert_eq!(done.commit_counts.len(), 1, "{done:?}");
    done.commit_counts.remove(0).1
}

async fn commits_are_tallied(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("U > X; X > W; W(U)")).await;
    let new = harness.new_run(&template).await;
    let info = new.info.clone();
    let start = vec![Operation::Start(new.into())];
    let done = harness.commit_ok(start, ClaimMode::NewOnly(1)).await;
    let root = done.claimed[0].state.clone();
    assert_eq!(counts(done), CommitCounts { started: true, ..CommitCounts::default() });
    let end = harness.finish_plain(&info, &root, outputs(3)).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(9)).await;
    let states: Vec<_> = done.claimed.iter().map(|claimed| claimed.state.clone()).collect();
    assert_eq!(counts(done), CommitCounts { succeeded: 1, ..CommitCounts::default() });
    // A failure blocks the unite, which has a failure of its own, and ends the run.
    let ends = [
        harness.finish_plain(&info, &states[0], Outcome::Prune(None)).await,
        harness.finish_plain(&info, &states[1], fails(FailureKind::Permanent)).await,
        harness.finish_plain(&info, &states[2], outputs(1)).await,
    ];
    let found = counts(harness.commit_ok(ends.into(), ClaimMode::NewOnly(0)).await);
    assert_eq!((found.succeeded, found.pruned, found.cancelled), (1, 1, 0));
    assert_eq!(found.errored[FailureKind::Permanent as usize], 1);
    assert_eq!(found.errored[FailureKind::Blocked as usize], 1);
    assert_eq!(found.errored.iter().sum::<u32>(), 2);
    assert_eq!(found.ended.map(|(status, _)| status), Some(RunStatus::Failed));
}

async fn a_stale_end_is_not_tallied(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let end = || harness.finish_plain(&run.info, &run.root, outputs(1));
    let twice = vec![end().await, end().await];
    let done = harness.commit_ok(twice, ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Done, Reply::Stale]);
    assert_eq!(counts(done).succeeded, 1);
    let done = harness.commit_ok(vec![end().await], ClaimMode::NewOnly(0)).await;
    assert_eq!((&done.replies[..], done.commit_counts.len()), (&[Reply::Stale][..], 0));
    // A cancelled run ends once, and its states when they are swept.
    let run = harness.start_of("A").await;
    let cancel = vec![Operation::Control(run.info.clone(), Control::Cancel)];
    let done = harness.commit_ok(cancel, ClaimMode::NewOnly(0)).await;
    let Reply::ToSweep(event) = done.replies[0] else { panic!("{done:?}") };
    let found = counts(done);
    assert_eq!(found.ended.map(|(status, _)| status), Some(RunStatus::Cancelled));
    let late = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    let swept = vec![sweep(&run.info, event, "", 9), late];
    let found = counts(harness.commit_ok(swept, ClaimMode::NewOnly(0)).await);
    assert_eq!(found, CommitCounts { cancelled: 1, ..CommitCounts::default() });
}

async fn a_claim_tells_the_due_time(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let new = harness.new_run(&template).await;
    harness.commit_one(Operation::Start(new.into())).await;
    harness.advance(70).await;
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(1)).await;
    let waited = done.now - done.claimed[0].due_at;
    assert!((70..10_000).contains(&waited), "{waited}");
}
