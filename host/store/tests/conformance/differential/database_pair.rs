//! A database pair: a SQLite and a Postgres that get the same calls and must give the same answers.
//!
//! Postgres uses its own clock. Each call on SQLite gets the time of the call on Postgres, so that
//! all times are equal to the millisecond. To advance the clock, SQLite gets a later time, and the
//! stored times of Postgres are shifted back ([`TestDatabase::shift_times_back`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{IdSource, NamespaceKey, RunKey, SessionId, StateId};
use exosphere_domain::journal::Entry;
use exosphere_domain::path::Path;
use exosphere_domain::trace::SampleRatio;
use exosphere_store::{
    Batch, ClaimMode, ClaimShares, ClaimedState, Committed, HostIdentity, LostClaim, Operation,
    PendingSweep, RunInfo, RunUpdate, StagedQueues, Store, StoreError, check,
};

use crate::harness::{Template, name, open, push_upload};
use crate::test_database::{Kind, Table, TestDatabase, is_time};

pub struct DatabasePair {
    sqlite: Side,
    postgres: Side,
    /// Simulated time that has passed, in milliseconds.
    simulated_ms: i64,
    /// Commits so far.
    commits: usize,
    /// Round-robin cursor of the next claim among the runs.
    cursors: BTreeMap<NamespaceKey, RunKey>,
    /// The known queues of staged children.
    staged_queues: StagedQueues,
    /// Time of Postgres's last answer.
    last: Instant,
}

struct Side {
    database: TestDatabase,
    store: Store,
}

impl Side {
    async fn new(kind: Kind) -> Side {
        let database = TestDatabase::new(kind);
        let store = open(&database).await;
        Side { database, store }
    }
}

/// The result of a commit without its times, in a form that is equal on both databases.
type ComparableCommit = (String, BTreeMap<StateId, String>, String, Option<i64>, Vec<RunUpdate>);

fn comparable(done: &Committed, simulated_ms: i64) -> ComparableCommit {
    let claimed = done.claimed.iter().map(|claimed| {
        let ClaimedState { state, namespace, store_snapshot, due_at, known_outputs } = claimed;
        let due_at = due_at + simulated_ms;
        let text = format!("{state:?} {namespace:?} {store_snapshot:?} {due_at} {known_outputs:?}");
        (state.id, text)
    });
    let next_due = done.next_due.map(|due| due + simulated_ms);
    let claimed: BTreeMap<_, _> = claimed.collect();
    assert_eq!(claimed.len(), done.claimed.len(), "a state was claimed twice");
    let Committed { more_due, saturated, saturated_runs, added, cursors, .. } = done;
    let queues = &done.staged_queues.queues;
    let counts: Vec<_> = done.commit_counts.iter().map(|(run, counts)| (run.key, counts)).collect();
    let attempts = done.report.attempts.iter().map(|it| {
        (it.run, &it.path, it.number, it.session, it.began_at.is_some(), it.end, it.usage)
    });
    let ended = done.report.ended_runs.iter().map(|it| (it.run, it.status, it.missed));
    let report = (attempts.collect::<Vec<_>>(), ended.collect::<Vec<_>>());
    let rest = format!(
        "{more_due} {saturated:?} {saturated_runs:?} {added} {cursors:?} {queues:?} {counts:?} \
         {report:?}"
    );
    (format!("{:?}", done.replies), claimed, rest, next_due, done.run_updates.clone())
}

fn assert_same<T: Debug + PartialEq>(compared: &str, sqlite: T, postgres: T) -> T {
    assert_eq!(sqlite, postgres, "{compared}: SQLite (left) and Postgres (right)");
    sqlite
}

impl DatabasePair {
    pub async fn new() -> DatabasePair {
        let (sqlite, postgres) = (Side::new(Kind::Sqlite).await, Side::new(Kind::Postgres).await);
        let cursors = BTreeMap::new();
        DatabasePair {
            sqlite,
            postgres,
            simulated_ms: 0,
            commits: 0,
            cursors,
            staged_queues: StagedQueues::default(),
            last: Instant::now(),
        }
    }

    /// Commits on both. Recommits `None` if both reject the data.
    pub async fn commit(
        &mut self,
        session: SessionId,
        operations: Vec<Operation>,
        claim_mode: ClaimMode,
    ) -> Option<Committed> {
        let range = 0..operations.len();
        let (shares, rotation) = (ClaimShares::unbounded(), self.commits);
        self.commits += 1;
        let operations: Arc<[Operation]> = operations.into();
        let mut batch = Batch {
            operations,
            range,
            session,
            now: 0,
            claim_mode,
            shares,
            rotation,
            cursors: self.cursors.clone(),
            // In some commits, the claim looks for queues that it does not know.
            staged_queues: match rotation % 3 {
                0 => StagedQueues::default(),
                _ => self.staged_queues.clone(),
            },
            traces: Some(SampleRatio::ALL),
        };
        // Two transactions of one millisecond would leave the order of due states undefined.
        while self.last.elapsed() < Duration::from_millis(1) {
            tokio::task::yield_now().await;
        }
        let postgres_answer = self.postgres.store.commit(batch.clone()).await;
        self.last = Instant::now();
        batch.now = postgres_answer.as_ref().map_or(0, |done| done.now + self.simulated_ms);
        let sqlite_answer = self.sqlite.store.commit(batch.clone()).await;
        match (sqlite_answer, postgres_answer) {
            (Ok(mut sqlite_answer), Ok(postgres_answer)) => {
                let (sqlite_commit, postgres_commit) = (
                    comparable(&sqlite_answer, 0),
                    comparable(&postgres_answer, self.simulated_ms),
                );
                if sqlite_commit != postgres_commit {
                    println!("commit of {:#?}", batch.operations);
                    // A different row explains more than a different answer.
                    self.compare().await;
                    assert_same("the answer to the commit", sqlite_commit, postgres_commit);
                }
                if matches!(claim_mode, ClaimMode::AllDue(1..)) {
                    self.cursors.clone_from(&sqlite_answer.cursors);
                }
                self.staged_queues.clone_from(&sqlite_answer.staged_queues);
                sqlite_answer.claimed.sort_by_key(|claimed| claimed.state.id);
                Some(sqlite_answer)
            }
            (Err(StoreError::Data(_)), Err(StoreError::Data(_))) => None,
            (sqlite_answer, postgres_answer) => {
                panic!("{sqlite_answer:?} and {postgres_answer:?} of {:#?}", batch.operations)
            }
        }
    }

    pub async fn begin_session(&self) -> SessionId {
        let theirs =
            self.postgres.store.begin_session(&HostIdentity::new("host", "host"), 0).await.unwrap();
        let started_at = format!("SELECT started_at FROM session WHERE id = {}", theirs.0);
        let now = self.postgres.database.number(&started_at).await + self.simulated_ms;
        assert_same(
            "session",
            self.sqlite.store.begin_session(&HostIdentity::new("host", "host"), now).await.unwrap(),
            theirs,
        )
    }

    pub async fn end_session(&self, session: SessionId) {
        self.postgres.store.end_session(session, 0).await.unwrap();
        let ended = format!("SELECT ended_at FROM session WHERE id = {}", session.0);
        let now = self.postgres.database.number(&ended).await + self.simulated_ms;
        self.sqlite.store.end_session(session, now).await.unwrap();
    }

    pub async fn template(&self, namespace: &str, named: &str, builder: &GraphBuilder) -> Template {
        let graph = Arc::new(builder.build().unwrap());
        let (namespace_name, graph_name, secrets) = (name(namespace), name(named), BTreeMap::new());
        for (plugin, digest) in graph.uploads() {
            let (postgres, sqlite) = (&self.postgres, &self.sqlite.store);
            if postgres.store.find_upload(&namespace_name, plugin, digest).await.unwrap() {
                continue;
            }
            push_upload(&postgres.store, &namespace_name, plugin, digest, 0).await.unwrap();
            let uploaded_at = format!(
                "SELECT uploaded_at FROM plugin \
                 WHERE namespace = '{namespace_name}' AND digest = '{digest}'"
            );
            let now = postgres.database.number(&uploaded_at).await + self.simulated_ms;
            push_upload(sqlite, &namespace_name, plugin, digest, now).await.unwrap();
        }
        let apply = async |store: &Store, now| {
            store.apply_graph(&namespace_name, &graph_name, &graph, &secrets, now).await.unwrap()
        };
        let postgres_applied = apply(&self.postgres.store, 0).await;
        let row = self.postgres.store.graph(&namespace_name, &graph_name).await.unwrap().unwrap();
        let sqlite_applied = apply(&self.sqlite.store, row.created_at + self.simulated_ms).await;
        let revision =
            assert_same("revision", sqlite_applied.revision.id, postgres_applied.revision.id);
        let namespace_key =
            assert_same("namespace", sqlite_applied.namespace, postgres_applied.namespace);
        Template { namespace: namespace_name, namespace_key, name: graph_name, revision, graph }
    }

    /// Reserves `count` ids for states, and recommits the first.
    pub async fn numbers(&self, count: u64) -> StateId {
        let sqlite_ids = self.sqlite.store.state_ids(count, 0).await.unwrap();
        let postgres_ids = self.postgres.store.state_ids(count, 0).await.unwrap();
        assert_same("numbers", sqlite_ids.next(), postgres_ids.next())
    }

    pub async fn run_key(&self) -> RunKey {
        let sqlite_key = self.sqlite.store.run_key(0).await.unwrap();
        assert_same("run", sqlite_key, self.postgres.store.run_key(0).await.unwrap())
    }

    pub async fn lost_sessions(&self) -> Vec<SessionId> {
        let mut sqlite_sessions = self.sqlite.store.lost_sessions(0).await.unwrap();
        let mut postgres_sessions = self.postgres.store.lost_sessions(0).await.unwrap();
        sqlite_sessions.sort();
        postgres_sessions.sort();
        assert_same("lost sessions", sqlite_sessions, postgres_sessions)
    }

    pub async fn held_by(&self, session: SessionId, after: StateId, max: u32) -> Vec<LostClaim> {
        let sqlite_states = self.sqlite.store.held_by(session, after, max, 0).await.unwrap();
        let postgres_states = self.postgres.store.held_by(session, after, max, 0).await.unwrap();
        // The time of a claim is by the clock of each database.
        let comparable = |states: &[LostClaim]| {
            let held = states.iter().map(|it| (&it.state, it.has_begun, it.claimed_at.is_some()));
            format!("{:?}", held.collect::<Vec<_>>())
        };
        assert_same("held", comparable(&sqlite_states), comparable(&postgres_states));
        sqlite_states
    }

    pub async fn entries(&self, run: RunKey) -> Vec<(String, Entry)> {
        let sqlite_entries = self.sqlite.store.entries(run).await.unwrap();
        assert_same("entries", sqlite_entries, self.postgres.store.entries(run).await.unwrap())
    }

    pub async fn pending_sweeps(&self) -> Vec<PendingSweep> {
        let mut sqlite_sweeps = self.sqlite.store.pending_sweeps().await.unwrap();
        let mut postgres_sweeps = self.postgres.store.pending_sweeps().await.unwrap();
        sqlite_sweeps.sort();
        postgres_sweeps.sort();
        assert_same("sweep_event", sqlite_sweeps, postgres_sweeps)
    }

    /// Recommits failed states, with their runs.
    pub async fn errored(&self) -> Vec<(RunKey, StateId)> {
        let sql = "SELECT run, id FROM state WHERE status = 'ERRORED' ORDER BY id";
        let rows = self.sqlite.database.rows(sql).await.into_iter();
        let number = |cell: &Option<String>| cell.as_ref().unwrap().parse().unwrap();
        rows.map(|row| (RunKey(number(&row[0])), StateId(number(&row[1])))).collect()
    }

    /// Advances both clocks by `millis`.
    pub async fn advance(&mut self, millis: i64) {
        self.postgres.database.shift_times_back(millis).await;
        self.simulated_ms += millis;
    }

    /// Compares every row of every table, column by column. Sealed values are left out: they differ
    /// at each encryption.
    pub async fn compare(&self) {
        let (ours, theirs) = (&self.sqlite.database, &self.postgres.database);
        let tables = assert_same("tables", ours.tables().await, theirs.tables().await);
        for table in tables.into_iter().filter(|table| table != "seal") {
            let theirs = self.to_sqlite_form(theirs.table(&table).await);
            let ours = ours.table(&table).await;
            for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                let (Some(ours), Some(theirs)) = (ours.get(key), theirs.get(key)) else {
                    let whose = if ours.contains_key(key) { "SQLite" } else { "Postgres" };
                    panic!("table {table}, row {key:?}: it is only in {whose}");
                };
                for (column, value) in ours {
                    assert_same(
                        &format!("table {table}, row {key:?}, column {column}"),
                        value,
                        &theirs[column],
                    );
                }
                assert_eq!(ours.len(), theirs.len(), "columns of {table}");
            }
        }
    }

    /// Recommits a table of Postgres with the times and texts that SQLite would have.
    fn to_sqlite_form(&self, table: Table) -> Table {
        let ours = |column: &str, text: String| {
            if is_time(column) {
                (text.parse::<i64>().unwrap() + self.simulated_ms).to_string()
            } else {
                unescaped(&text)
            }
        };
        let row = |row: BTreeMap<String, Option<String>>| {
            let cell = |(column, text): (String, Option<String>)| {
                let text = text.map(|text| ours(&column, text));
                (column, text)
            };
            row.into_iter().map(cell).collect()
        };
        let key = |key: Vec<String>| key.iter().map(|part| unescaped(part)).collect();
        table.into_iter().map(|(row_key, cells)| (key(row_key), row(cells))).collect()
    }

    /// Compares the store values that executions of a run read.
    pub async fn compare_reads(&self, run: &RunInfo) {
        let nodes: Vec<_> = run.graph.nodes().map(|(node, _)| node).collect();
        let read = async |store: &Store| {
            let root = Path::root();
            let members = store.members(run.key, &root, &nodes).await.unwrap();
            let bytes = store.member_bytes(run.key, &root, &nodes[..1]).await.unwrap();
            let outputs = store.member_outputs(run.key, &root, &nodes).await.unwrap();
            let sizes = store.member_sizes(run.key, &root, &nodes).await.unwrap();
            let wanted: Vec<_> = outputs.iter().flat_map(|(id, _)| [(*id, 0), (*id, 1)]).collect();
            let page: BTreeMap<_, _> =
                store.outputs_at(&wanted, 40).await.unwrap().into_iter().collect();
            let status = store.run_statuses(&[run.key]).await.unwrap();
            format!("{members:?} {bytes} {outputs:?} {sizes:?} {page:?} {status:?}")
        };
        assert_same("reads", read(&self.sqlite.store).await, read(&self.postgres.store).await);
        self.entries(run.key).await;
    }

    /// Checks all invariants on both.
    pub async fn check(&self) {
        for side in [&self.sqlite, &self.postgres] {
            let report = check(&side.database.location).await.unwrap();
            assert_eq!(report.violations, [], "{:?}", side.database.kind);
        }
    }
}

/// Recommits a text as it was before the store escaped it for Postgres, which has no NUL.
fn unescaped(text: &str) -> String {
    text.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}")
}
