//! Sessions: heartbeats, leases, and the claims of lost sessions.

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{SessionId, StateId};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::outcome_of_lost_claim;
use exosphere_store::{
    ClaimMode, Control, Heartbeat, HostIdentity, LEASE, NewRun, Operation, Reply,
};

use crate::harness::{Harness, Host, begin_op, pause};
use crate::test_database::Kind;

on_both! {
    a_new_session_ends_older_ones,
    a_host_keeps_its_number,
    claims_of_ended_sessions_are_found,
    only_begun_suspects_are_charged,
}

on_postgres! {
    heartbeats_end_expired_sessions,
    an_overdue_host_expires_no_others,
    a_heartbeat_renews_only_its_session,
    a_heartbeat_returns_the_next_due_time,
    an_unknown_session_counts_as_lost,
}

async fn live_sessions(harness: &Harness) -> Vec<i64> {
    let rows =
        harness.database.rows("SELECT id FROM session WHERE ended_at IS NULL ORDER BY id").await;
    rows.into_iter().flatten().flatten().map(|id| id.parse().unwrap()).collect()
}

/// SQLite has one host, so that any new session ends the older one.
async fn a_new_session_ends_older_ones(kind: Kind) {
    let harness = Harness::new(kind).await;
    let second = harness.another("second").await;
    let restarted = harness.another("first").await;
    let expected = match kind {
        Kind::Sqlite => vec![restarted.session.0],
        Kind::Postgres => vec![second.session.0, restarted.session.0],
    };
    assert_eq!(live_sessions(&harness).await, expected);
    second.store.end_session(second.session, harness.now()).await.unwrap();
    assert_eq!(live_sessions(&harness).await, [restarted.session.0]);
    // A session ends only once.
    let ended = format!("SELECT ended_at FROM session WHERE id = {}", second.session.0);
    let before = harness.number(&ended).await;
    harness.advance(5).await;
    let renumbered = harness.number(&ended).await;
    harness.store.end_session(second.session, harness.now()).await.unwrap();
    assert_eq!(harness.number(&ended).await, renumbered);
    assert!(renumbered <= before);
    if kind == Kind::Sqlite {
        let heartbeat = harness.store.heartbeat(restarted.session).await.unwrap();
        assert_eq!(heartbeat, Heartbeat { alive: true, ..Heartbeat::default() });
    }
}

async fn held(host: &Host, session: SessionId, after: i64, limit: u32) -> Vec<StateId> {
    let held = host.store.held_by(session, StateId(after), limit, host.now()).await.unwrap();
    assert!(held.iter().all(|lost| lost.state.claim.session == session));
    held.into_iter().map(|lost| lost.state.id).collect()
}

async fn claims_of_ended_sessions_are_found(kind: Kind) {
    let harness = Harness::new(kind).await;
    let dead = Host { session: SessionId(1000), ..(*harness).clone() };
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 5).await;
    harness.commit_one(fan).await;
    let cancelled = dead.start_of("A").await;
    let paused = dead.start_of("A").await;
    let mut all: Vec<_> = dead.claim(4).await.into_iter().map(|state| state.id).collect();
    all.push(paused.root.id);
    all.sort();
    harness.commit_one(Operation::Control(cancelled.info.clone(), Control::Cancel)).await;
    harness.commit_for_sweep(pause(&paused.info, true)).await;

    // A session that never existed counts as ended.
    assert_eq!(harness.store.lost_sessions(harness.now()).await.unwrap(), [dead.session]);
    assert_eq!(held(&harness, dead.session, 0, 99).await, all);
    assert_eq!(held(&harness, dead.session, 0, 2).await, all[..2]);
    assert_eq!(held(&harness, dead.session, all[1].0, 2).await, all[2..4]);
    assert_eq!(held(&harness, dead.session, all[4].0, 2).await, []);
    assert_eq!(held(&harness, harness.session, 0, 99).await, []);
    for lost in harness.store.held_by(dead.session, StateId(0), 99, 0).await.unwrap() {
        let run = if lost.state.run == run.info.key { &run.info } else { &paused.info };
        let rescheduled = harness.finish_plain(run, &lost.state, Outcome::HostLost).await;
        assert_eq!(harness.commit_one(rescheduled).await, Reply::Done);
    }
    assert_eq!(harness.store.lost_sessions(harness.now()).await.unwrap(), []);
    assert_eq!(harness.claim(99).await.len(), 5, "all except the paused run's");
}

/// Ten losses fail a state; a suspect that was not begun is not charged.
async fn only_begun_suspects_are_charged(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let mut states = harness.commit_and_claim(fan).await;
    let killer = states[0].id;
    for round in 0..10 {
        for state in states.iter().filter(|state| state.id == killer) {
            if state.attempts.is_poison_suspect() {
                assert_eq!(harness.commit_one(begin_op(&run, state)).await, Reply::Done);
            }
        }
        let held = harness.store.held_by(harness.session, StateId(0), 9, 0).await.unwrap();
        assert_eq!(held.len(), 2, "round {round}");
        for held in held {
            let outcome = outcome_of_lost_claim(held.state.attempts, held.has_begun);
            let rescheduled = harness.finish_plain(&run.info, &held.state, outcome).await;
            assert_eq!(harness.commit_one(rescheduled).await, Reply::Done);
        }
        states = harness.claim(9).await;
    }
    // Claimed as often, and charged with one loss.
    let [innocent] = &states[..] else { panic!("{states:?}") };
    assert_eq!((innocent.attempts.host_losses, innocent.attempts.attempt), (1, 2));
    assert_eq!(innocent.claim.fence.0, 11);
    assert_eq!(harness.text("SELECT kind FROM state WHERE status = 'ERRORED'").await, "host-lost");
    harness.check().await;
}

/// Moves the end of a host's lease into the past.
async fn expire_session(harness: &Harness, host: &Host) {
    let id = host.session.0;
    let expire = format!("UPDATE session SET expires_at = expires_at - 60000 WHERE id = {id}");
    assert_eq!(harness.database.execute(&expire).await.unwrap(), 1);
}

async fn heartbeats_end_expired_sessions() {
    let harness = Harness::new(Kind::Postgres).await;
    let (overdue, punctual) = (harness.another("late").await, harness.another("fine").await);
    let run = overdue.start_of("A").await;
    expire_session(&harness, &overdue).await;
    let heartbeat = harness.store.heartbeat(harness.session).await.unwrap();
    assert!(heartbeat.alive);
    assert_eq!((heartbeat.ended, heartbeat.lost), (vec![overdue.session], vec![overdue.session]));
    assert_eq!(live_sessions(&harness).await, [harness.session.0, punctual.session.0]);
    assert!(!overdue.store.heartbeat(overdue.session).await.unwrap().alive);
    // Until its states are reclaimed, each heartbeat reports the lost session.
    let heartbeat = punctual.store.heartbeat(punctual.session).await.unwrap();
    assert_eq!((heartbeat.ended, heartbeat.lost), (vec![], vec![overdue.session]));
    // A write before the reclaim counts; a later one does not.
    let held = punctual.store.held_by(overdue.session, StateId(0), 9, 0).await.unwrap().remove(0);
    let rescheduled = punctual.finish_plain(&run.info, &held.state, Outcome::HostLost).await;
    assert_eq!(punctual.commit_one(rescheduled).await, Reply::Done);
    let end = overdue.finish_with_outputs(&run.info, &run.root, 1).await;
    assert_eq!(overdue.commit_one(end).await, Reply::Stale);
    let heartbeat = punctual.store.heartbeat(punctual.session).await.unwrap();
    assert_eq!((heartbeat.ended, heartbeat.lost), (vec![], vec![]));
    harness.check().await;
}

/// The database may have been unreachable for all hosts alike.
async fn an_overdue_host_expires_no_others() {
    let harness = Harness::new(Kind::Postgres).await;
    let overdue = harness.another("late").await;
    expire_session(&harness, &overdue).await;
    expire_session(&harness, &harness).await;
    let heartbeat = harness.store.heartbeat(harness.session).await.unwrap();
    assert!(heartbeat.alive && heartbeat.ended.is_empty());
    assert_eq!(live_sessions(&harness).await, [harness.session.0, overdue.session.0]);
    // A session that still has no heartbeat is ended by the next one.
    let heartbeat = harness.store.heartbeat(harness.session).await.unwrap();
    assert_eq!(heartbeat.ended, [overdue.session]);
}

async fn a_heartbeat_renews_only_its_session() {
    let harness = Harness::new(Kind::Postgres).await;
    let other = harness.another("other").await;
    let expiry = async |host: &Host| {
        let id = host.session.0;
        harness.number(&format!("SELECT expires_at FROM session WHERE id = {id}")).await
    };
    let lease = LEASE.as_millis() as i64;
    let now = harness.clock().await;
    assert!((now - 5_000..=now + lease).contains(&expiry(&harness).await));
    harness.database.execute("UPDATE session SET expires_at = expires_at - 4000").await.unwrap();
    let other_expiry = expiry(&other).await;
    let heartbeat = harness.store.heartbeat(harness.session).await.unwrap();
    assert_eq!(expiry(&harness).await, heartbeat.now + lease);
    assert_eq!(expiry(&other).await, other_expiry);
    harness.store.end_session(other.session, 0).await.unwrap();
    assert!(!other.store.heartbeat(other.session).await.unwrap().alive);
    assert_eq!(expiry(&other).await, other_expiry);
    assert_eq!(live_sessions(&harness).await, [harness.session.0]);
}

async fn a_heartbeat_returns_the_next_due_time() {
    let harness = Harness::new(Kind::Postgres).await;
    assert_eq!(harness.store.heartbeat(harness.session).await.unwrap().next_due, None);
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut due = Vec::new();
    let mut runs = Vec::new();
    for delay in [60_000, 30_000] {
        let new = NewRun { delay, ..harness.new_run(&template).await };
        runs.push(new.info.clone());
        let done =
            harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(9)).await;
        due.push(done.next_due);
        assert_eq!(harness.store.heartbeat(harness.session).await.unwrap().next_due, done.next_due);
    }
    let event = harness.commit_for_sweep(pause(&runs[1], true)).await;
    harness.sweep(&runs[1], event, 9).await;
    assert_eq!(
        harness.store.heartbeat(harness.session).await.unwrap().next_due,
        due[0],
        "held back"
    );
}

async fn an_unknown_session_counts_as_lost() {
    let harness = Harness::new(Kind::Postgres).await;
    let unknown = Host { session: SessionId(1000), ..(*harness).clone() };
    unknown.start_of("A").await;
    let heartbeat = harness.store.heartbeat(harness.session).await.unwrap();
    assert_eq!((heartbeat.ended, heartbeat.lost), (vec![], vec![unknown.session]));
    let heartbeat = unknown.store.heartbeat(unknown.session).await.unwrap();
    assert!(!heartbeat.alive && heartbeat.ended.is_empty());
    assert_eq!(live_sessions(&harness).await, [harness.session.0]);
}

/// A host is known by its data folder: it keeps its number and takes its newest name.
async fn a_host_keeps_its_number(kind: Kind) {
    let harness = Harness::new(kind).await;
    let mut identity = HostIdentity::new("second", "second");
    for name in ["second", "renamed"] {
        name.clone_into(&mut identity.name);
        harness.store.begin_session(&identity, harness.now()).await.unwrap();
    }
    let hosts = harness.store.hosts().await.unwrap();
    let found: Vec<_> =
        hosts.iter().map(|host| (host.number, host.name.as_str(), host.alive)).collect();
    let is_first_alive = kind == Kind::Postgres;
    assert_eq!(found, [(1, "first", is_first_alive), (2, "renamed", true)]);
}
