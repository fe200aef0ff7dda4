//! Bulk operations: each run is changed once and counted once, also if a page is begun again, if
//! two hosts work on it, or if the operation is cancelled meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exosphere_domain::bulk::{BulkAction, BulkStatus};
use exosphere_domain::failure::FailureKind;
use exosphere_domain::filter::RunFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::BulkId;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    BulkBegin, BulkCancel, BulkPage, BulkStep, BulkView, ClaimMode, Control, MAX_RUNNING_BULKS,
    NewBulk, Operation, RedrivePart, Reply, RunCount, RunInfo,
};
use uuid::Uuid;

use crate::harness::{Harness, Host, Run, Template, fails, name, outputs};
use crate::test_database::Kind;

on_both! {
    a_repeated_page_redrives_once,
    a_page_counts_its_runs_once,
    later_runs_are_left_alone,
    a_cancelled_operation_changes_nothing_more,
    an_operation_of_a_lost_host_continues,
    failures_of_the_host_are_counted,
    pages_reach_every_run,
    running_operations_are_bounded,
    a_key_begins_an_operation_once,
    operations_are_listed_by_namespace,
    old_operations_are_removed,
    an_unreadable_operation_fails,
    counts_of_runs_are_bounded,
}

/// Starts a run, which fails.
async fn failed_run(harness: &Harness, template: &Template) -> Run {
    let run = harness.start(template).await;
    fail(harness, &run).await;
    run
}

/// Fails the root of a run, which the host has claimed.
async fn fail(harness: &Harness, run: &Run) {
    let end = harness.finish_plain(&run.info, &run.root, fails(FailureKind::Permanent)).await;
    assert_eq!(harness.commit_one(end).await, Reply::Done);
}

/// The next id of an operation.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn new_bulk(action: BulkAction, filter: RunFilter) -> NewBulk {
    NewBulk {
        id: BulkId(Uuid::from_u128(NEXT_ID.fetch_add(1, Ordering::Relaxed).into())),
        namespace: name("n"),
        action,
        filter,
        reason: "a test".to_owned(),
        created_by: None,
        expected: RunCount { runs: 3, is_exact: true },
        key: None,
    }
}

fn of_graph(template: &Template) -> RunFilter {
    RunFilter { graph: Some(template.name.clone()), ..RunFilter::default() }
}

/// Begins an operation after a moment, so that it is later than all commits before.
async fn begin(harness: &Harness, new: &NewBulk) {
    harness.advance(10).await;
    assert_eq!(harness.store.begin_bulk(new, harness.now()).await.unwrap(), BulkBegin::Begun);
    harness.advance(10).await;
}

async fn view(harness: &Harness, id: BulkId) -> BulkView {
    harness.store.bulk(&name("n"), id).await.unwrap().unwrap()
}

async fn counts(harness: &Harness, id: BulkId) -> (BulkStatus, u64, u64, u64) {
    let BulkView { status, done, skipped, failed, .. } = view(harness, id).await;
    (status, done, skipped, failed)
}

/// Returns the page of an operation that a host may carry out, and claims it.
async fn page(host: &Host, id: BulkId) -> Option<BulkPage> {
    let pages = host.store.running_bulks(host.session, "", 100).await.unwrap();
    let page = pages.into_iter().find(|page| page.id == id)?;
    host.store.claim_bulk(host.session, id, host.now()).await.unwrap().then_some(page)
}

async fn redrive(host: &Host, page: &BulkPage, run: &Arc<RunInfo>) -> Reply {
    let (failed, _) = host.store.failed_states(run.key, "", 9999, 9999).await.unwrap();
    step(host, page, run, Control::Redrive(RedrivePart::Whole(failed))).await
}

async fn step(host: &Host, page: &BulkPage, run: &Arc<RunInfo>, change: Control) -> Reply {
    let ended_before = page.action.needs_ended().then_some(page.frozen_at);
    let step = BulkStep { bulk: page.id, page: page.page, ended_before, change };
    host.commit_one(Operation::Control(run.clone(), Control::Bulk(Box::new(step)))).await
}

const REDRIVEN: Reply = Reply::Redriven { states: 1, late: 0 };

async fn a_repeated_page_redrives_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (first, second) =
        (failed_run(&harness, &template).await, failed_run(&harness, &template).await);
    let new = new_bulk(BulkAction::Redrive, of_graph(&template));
    begin(&harness, &new).await;
    let begun = page(&harness, new.id).await.unwrap();
    let (runs, next) = harness.store.runs_of_bulk(&begun, 100).await.unwrap();
    assert_eq!((runs, next), (vec![second.info.key, first.info.key], None));
    assert_eq!(redrive(&harness, &begun, &first.info).await, REDRIVEN);
    // The run fails again, and a host begins the page again.
    let root = harness.claim(1).await.remove(0);
    fail(&harness, &Run { info: first.info.clone(), root }).await;
    let again = page(&harness, new.id).await.unwrap();
    assert_eq!(again.page, begun.page);
    let (runs, _) = harness.store.runs_of_bulk(&again, 100).await.unwrap();
    assert_eq!(runs, [second.info.key, first.info.key], "it meets the filter again");
    assert_eq!(redrive(&harness, &again, &first.info).await, Reply::Stale);
    assert_eq!(redrive(&harness, &again, &second.info).await, REDRIVEN);
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Running, 2, 0, 0));
    harness.check().await;
    harness.store.end_page_of_bulk(&again, None, harness.now()).await.unwrap();
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Success, 2, 0, 0));
    // Nor does a host that is late redrive it.
    assert_eq!(redrive(&harness, &begun, &first.info).await, Reply::Stale);
    let redriven = harness.number("SELECT COUNT(*) FROM state WHERE attempt = 2").await;
    assert_eq!(redriven, 1, "only the first has run again");
    assert!(page(&harness, new.id).await.is_none());
    harness.check().await;
}

async fn a_page_counts_its_runs_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let runs = [failed_run(&harness, &template).await, failed_run(&harness, &template).await];
    let new = new_bulk(BulkAction::Delete, of_graph(&template));
    begin(&harness, &new).await;
    let first = page(&harness, new.id).await.unwrap();
    let (keys, next) = harness.store.runs_of_bulk(&first, 1).await.unwrap();
    assert_eq!(keys, [runs[1].info.key]);
    assert_eq!(step(&harness, &first, &runs[1].info, Control::Delete).await, Reply::Done);
    assert_eq!(step(&harness, &first, &runs[1].info, Control::Delete).await, Reply::Missing);
    for _ in 0..2 {
        // The second end finds that the page is over.
        harness.store.end_page_of_bulk(&first, next, harness.now()).await.unwrap();
        assert_eq!(counts(&harness, new.id).await, (BulkStatus::Running, 1, 0, 0));
    }
    let second = page(&harness, new.id).await.unwrap();
    assert_eq!(second.page, first.page + 1);
    let (keys, next) = harness.store.runs_of_bulk(&second, 9).await.unwrap();
    assert_eq!((keys, next), (vec![runs[0].info.key], None));
    // A step of the page before changes nothing.
    assert_eq!(step(&harness, &first, &runs[0].info, Control::Delete).await, Reply::Stale);
    assert_eq!(step(&harness, &second, &runs[0].info, Control::Delete).await, Reply::Done);
    harness.store.end_page_of_bulk(&second, next, harness.now()).await.unwrap();
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Success, 2, 0, 0));
    let ended = view(&harness, new.id).await;
    assert!(ended.ended_at.is_some_and(|ended_at| ended_at >= ended.frozen_at), "{ended:?}");
    assert_eq!(harness.number("SELECT COUNT(*) FROM bulk_run").await, 0);
    harness.check().await;
}

async fn later_runs_are_left_alone(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (running, failed) = (harness.start(&template).await, failed_run(&harness, &template).await);
    let new = new_bulk(BulkAction::Redrive, of_graph(&template));
    begin(&harness, &new).await;
    // One run fails after the freeze, another is started after it.
    fail(&harness, &running).await;
    failed_run(&harness, &template).await;
    let begun = page(&harness, new.id).await.unwrap();
    let (keys, _) = harness.store.runs_of_bulk(&begun, 9).await.unwrap();
    assert_eq!(keys, [failed.info.key, running.info.key]);
    let refused = redrive(&harness, &begun, &running.info).await;
    assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    assert_eq!(redrive(&harness, &begun, &failed.info).await, REDRIVEN);
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Running, 1, 1, 0));
    harness.check().await;
    // A cancel is for runs that have not ended.
    let new = new_bulk(BulkAction::Cancel, of_graph(&template));
    begin(&harness, &new).await;
    let begun = page(&harness, new.id).await.unwrap();
    let (keys, _) = harness.store.runs_of_bulk(&begun, 9).await.unwrap();
    assert_eq!(keys, [failed.info.key]);
    let cancelled = step(&harness, &begun, &failed.info, Control::Cancel).await;
    assert!(matches!(cancelled, Reply::ToSweep(_)), "{cancelled:?}");
    assert_eq!(step(&harness, &begun, &failed.info, Control::Cancel).await, Reply::Stale);
    harness.check().await;
}

async fn a_cancelled_operation_changes_nothing_more(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let runs = [failed_run(&harness, &template).await, failed_run(&harness, &template).await];
    let new = new_bulk(BulkAction::Redrive, of_graph(&template));
    begin(&harness, &new).await;
    let begun = page(&harness, new.id).await.unwrap();
    assert_eq!(redrive(&harness, &begun, &runs[0].info).await, REDRIVEN);
    let cancel = async |namespace: &str| {
        let namespace = name(namespace);
        harness.store.cancel_bulk(&namespace, new.id, harness.now()).await.unwrap()
    };
    assert_eq!(cancel("other").await, BulkCancel::Missing);
    assert_eq!(cancel("n").await, BulkCancel::Cancelled);
    assert_eq!(cancel("n").await, BulkCancel::Over(BulkStatus::Cancelled));
    assert_eq!(redrive(&harness, &begun, &runs[1].info).await, Reply::Stale);
    harness.store.end_page_of_bulk(&begun, None, harness.now()).await.unwrap();
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Cancelled, 1, 0, 0));
    harness.check().await;
}

async fn an_operation_of_a_lost_host_continues(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let run = failed_run(&harness, &template).await;
    let new = new_bulk(BulkAction::Redrive, of_graph(&template));
    begin(&harness, &new).await;
    let begun = page(&harness, new.id).await.unwrap();
    assert!(!begun.is_claimed && page(&harness, new.id).await.unwrap().is_claimed);
    let other = harness.another("second").await;
    if kind == Kind::Postgres {
        // The first host is alive.
        assert!(page(&other, new.id).await.is_none());
        harness.store.end_session(harness.session, harness.now()).await.unwrap();
    }
    let taken = page(&other, new.id).await.unwrap();
    assert_eq!((taken.page, taken.id), (begun.page, begun.id));
    // Both hosts work on the page: the first did not notice that it was lost.
    assert_eq!(redrive(&other, &taken, &run.info).await, REDRIVEN);
    assert_eq!(redrive(&harness, &begun, &run.info).await, Reply::Stale);
    assert!(page(&harness, new.id).await.is_none());
    harness.store.end_page_of_bulk(&begun, None, harness.now()).await.unwrap();
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Success, 1, 0, 0));
    harness.check().await;
}

async fn failures_of_the_host_are_counted(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (run, gone) =
        (failed_run(&harness, &template).await, failed_run(&harness, &template).await);
    let delete = Operation::Control(gone.info.clone(), Control::Delete);
    assert_eq!(harness.commit_one(delete).await, Reply::Done);
    let new = new_bulk(BulkAction::Redrive, of_graph(&template));
    begin(&harness, &new).await;
    let begun = page(&harness, new.id).await.unwrap();
    for run in [&run, &run, &gone] {
        harness.store.fail_run_of_bulk(&begun, run.info.key, harness.now()).await.unwrap();
    }
    assert_eq!(redrive(&harness, &begun, &run.info).await, Reply::Stale);
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Running, 0, 0, 1));
    harness.store.end_page_of_bulk(&begun, None, harness.now()).await.unwrap();
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Failed, 0, 0, 1));
    harness.store.fail_run_of_bulk(&begun, run.info.key, harness.now()).await.unwrap();
    harness.check().await;
}

async fn pages_reach_every_run(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut wanted = Vec::new();
    for _ in 0..7 {
        wanted.insert(0, failed_run(&harness, &template).await.info.key);
    }
    let new = new_bulk(BulkAction::Delete, of_graph(&template));
    begin(&harness, &new).await;
    let mut found = Vec::new();
    while let Some(page) = page(&harness, new.id).await {
        let (keys, next) = harness.store.runs_of_bulk(&page, 3).await.unwrap();
        found.extend(keys);
        harness.store.end_page_of_bulk(&page, next, harness.now()).await.unwrap();
    }
    assert_eq!(found, wanted);
    assert_eq!(counts(&harness, new.id).await, (BulkStatus::Success, 0, 0, 0));
    harness.check().await;
}

async fn running_operations_are_bounded(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let new = || new_bulk(BulkAction::Cancel, of_graph(&template));
    for _ in 0..MAX_RUNNING_BULKS {
        begin(&harness, &new()).await;
    }
    let refused = harness.store.begin_bulk(&new(), harness.now()).await.unwrap();
    assert_eq!(refused, BulkBegin::TooMany);
    let elsewhere = NewBulk { namespace: name("other"), ..new() };
    begin(&harness, &elsewhere).await;
    let pages = harness.store.running_bulks(harness.session, "n", 100).await.unwrap();
    assert_eq!(pages.iter().map(|page| page.id).collect::<Vec<_>>(), [elsewhere.id]);
    harness.check().await;
}

async fn a_key_begins_an_operation_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let keyed = || NewBulk {
        key: Some("k".to_owned()),
        ..new_bulk(BulkAction::Cancel, of_graph(&template))
    };
    let first = keyed();
    begin(&harness, &first).await;
    let BulkBegin::Existing(existing) =
        harness.store.begin_bulk(&keyed(), harness.now()).await.unwrap()
    else {
        panic!("the key has begun two operations");
    };
    assert_eq!(*existing, view(&harness, first.id).await);
    assert_eq!(existing.filter, first.filter);
    // Another namespace has its own keys.
    begin(&harness, &NewBulk { namespace: name("other"), ..keyed() }).await;
    harness.check().await;
}

async fn operations_are_listed_by_namespace(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut ids = Vec::new();
    for number in 1..=5u128 {
        let id = BulkId(Uuid::from_u128(number << 80));
        begin(&harness, &NewBulk { id, ..new_bulk(BulkAction::Cancel, of_graph(&template)) }).await;
        ids.insert(0, id);
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = harness.store.bulks(&name("n"), after, 2).await.unwrap();
        listed.extend(page.items.iter().map(|bulk| bulk.id));
        let Some(next) = page.next else { break };
        after = Some(BulkId(next.parse().unwrap()));
    }
    assert_eq!(listed, ids);
    assert_eq!(harness.store.bulks(&name("other"), None, 9).await.unwrap().items, []);
    let matching =
        async |digits: &str| harness.store.bulk_ids(&name("n"), digits, 9).await.unwrap();
    assert_eq!(matching("").await, ids);
    assert_eq!(matching("000000000003").await, ids[2..3]);
    assert_eq!(matching("1").await, []);
    let elsewhere = harness.store.bulk(&name("other"), ids[0]).await.unwrap();
    assert_eq!(elsewhere, None);
}

async fn old_operations_are_removed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (ended, running) = (
        new_bulk(BulkAction::Cancel, of_graph(&template)),
        new_bulk(BulkAction::Cancel, of_graph(&template)),
    );
    begin(&harness, &ended).await;
    begin(&harness, &running).await;
    let ended_page = page(&harness, ended.id).await.unwrap();
    harness.store.end_page_of_bulk(&ended_page, None, harness.now()).await.unwrap();
    let at = view(&harness, ended.id).await.ended_at.unwrap();
    let remove = async |before| harness.store.remove_bulks(before, 9, 1).await.unwrap();
    assert_eq!(remove(at).await, 0);
    assert_eq!(remove(at + 1).await, 1);
    assert_eq!(harness.store.bulk(&name("n"), ended.id).await.unwrap(), None);
    assert!(page(&harness, running.id).await.is_some());
    harness.check().await;
}

async fn an_unreadable_operation_fails(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let new = new_bulk(BulkAction::Cancel, of_graph(&template));
    begin(&harness, &new).await;
    harness.database.execute("UPDATE bulk SET filter = '['").await.unwrap();
    let begun = page(&harness, new.id).await.unwrap();
    assert!(harness.store.runs_of_bulk(&begun, 9).await.is_err());
    harness.store.fail_bulk(new.id, harness.now()).await.unwrap();
    assert!(page(&harness, new.id).await.is_none());
    assert_eq!(harness.number("SELECT COUNT(*) FROM bulk WHERE status = 'FAILED'").await, 1);
}

async fn counts_of_runs_are_bounded(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    for _ in 0..3 {
        failed_run(&harness, &template).await;
    }
    let done = harness.start(&template).await;
    let end = harness.finish_plain(&done.info, &done.root, outputs(1)).await;
    harness.commit_ok(vec![end], ClaimMode::NewOnly(0)).await;
    let filter = RunFilter { statuses: vec![RunStatus::Failed], ..of_graph(&template) };
    let count = async |limit| harness.store.count_runs(&name("n"), &filter, limit).await.unwrap();
    assert_eq!(count(2).await, RunCount { runs: 2, is_exact: false });
    for limit in [3, 4, 1000] {
        assert_eq!(count(limit).await, RunCount { runs: 3, is_exact: true });
    }
}
