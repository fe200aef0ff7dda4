//! Sessions: which are alive, which are lost, and the states that lost ones had claimed.

use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::{SessionId, StateId};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::outcome_of_lost_claim;
use exosphere_store::{Answer, Beat, LEASE, Member, NewRun, Want};

use crate::bed::{Bed, Host, begins, pause};
use crate::place::Kind;

on_both! {
    a_new_session_of_a_folder_ends_the_older_ones,
    what_an_ended_session_holds_is_found,
    what_was_begun_and_what_was_held_are_told_apart,
}

on_postgres! {
    a_session_past_its_lease_is_ended_by_anothers_beat,
    one_that_was_overdue_itself_ends_nobody,
    a_beat_renews_what_lives_and_nothing_else,
    a_beat_tells_when_the_next_state_is_due,
    a_session_that_never_was_is_lost,
}

async fn living(bed: &Bed) -> Vec<i64> {
    let rows = bed.place.rows("SELECT id FROM session WHERE ended_at IS NULL ORDER BY id").await;
    rows.into_iter().flatten().flatten().map(|id| id.parse().unwrap()).collect()
}

/// On SQLite there is one host, whatever its name.
async fn a_new_session_of_a_folder_ends_the_older_ones(kind: Kind) {
    let bed = Bed::new(kind).await;
    let second = bed.another("second").await;
    let again = bed.another("first").await;
    let expected = match kind {
        Kind::Sqlite => vec![again.session.0],
        Kind::Postgres => vec![second.session.0, again.session.0],
    };
    assert_eq!(living(&bed).await, expected);
    second.store.end_session(second.session, bed.now()).await.unwrap();
    assert_eq!(living(&bed).await, [again.session.0]);
    // A session ends only once.
    let ended = format!("SELECT ended_at FROM session WHERE id = {}", second.session.0);
    let before = bed.number(&ended).await;
    bed.pass(5).await;
    let moved = bed.number(&ended).await;
    bed.store.end_session(second.session, bed.now()).await.unwrap();
    assert_eq!(bed.number(&ended).await, moved);
    assert!(moved <= before);
    if kind == Kind::Sqlite {
        let beat = bed.store.beat(again.session).await.unwrap();
        assert_eq!(beat, Beat { alive: true, ..Beat::default() });
    }
}

async fn held(host: &Host, session: SessionId, after: i64, most: u32) -> Vec<StateId> {
    let held = host.store.held_by(session, StateId(after), most, host.now()).await.unwrap();
    assert!(held.iter().all(|lost| lost.state.claim.session == session));
    held.into_iter().map(|lost| lost.state.id).collect()
}

async fn what_an_ended_session_holds_is_found(kind: Kind) {
    let bed = Bed::new(kind).await;
    let dead = Host { session: SessionId(1000), ..(*bed).clone() };
    let run = bed.start_of("U > X; X > W; W(U)").await;
    let fan = bed.outputs(&run.info, &run.root, 5).await;
    bed.one(fan).await;
    let cancelled = dead.start_of("A").await;
    let paused = dead.start_of("A").await;
    let mut all: Vec<_> = dead.claim(4).await.into_iter().map(|state| state.id).collect();
    all.push(paused.root.id);
    all.sort();
    bed.one(Member::Cancel(cancelled.info.clone())).await;
    bed.to_sweep(pause(&paused.info, true)).await;

    // A session that never existed counts as ended.
    assert_eq!(bed.store.lost_sessions(bed.now()).await.unwrap(), [dead.session]);
    assert_eq!(held(&bed, dead.session, 0, 99).await, all);
    assert_eq!(held(&bed, dead.session, 0, 2).await, all[..2]);
    assert_eq!(held(&bed, dead.session, all[1].0, 2).await, all[2..4]);
    assert_eq!(held(&bed, dead.session, all[4].0, 2).await, []);
    assert_eq!(held(&bed, bed.session, 0, 99).await, []);
    for lost in bed.store.held_by(dead.session, StateId(0), 99, 0).await.unwrap() {
        let run = if lost.state.run == run.info.key { &run.info } else { &paused.info };
        let back = bed.plainly(run, &lost.state, Outcome::HostLost).await;
        assert_eq!(bed.one(back).await, Answer::Done);
    }
    assert_eq!(bed.store.lost_sessions(bed.now()).await.unwrap(), []);
    assert_eq!(bed.claim(99).await.len(), 5, "all but that of the paused run");
}

/// Ten losses end a state; a suspect that was not begun is let off.
async fn what_was_begun_and_what_was_held_are_told_apart(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of("U > X").await;
    let fan = bed.outputs(&run.info, &run.root, 2).await;
    let mut states = bed.births(fan).await;
    let killer = states[0].id;
    for round in 0..10 {
        for state in states.iter().filter(|state| state.id == killer) {
            if state.tries.is_poison_suspect() {
                assert_eq!(bed.one(begins(&run, state)).await, Answer::Done);
            }
        }
        let held = bed.store.held_by(bed.session, StateId(0), 9, 0).await.unwrap();
        assert_eq!(held.len(), 2, "round {round}");
        for held in held {
            let outcome = outcome_of_lost_claim(held.state.tries, held.noted);
            let back = bed.plainly(&run.info, &held.state, outcome).await;
            assert_eq!(bed.one(back).await, Answer::Done);
        }
        states = bed.claim(9).await;
    }
    // Claimed as often, and charged with one loss.
    let [spared] = &states[..] else { panic!("{states:?}") };
    assert_eq!((spared.tries.losses, spared.tries.attempt), (1, 2));
    assert_eq!(spared.claim.fence.0, 11);
    assert_eq!(bed.text("SELECT kind FROM state WHERE status = 'ERRORED'").await, "host-lost");
    bed.check().await;
}

/// Moves the end of a host's lease into the past.
async fn overdue(bed: &Bed, host: &Host) {
    let id = host.session.0;
    let late = format!("UPDATE session SET expires_at = expires_at - 60000 WHERE id = {id}");
    assert_eq!(bed.place.execute(&late).await.unwrap(), 1);
}

async fn a_session_past_its_lease_is_ended_by_anothers_beat() {
    let bed = Bed::new(Kind::Postgres).await;
    let (late, fine) = (bed.another("late").await, bed.another("fine").await);
    let run = late.start_of("A").await;
    overdue(&bed, &late).await;
    let beat = bed.store.beat(bed.session).await.unwrap();
    assert!(beat.alive);
    assert_eq!((beat.ended, beat.lost), (vec![late.session], vec![late.session]));
    assert_eq!(living(&bed).await, [bed.session.0, fine.session.0]);
    assert!(!late.store.beat(late.session).await.unwrap().alive);
    // Until its states are taken back, every host is told, and not only the one that ended it.
    let beat = fine.store.beat(fine.session).await.unwrap();
    assert_eq!((beat.ended, beat.lost), (vec![], vec![late.session]));
    // A write before the takeover counts; a later one does not.
    let held = fine.store.held_by(late.session, StateId(0), 9, 0).await.unwrap().remove(0);
    let back = fine.plainly(&run.info, &held.state, Outcome::HostLost).await;
    assert_eq!(fine.one(back).await, Answer::Done);
    let end = late.outputs(&run.info, &run.root, 1).await;
    assert_eq!(late.one(end).await, Answer::Stale);
    let beat = fine.store.beat(fine.session).await.unwrap();
    assert_eq!((beat.ended, beat.lost), (vec![], vec![]));
    bed.check().await;
}

/// The database may have been unreachable for all hosts alike.
async fn one_that_was_overdue_itself_ends_nobody() {
    let bed = Bed::new(Kind::Postgres).await;
    let late = bed.another("late").await;
    overdue(&bed, &late).await;
    overdue(&bed, &bed).await;
    let beat = bed.store.beat(bed.session).await.unwrap();
    assert!(beat.alive && beat.ended.is_empty());
    assert_eq!(living(&bed).await, [bed.session.0, late.session.0]);
    // A session that still has no heartbeat is ended by the next one.
    let beat = bed.store.beat(bed.session).await.unwrap();
    assert_eq!(beat.ended, [late.session]);
}

async fn a_beat_renews_what_lives_and_nothing_else() {
    let bed = Bed::new(Kind::Postgres).await;
    let other = bed.another("other").await;
    let until = async |host: &Host| {
        let id = host.session.0;
        bed.number(&format!("SELECT expires_at FROM session WHERE id = {id}")).await
    };
    let lease = LEASE.as_millis() as i64;
    let now = bed.clock().await;
    assert!((now - 5_000..=now + lease).contains(&until(&bed).await));
    bed.place.execute("UPDATE session SET expires_at = expires_at - 4000").await.unwrap();
    let theirs = until(&other).await;
    let beat = bed.store.beat(bed.session).await.unwrap();
    assert_eq!(until(&bed).await, beat.now + lease);
    assert_eq!(until(&other).await, theirs);
    bed.store.end_session(other.session, 0).await.unwrap();
    assert!(!other.store.beat(other.session).await.unwrap().alive);
    assert_eq!(until(&other).await, theirs);
    assert_eq!(living(&bed).await, [bed.session.0]);
}

async fn a_beat_tells_when_the_next_state_is_due() {
    let bed = Bed::new(Kind::Postgres).await;
    assert_eq!(bed.store.beat(bed.session).await.unwrap().next_due, None);
    let template = bed.template(Sketch::of("A")).await;
    let mut due = Vec::new();
    let mut runs = Vec::new();
    for delay in [60_000, 30_000] {
        let new = NewRun { delay, ..bed.new_run(&template).await };
        runs.push(new.info.clone());
        let done = bed.done(vec![Member::Start(new.into())], Want::Births(9)).await;
        due.push(done.next_due);
        assert_eq!(bed.store.beat(bed.session).await.unwrap().next_due, done.next_due);
    }
    let event = bed.to_sweep(pause(&runs[1], true)).await;
    bed.sweep(&runs[1], event, 9).await;
    assert_eq!(bed.store.beat(bed.session).await.unwrap().next_due, due[0], "parked");
}

async fn a_session_that_never_was_is_lost() {
    let bed = Bed::new(Kind::Postgres).await;
    let ghost = Host { session: SessionId(1000), ..(*bed).clone() };
    ghost.start_of("A").await;
    let beat = bed.store.beat(bed.session).await.unwrap();
    assert_eq!((beat.ended, beat.lost), (vec![], vec![ghost.session]));
    let beat = ghost.store.beat(ghost.session).await.unwrap();
    assert!(!beat.alive && beat.ended.is_empty());
    assert_eq!(living(&bed).await, [bed.session.0]);
}
