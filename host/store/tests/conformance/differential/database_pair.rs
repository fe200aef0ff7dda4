//! A SQLite and a Postgres that get the same calls, and must give the same answers.
//!
//! Postgres uses its own clock. SQLite is given the time of Postgres, transaction by transaction,
//! so that all times must be equal to the millisecond. Where time is to pass, SQLite is given a
//! later time, and the times written in Postgres are set back by as much ([`Place::turn_back`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::{Ids, NamespaceKey, RunKey, SessionId, StateId};
use exosphere_domain::journal::Entry;
use exosphere_domain::path::Path;
use exosphere_store::{
    Batch, Committed, Lost, Member, RunInfo, Shares, Store, StoreError, Touched, Unswept, Want,
    check,
};

use crate::harness::{Template, name, open};
use crate::test_database::{Kind, Place, Table, is_time};

pub struct Pair {
    sqlite: Side,
    postgres: Side,
    /// Simulated time that has passed, in milliseconds.
    travelled: i64,
    /// Commits so far.
    turns: usize,
    /// Round-robin cursor of the next claim among the runs.
    cursors: BTreeMap<NamespaceKey, RunKey>,
    /// Time of Postgres's last answer.
    last: Instant,
}

struct Side {
    place: Place,
    store: Store,
}

impl Side {
    async fn new(kind: Kind) -> Side {
        let place = Place::new(kind);
        let store = open(&place).await;
        Side { place, store }
    }
}

/// The answer to a commit, without the times.
type Said = (String, BTreeMap<StateId, String>, String, Option<i64>, Vec<Touched>);

fn said(done: &Committed, travelled: i64) -> Said {
    let leased = done.leased.iter().map(|leased| (leased.state.id, format!("{leased:?}")));
    let next_due = done.next_due.map(|due| due + travelled);
    let leased: BTreeMap<_, _> = leased.collect();
    assert_eq!(leased.len(), done.leased.len(), "handed out twice");
    let Committed { more, full, full_runs, added, cursors, .. } = done;
    let rest = format!("{more} {full:?} {full_runs:?} {added} {cursors:?}");
    (format!("{:?}", done.answers), leased, rest, next_due, done.touched.clone())
}

fn same<T: Debug + PartialEq>(what: &str, sqlite: T, postgres: T) -> T {
    assert_eq!(sqlite, postgres, "{what}: SQLite (left) and Postgres (right)");
    sqlite
}

impl Pair {
    pub async fn new() -> Pair {
        let (sqlite, postgres) = (Side::new(Kind::Sqlite).await, Side::new(Kind::Postgres).await);
        let cursors = BTreeMap::new();
        Pair { sqlite, postgres, travelled: 0, turns: 0, cursors, last: Instant::now() }
    }

    /// Commits on both. Returns `None` if both refuse the data.
    pub async fn commit(
        &mut self,
        session: SessionId,
        members: Vec<Member>,
        want: Want,
    ) -> Option<Committed> {
        let range = 0..members.len();
        let (shares, turn) = (Shares::unbounded(), self.turns);
        self.turns += 1;
        let members: Arc<[Member]> = members.into();
        let cursors = self.cursors.clone();
        let mut batch = Batch { members, range, session, now: 0, want, shares, turn, cursors };
        // No two transactions fall into one millisecond, so that chance does not decide which state
        // is due first.
        while self.last.elapsed() < Duration::from_millis(1) {
            tokio::task::yield_now().await;
        }
        let theirs = self.postgres.store.commit(batch.clone()).await;
        self.last = Instant::now();
        batch.now = theirs.as_ref().map_or(0, |done| done.now + self.travelled);
        let ours = self.sqlite.store.commit(batch.clone()).await;
        match (ours, theirs) {
            (Ok(mut ours), Ok(theirs)) => {
                let (we, they) = (said(&ours, 0), said(&theirs, self.travelled));
                if we != they {
                    println!("commit of {:#?}", batch.members);
                    // A differing row says more than a differing answer.
                    self.compare().await;
                    same("what the commit said", we, they);
                }
                if matches!(want, Want::Claims(1..)) {
                    self.cursors.clone_from(&ours.cursors);
                }
                ours.leased.sort_by_key(|leased| leased.state.id);
                Some(ours)
            }
            (Err(StoreError::Data(_)), Err(StoreError::Data(_))) => None,
            (ours, theirs) => panic!("{ours:?} and {theirs:?} of {:#?}", batch.members),
        }
    }

    pub async fn begin_session(&self) -> SessionId {
        let theirs = self.postgres.store.begin_session("host", 0).await.unwrap();
        let begun = format!("SELECT started_at FROM session WHERE id = {}", theirs.0);
        let now = self.postgres.place.number(&begun).await + self.travelled;
        same("session", self.sqlite.store.begin_session("host", now).await.unwrap(), theirs)
    }

    pub async fn end_session(&self, session: SessionId) {
        self.postgres.store.end_session(session, 0).await.unwrap();
        let ended = format!("SELECT ended_at FROM session WHERE id = {}", session.0);
        let now = self.postgres.place.number(&ended).await + self.travelled;
        self.sqlite.store.end_session(session, now).await.unwrap();
    }

    pub async fn template(&self, namespace: &str, named: &str, sketch: &Sketch) -> Template {
        let graph = Arc::new(sketch.build().unwrap());
        let (whose, which, secrets) = (name(namespace), name(named), BTreeMap::new());
        let apply = async |store: &Store, now| {
            store.apply_graph(&whose, &which, &graph, &secrets, now).await.unwrap()
        };
        let theirs = apply(&self.postgres.store, 0).await;
        let row = self.postgres.store.graph(&whose, &which).await.unwrap().unwrap();
        let ours = apply(&self.sqlite.store, row.created_at + self.travelled).await;
        let revision = same("revision", ours.revision.id, theirs.revision.id);
        let namespace_key = same("namespace", ours.namespace, theirs.namespace);
        Template { namespace: whose, namespace_key, name: which, revision, graph }
    }

    /// Reserves `count` ids for states, and returns the first.
    pub async fn numbers(&self, count: u64) -> StateId {
        let ours = self.sqlite.store.state_numbers(count, 0).await.unwrap();
        let theirs = self.postgres.store.state_numbers(count, 0).await.unwrap();
        same("numbers", ours.next(), theirs.next())
    }

    pub async fn run_key(&self) -> RunKey {
        let ours = self.sqlite.store.run_key(0).await.unwrap();
        same("run", ours, self.postgres.store.run_key(0).await.unwrap())
    }

    pub async fn lost_sessions(&self) -> Vec<SessionId> {
        let mut ours = self.sqlite.store.lost_sessions(0).await.unwrap();
        let mut theirs = self.postgres.store.lost_sessions(0).await.unwrap();
        ours.sort();
        theirs.sort();
        same("lost sessions", ours, theirs)
    }

    pub async fn held_by(&self, session: SessionId, after: StateId, most: u32) -> Vec<Lost> {
        let ours = self.sqlite.store.held_by(session, after, most, 0).await.unwrap();
        let theirs = self.postgres.store.held_by(session, after, most, 0).await.unwrap();
        same("held", format!("{ours:?}"), format!("{theirs:?}"));
        ours
    }

    pub async fn entries(&self, run: RunKey) -> Vec<(String, Entry)> {
        let ours = self.sqlite.store.entries(run).await.unwrap();
        same("entries", ours, self.postgres.store.entries(run).await.unwrap())
    }

    pub async fn unswept(&self) -> Vec<Unswept> {
        let mut ours = self.sqlite.store.unswept().await.unwrap();
        let mut theirs = self.postgres.store.unswept().await.unwrap();
        ours.sort();
        theirs.sort();
        same("unswept", ours, theirs)
    }

    /// Returns failed states, with their runs.
    pub async fn errored(&self) -> Vec<(RunKey, StateId)> {
        let sql = "SELECT run, id FROM state WHERE status = 'ERRORED' ORDER BY id";
        let rows = self.sqlite.place.rows(sql).await.into_iter();
        let number = |cell: &Option<String>| cell.as_ref().unwrap().parse().unwrap();
        rows.map(|row| (RunKey(number(&row[0])), StateId(number(&row[1])))).collect()
    }

    /// Lets time pass.
    pub async fn pass(&mut self, millis: i64) {
        self.postgres.place.turn_back(millis).await;
        self.travelled += millis;
    }

    /// Compares every row of every table, column by column. Sealed values are left out: they differ
    /// at each encryption.
    pub async fn compare(&self) {
        let (ours, theirs) = (&self.sqlite.place, &self.postgres.place);
        let tables = same("tables", ours.tables().await, theirs.tables().await);
        for table in tables.into_iter().filter(|table| table != "seal") {
            let theirs = self.as_sqlite_has_it(theirs.table(&table).await);
            let ours = ours.table(&table).await;
            for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                let (Some(ours), Some(theirs)) = (ours.get(key), theirs.get(key)) else {
                    let whose = if ours.contains_key(key) { "SQLite" } else { "Postgres" };
                    panic!("table {table}, row {key:?}: it is only in {whose}");
                };
                for (column, value) in ours {
                    same(
                        &format!("table {table}, row {key:?}, column {column}"),
                        value,
                        &theirs[column],
                    );
                }
                assert_eq!(ours.len(), theirs.len(), "columns of {table}");
            }
        }
    }

    /// Returns a table of Postgres with the times and texts that SQLite would have.
    fn as_sqlite_has_it(&self, table: Table) -> Table {
        let ours = |column: &str, text: String| match is_time(column) {
            true => (text.parse::<i64>().unwrap() + self.travelled).to_string(),
            false => unescaped(&text),
        };
        let row = |row: BTreeMap<String, Option<String>>| {
            let cell = |(column, text): (String, Option<String>)| {
                let text = text.map(|text| ours(&column, text));
                (column, text)
            };
            row.into_iter().map(cell).collect()
        };
        let key = |key: Vec<String>| key.iter().map(|part| unescaped(part)).collect();
        table.into_iter().map(|(place, cells)| (key(place), row(cells))).collect()
    }

    /// Compares the store values that executions of a run read.
    pub async fn read_alike(&self, run: &RunInfo) {
        let nodes: Vec<_> = run.graph.nodes().map(|(node, _)| node).collect();
        let read = async |store: &Store| {
            let root = Path::root();
            let members = store.members(run.key, &root, &nodes).await.unwrap();
            let bytes = store.member_bytes(run.key, &root, &nodes[..1]).await.unwrap();
            let outputs = store.member_outputs(run.key, &root, &nodes).await.unwrap();
            let sizes = store.member_sizes(run.key, &root, &nodes).await.unwrap();
            let wanted: Vec<_> = outputs.iter().flat_map(|(id, _)| [(*id, 0), (*id, 1)]).collect();
            let some: BTreeMap<_, _> =
                store.outputs_at(&wanted, 40).await.unwrap().into_iter().collect();
            let status = store.run_statuses(&[run.key]).await.unwrap();
            format!("{members:?} {bytes} {outputs:?} {sizes:?} {some:?} {status:?}")
        };
        same("reads", read(&self.sqlite.store).await, read(&self.postgres.store).await);
        self.entries(run.key).await;
    }

    /// Checks all invariants on both.
    pub async fn check(&self) {
        for side in [&self.sqlite, &self.postgres] {
            let report = check(&side.place.database).await.unwrap();
            assert_eq!(report.violations, [], "{:?}", side.place.kind);
        }
    }
}

/// Returns a text as it was before the store escaped it for Postgres, which has no NUL.
fn unescaped(text: &str) -> String {
    text.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}")
}
