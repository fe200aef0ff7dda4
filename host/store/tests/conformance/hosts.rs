//! Several hosts on one Postgres: id blocks, locks, clocks and notifications.

use std::collections::HashSet;
use std::time::Duration;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::IdSource;
use exosphere_domain::journal::Journal;
use exosphere_store::{
    ClaimMode, Listener, ListenerEvent, Notification, Reply, RunChange, RunUpdate,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Harness, Host, Run, fails, outputs};
use crate::test_database::Kind;

on_postgres! {
    id_blocks_never_overlap,
    concurrent_finishes_count_each_state_once,
    concurrent_commits_do_not_deadlock,
    runs_are_locked_in_id_order,
    claims_skip_locked_rows,
    an_abandoned_commit_leaves_nothing,
    postgres_uses_the_database_clock,
    notifications_reach_every_listener,
    listeners_report_lag_after_a_gap,
}

/// Timeout for a notification: longer than any step of these tests, and shorter than the lock
/// timeout of Postgres.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(10);

async fn hosts(harness: &Harness, count: usize) -> Vec<Host> {
    let mut hosts = Vec::new();
    for at in 0..count {
        hosts.push(harness.another(&format!("host {at}")).await);
    }
    hosts
}

async fn id_blocks_never_overlap() {
    let harness = Harness::new(Kind::Postgres).await;
    let mut claimers = JoinSet::new();
    for (at, host) in hosts(&harness, 4).await.into_iter().enumerate() {
        claimers.spawn(async move {
            let (mut states, mut runs) = (Vec::new(), Vec::new());
            // Within an id block, to its end, and beyond it.
            for count in
                [1, 65_000, 500, 36, 1, 70_000, 65_536].into_iter().cycle().skip(at).take(14)
            {
                let numbers = host.store.state_ids(count, 0).await.unwrap();
                states.push((numbers.next().0, count as i64));
            }
            for _ in 0..1100 {
                runs.push(host.store.run_key(0).await.unwrap());
            }
            (states, runs)
        });
    }
    let (mut states, mut runs) = (Vec::new(), Vec::new());
    for (some, other_claims) in claimers.join_all().await {
        states.extend(some);
        runs.extend(other_claims);
    }
    states.sort();
    assert!(states.is_sorted_by(|(first, count), (next, _)| first + count <= *next));
    let all = runs.len();
    assert_eq!(runs.into_iter().collect::<HashSet<_>>().len(), all);
}

/// Starts a run whose first state has `count` outputs, all children free.
async fn wide(harness: &Harness, count: usize) -> Run {
    let builder = GraphBuilder::from_text("U > X; X > W; W(U)")
        .store(json!({"keep": true}))
        .with("W", |node| node["unites"]["strategy"] = json!("ALL_DONE"));
    let template = harness.template(builder).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, count).await;
    harness.commit_one(fan).await;
    run
}

fn adds_one() -> Journal {
    let mut journal = Journal::default();
    journal.increment("n", 1).unwrap();
    journal
}

async fn concurrent_finishes_count_each_state_once() {
    const CHILDREN: usize = 240;
    let harness = Harness::new(Kind::Postgres).await;
    let run = wide(&harness, CHILDREN).await;
    let mut work = JoinSet::new();
    for (at, host) in hosts(&harness, 4).await.into_iter().enumerate() {
        let run = run.info.clone();
        work.spawn(async move {
            let (mut commits, mut ended, mut unites) = (0, 0, 0);
            let mut held = host.claim(5).await;
            while !held.is_empty() {
                let mut operations = Vec::new();
                for state in held.drain(..) {
                    // Every seventh state fails.
                    operations.push(match state.id.0 % 7 {
                        0 => host.finish_plain(&run, &state, fails(FailureKind::Permanent)).await,
                        _ => host.finish(&run, &state, outputs(1), adds_one()).await,
                    });
                }
                ended += operations.len();
                let done = host.commit_ok(operations, ClaimMode::AllDue(1 + at as u32)).await;
                assert!(done.replies.iter().all(|answer| *answer == Reply::Done));
                commits += 1;
                held.extend(done.claimed.into_iter().map(|claimed| claimed.state));
                unites += held.iter().filter(|s| s.place.path.as_str().starts_with('~')).count();
            }
            (commits, ended, unites)
        });
    }
    let (mut commits, mut ended, mut unites) = (0, 0, 0);
    for (some, ends, opened) in work.join_all().await {
        commits += some;
        ended += ends;
        unites += opened;
    }
    // The unite may be unclaimed: the host that closes it either claims it or has gone.
    let rest = harness.claim(9).await;
    for state in &rest {
        let end = harness.finish(&run.info, state, outputs(1), adds_one()).await;
        assert_eq!(harness.commit_one(end).await, Reply::Done);
    }
    assert_eq!(ended + rest.len(), CHILDREN + 1);
    assert_eq!(unites + rest.len(), 1);
    let run = harness.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap();
    let counters = run.counters;
    assert_eq!(
        (counters.succeeded + counters.errored, counters.states),
        (CHILDREN as i64 + 2, counters.succeeded + counters.errored)
    );
    assert_eq!(run.version, 2 + commits + rest.len() as i64, "one event for each commit");
    let added = harness.number("SELECT CAST(value AS BIGINT) FROM entry").await;
    assert_eq!(added, counters.succeeded - 1);
    harness.check().await;
}

async fn concurrent_commits_do_not_deadlock() {
    const RUNS: usize = 8;
    const CHILDREN: usize = 40;
    let harness = Harness::new(Kind::Postgres).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(wide(&harness, CHILDREN).await.info);
    }
    // Rewritten rows are stored in reverse order, which would mislead a reader in storage order.
    for key in runs.iter().rev().map(|run| run.key.0) {
        let rewrite = format!("UPDATE run SET inputs = inputs || ' ' WHERE id = {key}");
        harness.database.execute(&rewrite).await.unwrap();
    }
    // Each host has a quarter of each run.
    let hosts = hosts(&harness, 4).await;
    let mut held = vec![Vec::new(); hosts.len()];
    for _ in 0..RUNS * CHILDREN / 8 {
        for (host, held) in hosts.iter().zip(&mut held) {
            held.extend(host.claim(2).await);
        }
    }
    let mut work = JoinSet::new();
    for (at, (host, held)) in hosts.into_iter().zip(held).enumerate() {
        let runs = runs.clone();
        work.spawn(async move {
            let by_run = |key| held.iter().filter(move |state| state.run == key);
            for round in 0..CHILDREN / 4 {
                let mut operations = Vec::new();
                let mut order: Vec<_> = runs.iter().collect();
                if at % 2 == 1 {
                    order.reverse();
                }
                for run in order {
                    let state = by_run(run.key).nth(round).unwrap();
                    operations.push(host.finish(run, state, outputs(1), adds_one()).await);
                }
                let done = host.commit_ok(operations, ClaimMode::NewOnly(0)).await;
                assert!(done.replies.iter().all(|answer| *answer == Reply::Done));
            }
        });
    }
    work.join_all().await;
    assert_eq!(harness.claim(99).await.len(), RUNS, "the unites");
    assert_eq!(harness.number("SELECT COUNT(*) FROM entry WHERE value = '40'").await, RUNS as i64);
    harness.check().await;
}

/// Waits until another connection waits for a lock that the test holds.
async fn until_one_waits(harness: &Harness) {
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND datname = current_database()";
    while harness.number(waits).await == 0 {
        // Within a transaction, Postgres caches the statistics.
        harness.database.execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
    }
}

async fn runs_are_locked_in_id_order() {
    let harness = Harness::new(Kind::Postgres).await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(harness.start_of("A").await);
    }
    let all: Vec<_> = runs.iter().map(|run| Some(run.info.key.0.to_string())).collect();
    // Rows are stored in reverse order, which would mislead a reader in storage order.
    for statement in [
        "CREATE INDEX run_reverse ON run (id DESC)",
        "CLUSTER run USING run_reverse",
        "DROP INDEX run_reverse",
        "ANALYZE run",
    ] {
        harness.database.execute(statement).await.unwrap();
    }
    let stored = harness.database.rows("SELECT id FROM run").await.concat();
    let position = |run| stored.iter().position(|row| *row == all[run]);
    assert!(position(1) > position(5), "{stored:?}");

    let mut operations = Vec::new();
    for run in runs.iter().rev() {
        operations.push(harness.finish_with_outputs(&run.info, &run.root, 1).await);
    }
    harness.database.execute("BEGIN").await.unwrap();
    let lock = format!("SELECT id FROM run WHERE id = {} FOR UPDATE", runs[1].info.key.0);
    harness.database.rows(&lock).await;
    let host = (*harness).clone();
    let waits =
        tokio::spawn(async move { host.commit_ok(operations, ClaimMode::NewOnly(0)).await });
    until_one_waits(&harness).await;
    // The commit has locked the first row, waits for the second, and has locked no other.
    let free = "SELECT id FROM run ORDER BY id FOR UPDATE SKIP LOCKED";
    assert_eq!(harness.database.rows(free).await.concat(), all[1..]);
    harness.database.execute("ROLLBACK").await.unwrap();
    let done = tokio::time::timeout(NOTIFICATION_TIMEOUT, waits)
        .await
        .expect("the commit waits for a lock")
        .unwrap();
    assert_eq!(done.replies, vec![Reply::Done; 6]);
    harness.check().await;
}

async fn claims_skip_locked_rows() {
    let harness = Harness::new(Kind::Postgres).await;
    let run = wide(&harness, 5).await;
    let other = harness.start_of("A").await;
    harness.database.execute("BEGIN").await.unwrap();
    let lock = "SELECT id FROM state WHERE status = 'CREATED' ORDER BY id LIMIT 2 FOR UPDATE";
    assert_eq!(harness.database.rows(lock).await.len(), 2);
    // Neither a claim nor the work of another run waits for a locked run.
    let lock = format!("SELECT id FROM run WHERE id = {} FOR UPDATE", run.info.key.0);
    assert_eq!(harness.database.rows(&lock).await.len(), 1);
    let end = harness.finish_with_outputs(&other.info, &other.root, 1).await;
    let done = tokio::time::timeout(
        NOTIFICATION_TIMEOUT,
        harness.commit_ok(vec![end], ClaimMode::AllDue(9)),
    );
    let done = done.await.expect("the commit waits for a lock");
    assert_eq!((done.replies, done.claimed.len()), (vec![Reply::Done], 3));
    harness.database.execute("ROLLBACK").await.unwrap();
    assert_eq!(harness.claim(9).await.len(), 2);
    harness.check().await;
}

/// A caller that stops waiting for a commit may commit the next batch immediately.
async fn an_abandoned_commit_leaves_nothing() {
    let harness = Harness::new(Kind::Postgres).await;
    let run = harness.start_of("A > B").await;
    let other = harness.start_of("A > B").await;
    harness.database.execute("BEGIN").await.unwrap();
    let lock = format!("SELECT id FROM run WHERE id = {} FOR UPDATE", other.info.key.0);
    harness.database.rows(&lock).await;
    let operations = vec![
        harness.finish_with_outputs(&run.info, &run.root, 1).await,
        harness.finish_with_outputs(&other.info, &other.root, 1).await,
    ];
    let host = (*harness).clone();
    let blocked =
        tokio::spawn(async move { host.commit_ok(operations, ClaimMode::NewOnly(9)).await });
    until_one_waits(&harness).await;
    blocked.abort();
    assert!(blocked.await.unwrap_err().is_cancelled());
    // The server releases its lock of the first run when it notices the closed connection: at the
    // latest when it gets the lock of the second.
    harness.database.execute("ROLLBACK").await.unwrap();
    let end = harness.finish_with_outputs(&run.info, &run.root, 1).await;
    let done = tokio::time::timeout(
        NOTIFICATION_TIMEOUT,
        harness.commit_ok(vec![end], ClaimMode::NewOnly(9)),
    )
    .await;
    assert_eq!(done.expect("the commit waits for a lock").replies, [Reply::Done]);
    assert_eq!(harness.states().await, "QUEUED 2, SUCCESS 1");
    harness.check().await;
}

/// The clocks of hosts are ignored.
async fn postgres_uses_the_database_clock() {
    let harness = Harness::new(Kind::Postgres).await;
    let run = harness.start_of("A > B").await;
    for now in [i64::MIN, 0, i64::MAX] {
        let mut batch = harness.batch(vec![], ClaimMode::AllDue(1));
        batch.now = now;
        let done = harness.store.commit(batch).await.unwrap();
        let truth = harness.clock().await;
        assert!((truth - 10_000..=truth).contains(&done.now));
    }
    let end = harness.finish_with_outputs(&run.info, &run.root, 1).await;
    let mut batch = harness.batch(vec![end], ClaimMode::NewOnly(0));
    batch.now = 7;
    let done = harness.store.commit(batch).await.unwrap();
    assert_eq!(harness.number("SELECT MAX(created_at) FROM state").await, done.now);
    assert_eq!(harness.number("SELECT MAX(ended_at) FROM state").await, done.now);
}

async fn next(listener: &mut Listener) -> ListenerEvent {
    tokio::time::timeout(NOTIFICATION_TIMEOUT, listener.next())
        .await
        .expect("no notification arrived")
}

async fn notifications_reach_every_listener() {
    let harness = Harness::new(Kind::Postgres).await;
    let other = harness.another("other").await;
    let mut listeners = [harness.store.listener().unwrap(), other.store.listener().unwrap()];
    for listener in &mut listeners {
        assert_eq!(next(listener).await, ListenerEvent::Lagged, "earlier notifications are lost");
    }
    let run = harness.start_of("A").await;
    let end = harness.finish_with_outputs(&run.info, &run.root, 1).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(0)).await;
    let status_changed: Vec<RunChange> =
        done.run_updates.iter().map(|run| RunChange::from(*run)).collect();
    let runs = status_changed;
    let notice =
        Notification { from: harness.session.0, work: true, keys: true, runs, stopped: vec![] };
    harness.store.notify(&notice).await.unwrap();
    let reply = Notification { from: other.session.0, ..Notification::default() };
    other.store.notify(&reply).await.unwrap();
    for listener in &mut listeners {
        assert_eq!(next(listener).await, ListenerEvent::Received(notice.clone()));
        assert_eq!(next(listener).await, ListenerEvent::Received(reply.clone()));
    }
    let received = RunUpdate::from(notice.runs[0]);
    assert_eq!(received, RunUpdate { status_changed: true, ..done.run_updates[0] });
    // Hosts on other databases of the same server do not receive it.
    let other_database = Harness::new(Kind::Postgres).await;
    let mut listener = other_database.store.listener().unwrap();
    assert_eq!(next(&mut listener).await, ListenerEvent::Lagged);
    harness.store.notify(&notice).await.unwrap();
    other_database.store.notify(&reply).await.unwrap();
    assert_eq!(next(&mut listener).await, ListenerEvent::Received(reply));
}

async fn listeners_report_lag_after_a_gap() {
    let harness = Harness::new(Kind::Postgres).await;
    let mut listener = harness.store.listener().unwrap();
    assert_eq!(next(&mut listener).await, ListenerEvent::Lagged);
    // The listener's connection breaks.
    let breaks = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                  WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    assert_eq!(harness.number(breaks).await, 1);
    assert_eq!(next(&mut listener).await, ListenerEvent::Lagged);
    harness.store.notify(&Notification::default()).await.unwrap();
    assert_eq!(next(&mut listener).await, ListenerEvent::Received(Notification::default()));
    // The listener is asked to reconnect.
    listener.reset();
    harness.store.notify(&Notification::default()).await.unwrap();
    assert_eq!(next(&mut listener).await, ListenerEvent::Lagged);
    // The notification of another version cannot be parsed.
    harness.database.rows("SELECT pg_notify('exosphere', 'what?')::TEXT").await;
    assert_eq!(next(&mut listener).await, ListenerEvent::Lagged);
}

/// A single host has no other hosts to notify.
#[tokio::test]
async fn sqlite_sends_no_notifications() {
    let harness = Harness::new(Kind::Sqlite).await;
    assert!(harness.store.listener().is_none());
    harness.store.notify(&Notification::default()).await.unwrap();
}
