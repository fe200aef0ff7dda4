//! Commits on a real SQLite file: the guards, and what a batch leaves behind.
//! What outcomes mean is tested in the domain; here, that they are applied
//! whole or not at all.

#![allow(clippy::unwrap_used, clippy::panic)]

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::Name;
use exosphere_domain::ids::RunId;
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{begin, plan};
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::batch::{Finished, Want};

/// Numbers from 1.
struct Counter(AtomicI64);

impl Ids for Counter {
    fn next(&self) -> StateId {
        StateId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A database with one run of a graph in it.
struct Bed {
    _folder: tempfile::TempDir,
    connection: Connection,
    ids: Counter,
    run: Arc<RunInfo>,
}

impl Bed {
    fn new(graph: Sketch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("db")).unwrap();
        let tables = include_str!("../../../../migrations/sqlite/0001_street.sql");
        connection.execute_batch(tables).unwrap();
        connection
            .execute_batch(
                "INSERT INTO graph VALUES (1, 'n', 'g', 1); \
                 INSERT INTO revision VALUES (1, 1, 1, 'd', '{}', 0);",
            )
            .unwrap();
        let name: Name = "n".parse().unwrap();
        let run = Arc::new(RunInfo {
            key: RunKey(1),
            id: RunId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
            namespace: name.clone(),
            graph_name: name,
            revision: 1,
            graph: Arc::new(graph.build().unwrap()),
            inputs: "{}".into(),
        });
        Bed { _folder: folder, connection, ids: Counter(AtomicI64::new(1)), run }
    }

    fn commit(&mut self, members: Vec<Member>, want: Want) -> Result<Committed, StoreError> {
        self.commit_as(1, members, want)
    }

    fn commit_as(
        &mut self,
        session: i64,
        members: Vec<Member>,
        want: Want,
    ) -> Result<Committed, StoreError> {
        let range = 0..members.len();
        let batch = Batch {
            members: members.into(),
            range,
            session: SessionId(session),
            now: 1000,
            want,
            store_limits: (10, 1000),
        };
        commit(&mut self.connection, &self.ids, batch)
    }

    /// Starts the run; gives its first state, claimed.
    fn start(&mut self) -> Claimed {
        let (root, counts) = begin(&self.run.graph, &self.ids);
        let new =
            NewRun { info: self.run.clone(), revision: 1, store: BTreeMap::new(), root, counts };
        let mut done = self.commit(vec![Member::Start(new)], Want::Births(9)).unwrap();
        done.leased.remove(0).state
    }

    fn finished(&self, state: &Claimed, outcome: Outcome, journal: Journal) -> Member {
        let changes = plan(&self.run.graph, state, outcome, 1000, 0.0, &self.ids).unwrap();
        Member::Finish(Box::new(Finished {
            run: self.run.clone(),
            state: state.clone(),
            changes,
            journal,
            logs: None,
            usage: None,
            jitter: 0.0,
        }))
    }

    fn outputs(&self, state: &Claimed, count: usize) -> Member {
        let outputs = vec!["{}".to_owned(); count];
        self.finished(state, Outcome::Outputs(outputs), Journal::default())
    }

    fn text(&self, sql: &str) -> String {
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn number(&self, sql: &str) -> i64 {
        self.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

/// A fanout and its unite.
fn fanout() -> Bed {
    Bed::new(Sketch::of("U > X; X > W; W(U)"))
}

#[test]
fn an_old_fence_changes_nothing() {
    let mut bed = fanout();
    let old = bed.start();
    let lost = bed.finished(&old, Outcome::HostLost, Journal::default());
    let done = bed.commit_as(2, vec![lost], Want::Claims(1)).unwrap();
    let new = done.leased[0].state.clone();
    assert!(new.claim.fence > old.claim.fence);

    let mut journal = Journal::default();
    journal.set("k", "v".into()).unwrap();
    let outcomes = [
        Outcome::Outputs(vec!["{}".into()]),
        Outcome::Prune(None),
        Outcome::RequeueAfter(5),
        Outcome::Failed(Failure::new(FailureKind::Permanent, "late")),
        Outcome::Failed(Failure::new(FailureKind::Retryable, "late")),
    ];
    for claim in [old.claim, Claim { session: new.claim.session, ..old.claim }] {
        let late = Claimed { claim, ..new.clone() };
        for outcome in outcomes.clone() {
            let member = bed.finished(&late, outcome.clone(), journal.clone());
            let done = bed.commit(vec![member], Want::Births(9)).unwrap();
            assert_eq!(done.answers, [Answer::Stale], "{outcome:?}");
            assert!(done.leased.is_empty());
        }
    }
    let held = "SELECT COUNT(*) FROM state WHERE status = 'QUEUED' AND session = 2 AND fence = 2";
    assert_eq!(bed.number(held), 1, "the new claim stands");
    assert_eq!(bed.number("SELECT COUNT(*) FROM state"), 1);
    assert_eq!(bed.number("SELECT COUNT(*) FROM entry"), 0);
    assert_eq!(bed.number("SELECT COUNT(*) FROM output"), 0);

    let member = bed.outputs(&new, 1);
    assert_eq!(bed.commit(vec![member], Want::Births(0)).unwrap().answers, [Answer::Done]);
    let again = bed.outputs(&new, 1);
    let done = bed.commit(vec![again], Want::Births(0)).unwrap();
    assert_eq!(done.answers, [Answer::Stale], "an end is an end");
}

#[test]
fn a_claimed_state_is_not_handed_out_again() {
    let mut bed = fanout();
    let root = bed.start();
    let fan = bed.outputs(&root, 3);
    bed.commit(vec![fan], Want::Births(0)).unwrap();
    let due = bed.number("SELECT MIN(id) FROM state WHERE status = 'CREATED'");
    let Bed { connection, ids, .. } = &mut bed;
    let tx = connection.transaction().unwrap();
    let street = Street {
        tx: &tx,
        ids,
        now: 1000,
        session: SessionId(1),
        births: 0,
        limits: StoreLimits { keys: 1, bytes: 1 },
        runs: BTreeMap::new(),
        counts: BTreeMap::new(),
        drained: Vec::new(),
        done: Committed::default(),
    };
    // Both have found the same state to be due; one is first.
    assert!(street.take(StateId(due)).unwrap().is_some());
    assert!(street.take(StateId(due)).unwrap().is_none());
}

#[test]
fn a_state_is_created_once() {
    let mut bed = fanout();
    let root = bed.start();
    // Two plans of the same execution: other numbers, the same places.
    let (first, second) = (bed.outputs(&root, 2), bed.outputs(&root, 2));
    let done = bed.commit(vec![first, second], Want::Births(0)).unwrap();
    assert_eq!(done.answers, [Answer::Done, Answer::Stale]);
    assert_eq!(bed.number("SELECT COUNT(*) FROM state"), 4);
    let twice = bed.connection.execute(
        "INSERT INTO state SELECT id + 100, run, node, path, status, due_at, session, fence, attempt, retries, requeues, \
         losses, conflicts, refs, scopes, fixed, created_at, ended_at, outputs, kind, message, details, cpu_us, \
         memory_bytes, host_calls, output_bytes FROM state WHERE status = 'WAITING'",
        [],
    );
    assert!(twice.unwrap_err().to_string().contains("UNIQUE"));
}

#[test]
fn births_are_claimed_while_there_is_room() {
    let mut bed = fanout();
    let root = bed.start();
    let fan = bed.outputs(&root, 5);
    let done = bed.commit(vec![fan], Want::Births(3)).unwrap();
    assert_eq!(done.leased.len(), 3);
    assert!(done.more, "two are left");
    assert!(done.leased.iter().all(|leased| leased.known.len() <= 1));
    let rest = bed.commit(vec![], Want::Claims(9)).unwrap();
    assert_eq!((rest.leased.len(), rest.more), (2, false));
}

#[test]
fn a_batch_is_whole_or_nothing() {
    let mut bed = fanout();
    let root = bed.start();
    let fan = bed.outputs(&root, 2);
    // Its state has a number that is taken.
    let (mut bad, counts) = begin(&bed.run.graph, &bed.ids);
    bad.id = root.id;
    let info = Arc::new(RunInfo {
        key: RunKey(2),
        id: RunId("00000000-0000-7000-8000-000000000002".parse().unwrap()),
        namespace: bed.run.namespace.clone(),
        graph_name: bed.run.graph_name.clone(),
        revision: 1,
        graph: bed.run.graph.clone(),
        inputs: "{}".into(),
    });
    let start = NewRun { info, revision: 1, store: BTreeMap::new(), root: bad, counts };
    let failed = bed.commit(vec![fan, Member::Start(start)], Want::Births(9));
    assert!(matches!(failed, Err(StoreError::Data(_))));
    assert_eq!(bed.number("SELECT COUNT(*) FROM state"), 1);
    assert_eq!(bed.text("SELECT status FROM state"), "QUEUED");
    assert_eq!(bed.number("SELECT COUNT(*) FROM run"), 1);
}

#[test]
fn the_store_commits_with_the_outcome_and_conflicts_are_found() {
    let mut bed = Bed::new(Sketch::of("U > X").store(serde_json::json!({"keep": true})));
    let root = bed.start();
    let fan = bed.outputs(&root, 3);
    let states: Vec<_> = bed
        .commit(vec![fan], Want::Births(9))
        .unwrap()
        .leased
        .into_iter()
        .map(|l| l.state)
        .collect();
    let one = || Outcome::Outputs(vec!["{}".into()]);
    let mut add = Journal::default();
    add.increment("n", 2).unwrap();
    let mut rewrite = Journal::default();
    rewrite.fix("n", None);
    rewrite.set("n", "100".into()).unwrap();
    let mut broken = Journal::default();
    broken.set("big", "x".repeat(2000)).unwrap();
    let members = vec![
        bed.finished(&states[0], one(), add),
        bed.finished(&states[1], one(), rewrite),
        bed.finished(&states[2], one(), broken),
    ];
    let done = bed.commit(members, Want::Births(0)).unwrap();
    assert_eq!(done.answers, [Answer::Done, Answer::Done, Answer::Done]);
    assert_eq!(bed.text("SELECT value FROM entry WHERE key = 'n'"), "2");
    assert_eq!(bed.number("SELECT COUNT(*) FROM entry"), 1, "what broke a limit left no trace");
    let again = format!("SELECT conflicts FROM state WHERE id = {}", states[1].id);
    assert_eq!(bed.number(&again), 1, "a read that no longer holds is a conflict");
    let failed = format!("SELECT kind FROM attempt WHERE state = {}", states[2].id);
    assert_eq!(bed.text(&failed), "store");

    let next = bed.commit(vec![], Want::Claims(1)).unwrap().leased.remove(0).state;
    let mut fresh = Journal::default();
    let version = bed.number("SELECT version FROM entry");
    fresh.fix("n", Some(Entry { value: "2".into(), version }));
    fresh.set("n", "100".into()).unwrap();
    let member = bed.finished(&next, one(), fresh);
    bed.commit(vec![member], Want::Births(0)).unwrap();
    assert_eq!(bed.text("SELECT value FROM entry WHERE key = 'n'"), "100");
}

#[test]
fn counts_close_a_unite_once_and_end_the_run() {
    let mut bed = fanout();
    let root = bed.start();
    let fan = bed.outputs(&root, 2);
    let leased = bed.commit(vec![fan], Want::Births(9)).unwrap().leased;
    let ends: Vec<_> = leased.iter().map(|leased| bed.outputs(&leased.state, 1)).collect();
    let counts = "SELECT open || ' ' || failed || ' ' || arrived FROM unite";
    assert_eq!(bed.text(counts), "2 0 0");
    let done = bed.commit(ends, Want::Births(9)).unwrap();
    assert_eq!(bed.text(counts), "0 0 2");
    let unite = done.leased[0].state.clone();
    assert_eq!(done.leased.len(), 1);
    let end = bed.outputs(&unite, 1);
    let done = bed.commit(vec![end], Want::Births(9)).unwrap();
    assert_eq!(done.touched[0].status, RunStatus::Success);
    assert_eq!(bed.text("SELECT status FROM run"), "SUCCESS");
    assert_eq!(bed.number("SELECT open FROM run"), 0);
}

#[test]
fn a_run_cannot_be_written_that_is_over_and_open() {
    let mut bed = fanout();
    bed.start();
    for wrong in [
        "UPDATE run SET open = 0",
        "UPDATE run SET status = 'SUCCESS', ended_at = 1",
        "UPDATE run SET open = -1",
        "UPDATE state SET session = NULL",
        "UPDATE state SET status = 'SUCCESS', session = NULL, ended_at = 1",
        "UPDATE state SET status = 'ERRORED', session = NULL, ended_at = 1",
        "UPDATE state SET status = 'DONE'",
    ] {
        let error = bed.connection.execute(wrong, []).unwrap_err();
        assert!(error.to_string().contains("CHECK"), "{wrong}: {error}");
    }
}
