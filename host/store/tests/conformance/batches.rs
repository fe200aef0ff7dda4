//! Batches: each commits as a whole or not at all, and counts its operations once.

use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::StateId;
use exosphere_domain::limits::Limit;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{Answer, Member, NewRun, RedrivePart, StoreError, Want};
use serde_json::json;

use crate::harness::{Bed, fails, outputs, sets};
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
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, 5).await;
    let done = bed.done(vec![fan], Want::Births(3)).await;
    assert_eq!(done.leased.len(), 3);
    assert!(done.more, "two are left");
    assert!(done.leased.iter().all(|leased| leased.known.len() <= 1));
    let rest = bed.done(vec![], Want::Claims(9)).await;
    assert_eq!((rest.leased.len(), rest.more), (2, false));
    bed.check().await;
}

async fn a_data_error_rolls_back_the_batch(kind: Kind) {
    let bed = Bed::new(kind).await;
    let template = bed.template(Sketch::of(FANOUT)).await;
    let run = bed.start(&template).await;
    let tables = ["run", "state", "output", "unite", "entry", "attempt"];
    let mut before = Vec::new();
    for table in tables {
        before.push(bed.place.table(table).await);
    }
    let bad = async || {
        // The run's first state has a number that is taken.
        let mut bad = bed.new_run(&template).await;
        bad.root.id = run.root.id;
        Member::Start(bad.into())
    };
    let large = async || {
        let mut large = bed.new_run(&template).await;
        large.store = (0..99).map(|n| (format!("key {n}"), String::new())).collect();
        Member::Start(large.into())
    };
    for bad in [bad().await, large().await] {
        let fan = bed.ends(&run.info, &run.root, outputs(2), sets("k", "v")).await;
        let fine = Member::Start(bed.new_run(&template).await.into());
        let members = [fan, bad, fine, Member::Cancel(run.info.clone())];
        let failed = bed.commit(members.into(), Want::Births(9)).await;
        assert!(matches!(failed, Err(StoreError::Data(_))), "{failed:?}");
        for (table, before) in tables.into_iter().zip(&before) {
            assert_eq!(bed.place.table(table).await, *before, "{table}");
        }
    }
    // The rest of the batch commits without it. The connection is as good as before.
    let fan = bed.ends(&run.info, &run.root, outputs(2), sets("k", "v")).await;
    let batch = bed.batch(vec![fan, bad().await], Want::Births(9));
    let parts = [batch.range.start..1, 1..batch.range.end];
    let [fine, bad] = parts.map(|range| exosphere_store::Batch { range, ..batch.clone() });
    assert_eq!(bed.store.commit(fine).await.unwrap().answers, [Answer::Done]);
    assert!(matches!(bed.store.commit(bad).await, Err(StoreError::Data(_))));
    assert_eq!(bed.states().await, "QUEUED 2, SUCCESS 1, WAITING 1");
    bed.check().await;
}

async fn drained_unites_close_and_end_the_run(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, 2).await;
    let children = bed.births(fan).await;
    let mut ends = Vec::new();
    for child in &children {
        ends.push(bed.outputs(&run.info, child, 1).await);
    }
    let counts = async || {
        let rows = bed.place.rows("SELECT open, failed, arrived FROM unite").await;
        rows.concat().into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts().await, "2 0 0");
    let done = bed.done(ends, Want::Births(9)).await;
    assert_eq!(counts().await, "0 0 2");
    assert_eq!(done.leased.len(), 1);
    let unite = done.leased[0].state.clone();
    let end = bed.outputs(&run.info, &unite, 1).await;
    let done = bed.done(vec![end], Want::Births(9)).await;
    assert_eq!((done.touched[0].status, done.touched[0].turned), (RunStatus::Success, true));
    assert_eq!(bed.text("SELECT status FROM run").await, "SUCCESS");
    assert_eq!(bed.number("SELECT open FROM run").await, 0);
    bed.check().await;
}

/// An empty fanout prunes the inner unite, which closes the outer one, all in the commit that ends
/// the last execution.
async fn closing_a_unite_closes_its_parent(kind: Kind) {
    let bed = Bed::new(kind).await;
    let sketch = Sketch::of("A > B; B > C; C > V; V(B) > W; W(A) > Z");
    let runs = sketch.with("W", |node| node["unites"]["on_empty"] = json!("RUN"));
    let template = bed.template(runs).await;
    let run = bed.start(&template).await;
    let fan = bed.outputs(&run.info, &run.root, 2).await;
    let both = bed.births(fan).await;
    let first = bed.outputs(&run.info, &both[0], 0).await;
    assert!(bed.births(first).await.is_empty());
    let second = bed.outputs(&run.info, &both[1], 1).await;
    let third = bed.births(second).await;
    let pruned = bed.plainly(&run.info, &third[0], Outcome::Prune(None)).await;
    let opened = bed.births(pruned).await;
    assert_eq!(opened.len(), 1);
    assert_eq!(bed.states().await, "PRUNED 3, QUEUED 1, SUCCESS 3");
    let last = bed.outputs(&run.info, &opened[0], 0).await;
    let done = bed.done(vec![last], Want::Births(9)).await;
    assert_eq!(done.touched[0].status, RunStatus::Success);
    bed.check().await;
}

async fn a_blocked_unite_names_its_branches(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, 3).await;
    let children = bed.births(fan).await;
    let mut ends = Vec::new();
    for child in children.iter().rev().take(2) {
        ends.push(bed.plainly(&run.info, child, fails(FailureKind::Permanent)).await);
    }
    ends.push(bed.outputs(&run.info, &children[0], 1).await);
    let done = bed.done(ends, Want::Births(9)).await;
    assert_eq!(done.touched[0].status, RunStatus::Failed);
    let blocked = bed.place.rows("SELECT message FROM state WHERE kind = 'blocked'").await;
    let words = blocked[0][0].as_deref().unwrap();
    // In path order, in whichever order they ended.
    let [first, second] = ["branch 1: X", "branch 2: X"].map(|branch| words.find(branch));
    assert!(first.is_some() && first < second, "{words}");
    bed.check().await;
}

async fn only_the_last_100_attempts_are_kept(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of("A").await;
    let mut state = run.root;
    for _ in 0..103 {
        let again = bed.plainly(&run.info, &state, Outcome::RequeueAfter(1)).await;
        bed.one(again).await;
        let due = format!("UPDATE state SET due_at = 0 WHERE id = {}", state.id);
        bed.place.execute(&due).await.unwrap();
        state = bed.claim(1).await.remove(0);
    }
    let kept = "SELECT COUNT(*) FROM attempt WHERE number > 3";
    assert_eq!(bed.number(kept).await, 100);
    assert_eq!(bed.number("SELECT COUNT(*) FROM attempt").await, 100);
    assert_eq!(bed.number("SELECT requeues FROM run").await, 103);
    assert_eq!(bed.store.attempts(state.id).await.unwrap().len(), 100);
}

/// Each CHECK constraint exists on both databases.
async fn constraints_reject_inconsistent_rows(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.ends(&run.info, &run.root, outputs(1), sets("k", "v")).await;
    bed.births(fan).await;
    for wrong in [
        "UPDATE run SET open = 0",
        "UPDATE run SET status = 'SUCCESS', ended_at = 1",
        "UPDATE run SET status = 'FAILED', ended_at = 1, open = 0",
        "UPDATE run SET ended_at = 1",
        "UPDATE run SET status = 'DONE'",
        "UPDATE run SET open = -1",
        "UPDATE run SET paused = 2",
        "UPDATE run SET unswept = -1",
        "UPDATE run SET start_key = ''",
        "UPDATE state SET session = NULL WHERE status = 'QUEUED'",
        "UPDATE state SET session = 1 WHERE status = 'WAITING'",
        "UPDATE state SET fence = 0 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'SUCCESS', session = NULL, ended_at = 1 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'ERRORED', session = NULL, ended_at = 1 WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'PRUNED', session = NULL WHERE status = 'QUEUED'",
        "UPDATE state SET status = 'DONE'",
        "UPDATE state SET parked = 2",
        "UPDATE state SET delayed = 2",
        "UPDATE state SET begun = -1",
        "UPDATE unite SET open = -1",
        "UPDATE unite SET failed = -1",
        "UPDATE unite SET arrived = -1",
        "UPDATE entry SET key = ''",
        "UPDATE output SET number = -1",
        "UPDATE number SET next = 0",
        "INSERT INTO attempt (state, number, ended_at, outcome) VALUES (1, 1, 1, 'FAILED')",
        "INSERT INTO attempt (state, number, ended_at, outcome) VALUES (1, 0, 1, 'SUCCESS')",
    ] {
        let refused = bed.place.execute(wrong).await;
        let refused = refused.expect_err(wrong).to_lowercase();
        assert!(refused.contains("check"), "{wrong}: {refused}");
    }
    bed.check().await;
}

async fn one_commit_inserts_100_000_children(kind: Kind) {
    const MANY: usize = 100_000;
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, MANY).await;
    let begun = Instant::now();
    let done = bed.done(vec![fan], Want::Births(100)).await;
    println!("{kind:?}: {MANY} children in {:?}", begun.elapsed());
    assert_eq!(done.leased.len(), 100);
    assert_eq!(bed.number("SELECT open FROM unite").await, MANY as i64);
    assert_eq!(bed.states().await, "CREATED 99900, QUEUED 100, SUCCESS 1, WAITING 1");
    let first = "SELECT MIN(number) FROM output";
    assert_eq!(bed.number(first).await, 0);
    assert_eq!(bed.number("SELECT MAX(number) FROM output").await, MANY as i64 - 1);
    // Paths sort as the outputs do.
    let filter = exosphere_store::StateFilter { most: 70, ..Default::default() };
    let page = bed.store.states(run.info.key, &filter).await.unwrap();
    let ids: Vec<_> = page.items[1..].iter().map(|state| state.id.0).collect();
    assert!(ids.is_sorted_by(|a, b| a + 1 == *b), "{ids:?}");
}

/// A missing run gets an answer, and nothing is written.
async fn operations_on_missing_runs_report_missing(kind: Kind) {
    let bed = Bed::new(kind).await;
    let template = bed.template(Sketch::of("A")).await;
    let NewRun { info, .. } = bed.new_run(&template).await;
    let run = || Arc::clone(&info);
    let members = vec![
        Member::Cancel(run()),
        Member::Pause { run: run(), paused: true },
        Member::Retry { run: run(), state: StateId(1) },
        Member::Redrive { run: run(), part: RedrivePart::Whole(Vec::new()) },
        Member::Sweep { run: run(), event: 1, from: String::new(), most: 9 },
    ];
    let done = bed.done(members, Want::Claims(9)).await;
    assert!(done.answers.iter().all(|answer| *answer == Answer::Missing), "{done:?}");
}

async fn commits_report_final_run_views(kind: Kind) {
    let bed = Bed::new(kind).await;
    let template = bed.template(Sketch::of("A > B").store(json!({"keep": true}))).await;
    let (fine, failing) = (bed.start(&template).await, bed.start(&template).await);
    let cancelled = bed.start(&template).await;
    let end = bed.ends(&fine.info, &fine.root, outputs(1), sets("k", "v")).await;
    let mut done = bed.done(vec![end], Want::Births(9)).await;
    assert!(done.ended.is_empty(), "it goes on");
    let next = done.leased.remove(0).state;
    let told = async |members| {
        let mut told = bed.done(members, Want::Births(0)).await.ended;
        told.sort_by_key(|run| run.key);
        for run in &told {
            let read = bed.store.run(&template.namespace, run.id).await.unwrap();
            assert_eq!(read.as_ref(), Some(run));
        }
        told.iter().map(|run| (run.key, run.status)).collect::<Vec<_>>()
    };
    let members = vec![
        bed.plainly(&fine.info, &next, Outcome::Prune(None)).await,
        bed.plainly(&failing.info, &failing.root, fails(FailureKind::Permanent)).await,
        Member::Cancel(cancelled.info.clone()),
    ];
    let expected = [
        (fine.info.key, RunStatus::Success),
        (failing.info.key, RunStatus::Failed),
        (cancelled.info.key, RunStatus::Cancelled),
    ];
    assert_eq!(told(members).await, expected);
}

async fn a_run_cannot_exceed_its_state_limit(kind: Kind) {
    let mut bed = Bed::new(kind).await;
    bed.limit(Limit::RunStates, 6);
    let sketch = Sketch::of(FANOUT)
        .with("U", |node| node["retry_policy"] = json!({"max_retries": 9, "backoff_factor": 0}));
    let template = bed.template(sketch).await;
    // The root, a unite and four children.
    let (fits, large) = (bed.start(&template).await, bed.start(&template).await);
    let fan = bed.outputs(&fits.info, &fits.root, 4).await;
    assert_eq!(bed.births(fan).await.len(), 4);
    let fan = bed.outputs(&large.info, &large.root, 5).await;
    let done = bed.done(vec![fan], Want::Births(9)).await;
    assert_eq!((done.answers, done.leased.len()), (vec![Answer::Done], 0));
    assert_eq!(bed.states().await, "ERRORED 1, QUEUED 4, SUCCESS 1, WAITING 1");
    let failed = "SELECT kind || ' ' || message FROM state WHERE status = 'ERRORED'";
    let words = bed.text(failed).await;
    assert!(words.starts_with("limit ") && words.contains("`run_states`"), "{words}");
    assert_eq!(bed.number("SELECT retries FROM run WHERE status = 'FAILED'").await, 0);
    bed.check().await;
}
