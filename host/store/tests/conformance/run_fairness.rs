//! Fairness among the runs of a namespace: round-robin, independent of their sizes. A delayed state
//! becomes ready when it is due.
//!
//! Not here: fairness among namespaces (`namespaces`), and the computation of shares (a unit test).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{NamespaceKey, RunKey};
use exosphere_domain::outcome::Outcome;
use exosphere_store::{
    Batch, ClaimMode, ClaimShares, Committed, NewRun, Operation, Reply, RunInfo, RunShare,
};

use crate::harness::{Harness, pause};
use crate::test_database::Kind;

on_both! {
    small_runs_are_claimed_beside_large_ones,
    many_runs_are_claimed_round_robin,
    a_run_quota_bounds_its_claims,
    a_paused_run_does_not_block_others,
    delayed_states_become_ready_when_due,
    many_delayed_states_become_ready_gradually,
    released_states_are_claimed_after_older_ones,
}

/// Starts a run with `branches` due states, in a namespace that all runs share.
async fn start_ready_run(harness: &Harness, branches: usize) -> Arc<RunInfo> {
    let template = harness.template(GraphBuilder::from_text("U > X; X > W; W(U)")).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, branches).await;
    harness.commit_ok(vec![fan], ClaimMode::NewOnly(0)).await;
    run.info
}

fn by_run(done: &Committed) -> BTreeMap<RunKey, usize> {
    let mut counts = BTreeMap::new();
    for claimed in &done.claimed {
        *counts.entry(claimed.state.run).or_default() += 1;
    }
    counts
}

/// Claims with the cursors of a host's earlier claims.
async fn claim(
    harness: &Harness,
    limit: u32,
    cursors: &mut BTreeMap<NamespaceKey, RunKey>,
) -> Committed {
    let batch = harness.batch(Vec::new(), ClaimMode::AllDue(limit));
    let batch = Batch { cursors: cursors.clone(), ..batch };
    let done = harness.store.commit(batch).await.unwrap();
    cursors.clone_from(&done.cursors);
    done
}

async fn small_runs_are_claimed_beside_large_ones(kind: Kind) {
    let harness = Harness::new(kind).await;
    let large = start_ready_run(&harness, 500).await;
    let small = start_ready_run(&harness, 1).await;
    let other = start_ready_run(&harness, 20).await;
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(15)).await;
    assert_eq!(by_run(&done), BTreeMap::from([(large.key, 7), (small.key, 1), (other.key, 7)]));
    assert!(done.more_due);
    // The run with fewer claimed states gets more.
    let runs = [(large.key, 400, 9), (other.key, 390, 99)];
    let runs = runs.map(|(run, held, left)| (run, RunShare { held, left }));
    let shares = ClaimShares { runs: runs.into(), ..ClaimShares::unbounded() };
    let batch = Batch { shares, ..harness.batch(Vec::new(), ClaimMode::AllDue(16)) };
    let done = harness.store.commit(batch).await.unwrap();
    assert_eq!(by_run(&done), BTreeMap::from([(large.key, 3), (other.key, 13)]));
    let rest = harness.commit_ok(Vec::new(), ClaimMode::AllDue(1_000)).await;
    assert_eq!((rest.claimed.len(), rest.more_due), (490, false));
    harness.check().await;
}

async fn many_runs_are_claimed_round_robin(kind: Kind) {
    const RUNS: usize = 40;
    let harness = Harness::new(kind).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(start_ready_run(&harness, 3).await.key);
    }
    let (mut cursors, mut granted) = (BTreeMap::new(), BTreeMap::<RunKey, usize>::new());
    for step in 1..=RUNS * 3 / 4 {
        let done = claim(&harness, 4, &mut cursors).await;
        assert_eq!(done.claimed.len(), 4);
        for (run, count) in by_run(&done) {
            *granted.entry(run).or_default() += count;
        }
        let granted_to = |run| granted.get(run).copied().unwrap_or_default();
        let (min, max) = (runs.iter().map(granted_to).min(), runs.iter().map(granted_to).max());
        assert!(max.unwrap() - min.unwrap() <= 1, "after {step}: {granted:?}");
    }
    assert!(claim(&harness, 4, &mut cursors).await.claimed.is_empty() && cursors.is_empty());
    harness.check().await;
}

async fn a_run_quota_bounds_its_claims(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start_ready_run(&harness, 9).await;
    let other = start_ready_run(&harness, 2).await;
    let shares = |left| {
        let runs = HashMap::from([(run.key, RunShare { held: 5, left })]);
        ClaimShares { runs, ..ClaimShares::unbounded() }
    };
    let batch = Batch { shares: shares(3), ..harness.batch(Vec::new(), ClaimMode::AllDue(99)) };
    let done = harness.store.commit(batch).await.unwrap();
    assert_eq!(by_run(&done), BTreeMap::from([(run.key, 3), (other.key, 2)]));
    assert!(!done.more_due && done.saturated.is_empty());
    assert_eq!(done.saturated_runs, [(run.namespace_key, run.key)].into());
    assert!(!done.added, "no new state is claimable");

    let template = harness.template(GraphBuilder::from_text("U > X; X > W; W(U)")).await;
    let new = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&new.info, &new.root, 9).await;
    let runs = HashMap::from([(new.info.key, RunShare { held: 1, left: 4 })]);
    let shares = ClaimShares { runs, ..ClaimShares::unbounded() };
    let batch = Batch { shares, ..harness.batch(vec![fan], ClaimMode::NewOnly(99)) };
    let done = harness.store.commit(batch).await.unwrap();
    assert_eq!(by_run(&done), BTreeMap::from([(new.info.key, 4)]));
    assert_eq!(done.saturated_runs, [(new.info.namespace_key, new.info.key)].into());
    assert!(done.added && !done.more_due);
    harness.check().await;
}

/// Until the sweep, claims pass over the states of a paused run, and other runs get its share.
async fn a_paused_run_does_not_block_others(kind: Kind) {
    let harness = Harness::new(kind).await;
    let first = start_ready_run(&harness, 20).await;
    let paused = start_ready_run(&harness, 20).await;
    let last = start_ready_run(&harness, 20).await;
    let event = harness.commit_for_sweep(pause(&paused, true)).await;
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(30)).await;
    let counts = by_run(&done);
    assert_eq!((done.claimed.len(), counts.len()), (30, 2), "{counts:?}");
    assert!(counts[&first.key] >= 10 && counts[&last.key] >= 10, "{counts:?}");
    harness.sweep(&paused, event, 100).await;
    let rest = harness.commit_ok(Vec::new(), ClaimMode::AllDue(100)).await;
    assert_eq!((rest.claimed.len(), rest.more_due), (10, false));
    let event = harness.commit_for_sweep(pause(&paused, false)).await;
    harness.sweep(&paused, event, 100).await;
    assert_eq!(harness.claim(100).await.len(), 20);
    harness.check().await;
}

async fn delayed_states_become_ready_when_due(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut due = Vec::new();
    for delay in [60_000, 30_000] {
        let new = NewRun { delay, ..harness.new_run(&template).await };
        let done =
            harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(9)).await;
        assert!(!done.added, "nothing is claimable yet");
        due.extend(done.next_due);
    }
    let run = harness.start(&template).await;
    let requeued = harness.finish_plain(&run.info, &run.root, Outcome::RequeueAfter(90_000)).await;
    assert_eq!(harness.commit_one(requeued).await, Reply::Done);
    let before_due = harness.commit_ok(Vec::new(), ClaimMode::AllDue(9)).await;
    assert!(before_due.claimed.is_empty() && !before_due.more_due);
    assert_eq!(before_due.next_due, due.get(1).copied());
    harness.advance(31_000).await;
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(9)).await;
    assert_eq!((done.claimed.len(), done.more_due, done.added), (1, false, true));
    harness.advance(60_000).await;
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(1)).await;
    assert_eq!((done.claimed.len(), done.more_due), (1, true), "two are due");
    assert_eq!(harness.claim(9).await.len(), 1);
    assert_eq!(harness.number("SELECT COUNT(*) FROM state WHERE delayed = 1").await, 0);
    harness.check().await;
}

async fn many_delayed_states_become_ready_gradually(kind: Kind) {
    const STATES: usize = 700;
    let harness = Harness::new(kind).await;
    let run = start_ready_run(&harness, STATES).await;
    harness
        .database
        .execute("UPDATE state SET delayed = 1 WHERE status = 'CREATED'")
        .await
        .unwrap();
    let small_run = start_ready_run(&harness, 1).await;
    let delayed = "SELECT COUNT(*) FROM state WHERE delayed = 1";
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(4)).await;
    assert_eq!(by_run(&done), BTreeMap::from([(run.key, 3), (small_run.key, 1)]));
    let left = harness.number(delayed).await;
    assert!(left > 100 && left < STATES as i64 && done.more_due, "{left}");
    let rest = harness.commit_ok(Vec::new(), ClaimMode::AllDue(1_000)).await;
    assert_eq!((rest.claimed.len(), harness.number(delayed).await), (STATES - 3, 0));
    harness.check().await;
}

async fn released_states_are_claimed_after_older_ones(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = start_ready_run(&harness, 3).await;
    let first = harness.claim(1).await.remove(0);
    harness.advance(10).await;
    let released = harness.finish_plain(&run, &first, Outcome::Released).await;
    let done = harness.commit_ok(vec![released], ClaimMode::NewOnly(0)).await;
    assert!(done.more_due && done.added);
    let claims = [harness.claim(1).await, harness.claim(1).await, harness.claim(1).await].concat();
    let last = claims.last().unwrap();
    assert_eq!((claims.len(), last.id, last.attempts.attempt), (3, first.id, 1));
    harness.check().await;
}
