//! Batches: atomicity, counts, closing of unites, and the limits of a run.

use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::filter::StateFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::StateId;
use exosphere_domain::limits::Limit;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    ClaimMode, Control, NewRun, Operation, RedrivePart, Reply, StatePageRequest, StoreError,
};
use serde_json::json;

use crate::harness::{Harness, fails, outputs, sets};
use crate::test_database::Kind;

on_both! {
    new_states_are_claimed_within_the_budget,
    a_data_error_rolls_back_the_batch,
    drained_unites_close_and_end_the_run,
    closing_a_unite_closes_its_parent,
    a_blocked_unite_names_its_branches,
    only_the_last_100_attempts_are_kept,
    constraints_reject_inconsistent_rows,
    one_commit_inserts_100_000_children,
    operations_on_missing_runs_report_missing,
    commits_report_final_run_views,
    a_run_cannot_exceed_its_state_limit,
}

const FANOUT: &str = "U > X; X > W; W(U)";

async fn new_states_are_claimed_within_the_budget(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 5).await;
    let done = harness.commit_ok(vec![fan], ClaimMode::NewOnly(3)).await;
    assert_eq!(done.claimed.len(), 3);
    assert!(done.more_due, "two are left");
    assert!(done.claimed.iter().all(|claimed| claimed.known_outputs.len() <= 1));
    let rest = harness.commit_ok(vec![], ClaimMode::AllDue(9)).await;
    assert_eq!((rest.claimed.len(), rest.more_due), (2, false));
    harness.check().await;
}

async fn a_data_error_rolls_back_the_batch(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text(FANOUT)).await;
    let run = harness.start(&template).await;
    let tables = ["run", "state", "output", "unite", "entry", "attempt"];
    let mut before = Vec::new();
    for table in tables {
        before.push(harness.database.table(table).await);
    }
    let invalid_start = async || {
        // The id of the run's first state exists.
        let mut invalid_start = harness.new_run(&template).await;
        invalid_start.root.id = run.root.id;
        Operation::Start(invalid_start.into())
    };
    let large = async || {
        let mut large = harness.new_run(&template).await;
        large.store = (0..99).map(|n| (format!("key {n}"), String::new())).collect();
        Operation::Start(large.into())
    };
    for invalid_start in [invalid_start().await, large().await] {
        let fan = harness.finish(&run.info, &run.root, outputs(2), sets("k", "v")).await;
        let valid = Operation::Start(harness.new_run(&template).await.into());
        let operations =
            [fan, invalid_start, valid, Operation::Control(run.info.clone(), Control::Cancel)];
        let failed = harness.commit(operations.into(), ClaimMode::NewOnly(9)).await;
        assert!(matches!(failed, Err(StoreError::Data(_))), "{failed:?}");
        for (table, before) in tables.into_iter().zip(&before) {
            assert_eq!(harness.database.table(table).await, *before, "{table}");
        }
    }
    // The rest of the batch commits without it, on the same connection.
    let fan = harness.finish(&run.info, &run.root, outputs(2), sets("k", "v")).await;
    let batch = harness.batch(vec![fan, invalid_start().await], ClaimMode::NewOnly(9));
    let parts = [batch.range.start..1, 1..batch.range.end];
    let [valid, invalid_start] =
        parts.map(|range| exosphere_store::Batch { range, ..batch.clone() });
    assert_eq!(harness.store.commit(valid).await.unwrap().replies, [Reply::Done]);
    assert!(matches!(harness.store.commit(invalid_start).await, Err(StoreError::Data(_))));
    assert_eq!(harness.states().await, "QUEUED 2, SUCCESS 1, WAITING 1");
    harness.check().await;
}

async fn drained_unites_close_and_end_the_run(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let children = harness.commit_and_claim(fan).await;
    let mut ends = Vec::new();
    for child in &children {
        ends.push(harness.finish_with_outputs(&run.info, child, 1).await);
    }
    let counts = async || {
        let rows = harness.database.rows("SELECT open, failed, arrived FROM unite").await;
        rows.concat().into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts().await, "2 0 0");
    let done = harness.commit_ok(ends, ClaimMode::NewOnly(9)).await;
    assert_eq!(counts().await, "0 0 2");
    assert_eq!(done.claimed.len(), 1);
    let unite = done.claimed[0].state.clone();
    let end = harness.finish_with_outputs(&run.info, &unite, 1).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(9)).await;
    assert_eq!(
        (done.run_updates[0].status, done.run_updates[0].status_changed),
        (RunStatus::Success, true)
    );
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    assert_eq!(harness.number("SELECT open FROM run").await, 0);
    harness.check().await;
}

/// An empty fanout prunes the inner unite, which closes the outer one, all in the commit that ends
/// the last execution.
async fn closing_a_unite_closes_its_parent(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = GraphBuilder::from_text("A > B; B > C; C > V; V(B) > W; W(A) > Z");
    let runs = builder.with("W", |node| node["unites"]["on_empty"] = json!("RUN"));
    let template = harness.template(runs).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let both = harness.commit_and_claim(fan).await;
    let first = harness.finish_with_outputs(&run.info, &both[0], 0).await;
    assert!(harness.commit_and_claim(first).await.is_empty());
    let second = harness.finish_with_outputs(&run.info, &both[1], 1).await;
    let third = harness.commit_and_claim(second).await;
    let pruned = harness.finish_plain(&run.info, &third[0], Outcome::Prune(None)).await;
    let opened = harness.commit_and_claim(pruned).await;
    assert_eq!(opened.len(), 1);
    assert_eq!(harness.states().await, "PRUNED 3, QUEUED 1, SUCCESS 3");
    let last = harness.finish_with_outputs(&run.info, &opened[0], 0).await;
    let done = harness.commit_ok(vec![last], ClaimMode::NewOnly(9)).await;
    assert_eq!(done.run_updates[0].status, RunStatus::Success);
    harness.check().await;
}

async fn a_blocked_unite_names_its_branches(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let children = harness.commit_and_claim(fan).await;
    let mut ends = Vec::new();
    for child in children.iter().rev().take(2) {
        ends.push(harness.finish_plain(&run.info, child, fails(FailureKind::Permanent)).await);
    }
    ends.push(harness.finish_with_outputs(&run.info, &children[0], 1).await);
    let done = harness.commit_ok(ends, ClaimMode::NewOnly(9)).await;
    assert_eq!(done.run_updates[0].status, RunStatus::Failed);
    let blocked = harness.database.rows("SELECT message FROM state WHERE kind = 'blocked'").await;
    let message = blocked[0][0].as_deref().unwrap();
    // In path order, not in the order of their ends.
    let [first, second] = ["branch 1: X", "branch 2: X"].map(|branch| message.find(branch));
    assert!(first.is_some() && first < second, "{message}");
    harness.check().await;
}

async fn only_the_last_100_attempts_are_kept(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let mut state = run.root;
    for _ in 0..103 {
        let requeue = harness.finish_plain(&run.info, &state, Outcome::RequeueAfter(1)).await;
        harness.commit_one(requeue).await;
        let due = format!("UPDATE state SET due_at = 0 WHERE id = {}", state.id);
        harness.database.execute(&due).await.unwrap();
        state = harness.claim(1).await.remove(0);
    }
    let count_sql = "SELECT COUNT(*) FROM attempt WHERE number > 3";
    assert_eq!(harness.number(count_sql).await, 100);
    assert_eq!(harness.number("SELECT COUNT(*) FROM attempt").await, 100);
    assert_eq!(harness.number("SELECT requeues FROM run").await, 103);
    assert_eq!(harness.store.attempts(state.id).await.unwrap().len(), 100);
}

/// Each CHECK constraint exists on both databases.
async fn constraints_reject_inconsistent_rows(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish(&run.info, &run.root, outputs(1), sets("k", "v")).await;
    harness.commit_and_claim(fan).await;
    for invalid in [
        "UPDATE run SET open = 0",
        "UPDATE run SET status = 'SUCCESS', ended_at = 1",
        "UPDATE run SET status = 'FAILED', ended_at = 1, open = 0",
        "UPDATE run SET ended_at = 1",
        "UPDATE run SET status = 'DONE'",
        "UPDATE run SET open = -1",
        "UPDATE run SET paused = 2",
        "UPDATE run SET sweep_event = -1",
        "UPDATE run SET start_key = ''",
        "UPDATE state SET session = NULL WHERE status = 'QUEUED'",
        "UPDATE state SET session = 1 WHERE status = 'WAITING'",
        "UPDATE state SET fence = 0 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'SUCCESS', session = NULL, ended_at = 1 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'ERRORED', session = NULL, ended_at = 1 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'PRUNED', session = NULL WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'DONE'",
        "UPDATE state SET held_back = 2",
        "UPDATE state SET delayed = 2",
        "UPDATE state SET begun_fence = -1",
        "UPDATE unite SET open = -1",
        "UPDATE unite SET failed = -1",
        "UPDATE unite SET arrived = -1",
        "UPDATE entry SET key = ''",
        "UPDATE output SET number = -1",
        "UPDATE number SET next = 0",
        "INSERT INTO attempt (state, number, ended_at, outcome) VALUES (1, 1, 1, 'FAILED')",
        "INSERT INTO attempt (state, number, ended_at, outcome) VALUES (1, 0, 1, 'SUCCESS')",
    ] {
        let refused = harness.database.execute(invalid).await;
        let refused = refused.expect_err(invalid).to_lowercase();
        assert!(refused.contains("check"), "{invalid}: {refused}");
    }
    harness.check().await;
}

async fn one_commit_inserts_100_000_children(kind: Kind) {
    const CHILDREN: usize = 100_000;
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, CHILDREN).await;
    let started = Instant::now();
    let done = harness.commit_ok(vec![fan], ClaimMode::NewOnly(100)).await;
    println!("{kind:?}: {CHILDREN} children in {:?}", started.elapsed());
    assert_eq!(done.claimed.len(), 100);
    assert_eq!(harness.number("SELECT open FROM unite").await, CHILDREN as i64);
    assert_eq!(harness.states().await, "CREATED 99900, QUEUED 100, SUCCESS 1, WAITING 1");
    let first = "SELECT MIN(number) FROM output";
    assert_eq!(harness.number(first).await, 0);
    assert_eq!(harness.number("SELECT MAX(number) FROM output").await, CHILDREN as i64 - 1);
    // Paths sort as the outputs do.
    let request = StatePageRequest { limit: 70, ..StatePageRequest::default() };
    let filter = StateFilter::default();
    let page = harness.store.states(run.info.key, &filter, None, &request).await.unwrap();
    let ids: Vec<_> = page.items[1..].iter().map(|state| state.id.0).collect();
    assert!(ids.is_sorted_by(|a, b| a + 1 == *b), "{ids:?}");
}

/// A missing run gets an answer, and nothing is written.
async fn operations_on_missing_runs_report_missing(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let NewRun { info, .. } = harness.new_run(&template).await;
    let run = || Arc::clone(&info);
    let operations = vec![
        Operation::Control(run(), Control::Cancel),
        Operation::Control(run(), Control::Pause),
        Operation::Control(run(), Control::Retry(StateId(1))),
        Operation::Control(run(), Control::Redrive(RedrivePart::Whole(Vec::new()))),
        Operation::Control(run(), Control::Sweep { event: 1, from: String::new(), limit: 9 }),
    ];
    let done = harness.commit_ok(operations, ClaimMode::AllDue(9)).await;
    assert!(done.replies.iter().all(|answer| *answer == Reply::Missing), "{done:?}");
}

async fn commits_report_final_run_views(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template =
        harness.template(GraphBuilder::from_text("A > B").store(json!({"keep": true}))).await;
    let (succeeding, failing) = (harness.start(&template).await, harness.start(&template).await);
    let cancelled = harness.start(&template).await;
    let end = harness.finish(&succeeding.info, &succeeding.root, outputs(1), sets("k", "v")).await;
    let mut done = harness.commit_ok(vec![end], ClaimMode::NewOnly(9)).await;
    assert!(done.ended.is_empty(), "no run has ended");
    let next = done.claimed.remove(0).state;
    let final_runs = async |operations| {
        let mut final_runs = harness.commit_ok(operations, ClaimMode::NewOnly(0)).await.ended;
        final_runs.sort_by_key(|run| run.key);
        for run in &final_runs {
            let read = harness.store.run(&template.namespace, run.id).await.unwrap();
            assert_eq!(read.as_ref(), Some(run));
        }
        final_runs.iter().map(|run| (run.key, run.status)).collect::<Vec<_>>()
    };
    let operations = vec![
        harness.finish_plain(&succeeding.info, &next, Outcome::Prune(None)).await,
        harness.finish_plain(&failing.info, &failing.root, fails(FailureKind::Permanent)).await,
        Operation::Control(cancelled.info.clone(), Control::Cancel),
    ];
    let expected = [
        (succeeding.info.key, RunStatus::Success),
        (failing.info.key, RunStatus::Failed),
        (cancelled.info.key, RunStatus::Cancelled),
    ];
    assert_eq!(final_runs(operations).await, expected);
}

async fn a_run_cannot_exceed_its_state_limit(kind: Kind) {
    let mut harness = Harness::new(kind).await;
    harness.limit(Limit::RunStates, 6);
    let builder = GraphBuilder::from_text(FANOUT)
        .with("U", |node| node["retry_policy"] = json!({"max_retries": 9, "backoff_factor": 0}));
    let template = harness.template(builder).await;
    // The root, a unite and four children.
    let (fits, large) = (harness.start(&template).await, harness.start(&template).await);
    let fan = harness.finish_with_outputs(&fits.info, &fits.root, 4).await;
    assert_eq!(harness.commit_and_claim(fan).await.len(), 4);
    let fan = harness.finish_with_outputs(&large.info, &large.root, 5).await;
    let done = harness.commit_ok(vec![fan], ClaimMode::NewOnly(9)).await;
    assert_eq!((done.replies, done.claimed.len()), (vec![Reply::Done], 0));
    assert_eq!(harness.states().await, "ERRORED 1, QUEUED 4, SUCCESS 1, WAITING 1");
    let failed = "SELECT kind || ' ' || message FROM state WHERE status = 'ERRORED'";
    let message = harness.text(failed).await;
    assert!(message.starts_with("limit ") && message.contains("`run_states`"), "{message}");
    assert_eq!(harness.number("SELECT retries FROM run WHERE status = 'FAILED'").await, 0);
    harness.check().await;
}
