//! The test harness: a database with runs that the store's own commits made, and copies to corrupt.
//!
//! Not here: the runs (`runs`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::deadline::Deadlines;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Name, RunId, SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::label::{Label, Labels};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{NoIds, ids_needed, plan, root_state};
use exosphere_domain::state::Claimed;
use exosphere_store::{
    AppliedGraph, Batch, ClaimMode, ClaimShares, Committed, Control, Database, Finished,
    HostIdentity, NewPlugin, NewRun, Operation, RedrivePart, Reply, Report, RunInfo, SecretCipher,
    StagedQueues, Store, check,
};
use exosphere_tests::postgres::Postgres;
use tempfile::TempDir;

/// Returns the labels of the runs of a graph.
fn labels_of(graph: &str) -> Labels {
    let label = (graph == "forks").then(|| Label::new("team", "a").unwrap());
    label.into_iter().collect()
}

/// Returns the limits, which bound the store of a run.
fn limits() -> Arc<Limits> {
    let limits = Limits::default().with(Limit::StoreKeys, 1_000);
    Arc::new(limits.with(Limit::StoreBytes, 1_000_000))
}

/// The two kinds of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A database that a host could use.
pub struct TestDatabase {
    pub location: Database,
    kind: Kind,
    name: String,
    folder: TempDir,
}

impl TestDatabase {
    /// Returns a database that is missing or empty.
    pub fn new(kind: Kind, name: &str) -> TestDatabase {
        let folder = tempfile::tempdir().unwrap();
        let location = match kind {
            Kind::Sqlite => Database::Sqlite(folder.path().join("exosphere.db")),
            Kind::Postgres => {
                Database::Postgres(Postgres::shared().unwrap().create_database(name).unwrap())
            }
        };
        TestDatabase { location, kind, name: name.into(), folder }
    }

    /// Copies the database, which must not be open anywhere.
    pub fn copy(&self, name: &str) -> TestDatabase {
        let folder = tempfile::tempdir().unwrap();
        let location = match &self.location {
            Database::Sqlite(file) => {
                let copy = folder.path().join("exosphere.db");
                std::fs::copy(file, &copy).unwrap();
                Database::Sqlite(copy)
            }
            Database::Postgres(_) => {
                let postgres = Postgres::shared().unwrap();
                let copy = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{}\"", self.name);
                postgres.psql("postgres", &copy).unwrap();
                Database::Postgres(postgres.url(name))
            }
        };
        TestDatabase { location, kind: self.kind, name: name.into(), folder }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs statements without constraints, except unique indices.
    pub fn tamper(&self, sql: &str) {
        match &self.location {
            Database::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                let free = "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;";
                connection.execute_batch(free).unwrap();
                connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            Database::Postgres(_) => {
                Postgres::shared().unwrap().psql(&self.name, sql).unwrap();
            }
        }
    }

    /// Drops the constraints that Postgres cannot ignore.
    pub fn drop_constraints(&self) {
        if self.kind == Kind::Postgres {
            self.tamper(
                "DO $$ DECLARE c RECORD; BEGIN FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint \
                 WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace LOOP \
                 EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$",
            );
        }
    }

    /// Saves the rows of a Postgres database, which is faster than a copy.
    pub fn save(&self) {
        self.tamper("CREATE SCHEMA saved");
        self.each_table(
            "EXECUTE format('CREATE TABLE saved.%I AS TABLE public.%I', t.name, t.name)",
        );
    }

    /// Restores the saved rows.
    pub fn restore(&self) {
        self.each_table(
            "EXECUTE format('DELETE FROM public.%I', t.name); \
             EXECUTE format('INSERT INTO public.%I SELECT * FROM saved.%I', t.name, t.name)",
        );
        self.tamper("CREATE UNIQUE INDEX IF NOT EXISTS state_path ON state (run, path)");
    }

    fn each_table(&self, each: &str) {
        self.tamper(&format!(
            "DO $$ DECLARE t RECORD; BEGIN FOR t IN SELECT tablename AS name FROM pg_tables \
             WHERE schemaname = 'public' LOOP {each}; END LOOP; END $$"
        ));
    }

    pub fn number(&self, sql: &str) -> i64 {
        match &self.location {
            Database::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection
                    .query_row(sql, [], |row| row.get(0))
                    .unwrap_or_else(|error| panic!("{sql}: {error}"))
            }
            Database::Postgres(_) => {
                let text = Postgres::shared().unwrap().psql(&self.name, sql).unwrap();
                text.parse().unwrap_or_else(|error| panic!("{sql}: {text}: {error}"))
            }
        }
    }

    pub async fn check(&self) -> Report {
        check(&self.location).await.unwrap()
    }
}

/// A stand-in for a host: it commits operations and executes nothing.
pub struct Harness {
    pub store: Store,
    session: SessionId,
    now: i64,
    pub held: Vec<Claimed>,
    runs: u128,
    graphs: HashMap<String, (AppliedGraph, Arc<exosphere_domain::graph::Graph>)>,
}

/// A run that was started.
#[derive(Clone)]
pub struct Run {
    pub info: Arc<RunInfo>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Uploads every plugin that the nodes of a graph name.
async fn push_uploads(store: &Store, namespace: &Name, graph: &exosphere_domain::graph::Graph) {
    for (plugin, digest) in graph.uploads() {
        let new = NewPlugin {
            namespace: namespace.clone(),
            name: plugin.clone(),
            version: String::new(),
            digest,
            bytes: Vec::new(),
            nodes: Vec::new(),
            imports: Vec::new(),
            compile_ms: 0,
        };
        store.push_plugin(new, 1).await.unwrap();
    }
}

impl Harness {
    pub async fn new(database: &TestDatabase) -> Harness {
        let store = Store::open(&database.location, SecretCipher::new(&[7; 32])).await.unwrap();
        let now = 1_000_000;
        let session =
            store.begin_session(&HostIdentity::new("harness", "harness"), now).await.unwrap();
        Harness { store, session, now, held: Vec::new(), runs: 0, graphs: HashMap::new() }
    }

    /// Starts a run of a graph, which is applied when it is first named. Runs of `forks` have a
    /// label.
    pub async fn start(
        &mut self,
        graph: &str,
        builder: &GraphBuilder,
        store: &[(&str, &str)],
    ) -> Run {
        if !self.graphs.contains_key(graph) {
            let graph_built = Arc::new(builder.build().unwrap());
            let no_secrets = BTreeMap::new();
            let (namespace_name, which) = (name("n"), name(graph));
            push_uploads(&self.store, &namespace_name, &graph_built).await;
            let applied = self
                .store
                .apply_graph(&namespace_name, &which, &graph_built, &no_secrets, self.now)
                .await;
            self.graphs.insert(graph.into(), (applied.unwrap(), graph_built));
        }
        let (applied, graph_built) = self.graphs[graph].clone();
        self.runs += 1;
        let info = Arc::new(RunInfo {
            key: self.store.run_key(self.now).await.unwrap(),
            id: RunId(uuid::Uuid::from_u128(self.runs)),
            namespace: name("n"),
            namespace_key: applied.namespace,
            graph_name: name(graph),
            revision: 1,
            revision_id: applied.revision.id,
            graph: graph_built.clone(),
            inputs: "{}".into(),
            labels: labels_of(graph),
        });
        let ids = self.store.state_ids(1, self.now).await.unwrap();
        let (root, counts) = root_state(&graph_built, &ids);
        let store = store.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let (info_of, revision, limits) = (info.clone(), applied.revision.id, limits());
        let new = NewRun {
            info: info_of,
            revision,
            is_pinned: false,
            deadlines: Deadlines::default(),
            store,
            root,
            counts,
            key: None,
            digest: None,
            started_by: None,
            delay: 0,
            limits,
        };
        assert_eq!(self.commit_one(Operation::Start(new.into())).await, Reply::Done);
        Run { info }
    }

    /// Commits operations, and keeps the states that were created and claimed.
    pub async fn commit(&mut self, operations: Vec<Operation>, claim_mode: ClaimMode) -> Committed {
        self.now += 10;
        let range = 0..operations.len();
        let batch = Batch {
            operations: operations.into(),
            range,
            session: self.session,
            now: self.now,
            claim_mode,
            shares: ClaimShares::unbounded(),
            rotation: 0,
            cursors: BTreeMap::new(),
            staged_queues: StagedQueues::default(),
            traces: None,
        };
        let mut done = self.store.commit(batch).await.unwrap();
        self.held.extend(done.claimed.drain(..).map(|claimed| claimed.state));
        done
    }

    pub async fn commit_one(&mut self, operation: Operation) -> Reply {
        self.commit(vec![operation], ClaimMode::NewOnly(1_000_000)).await.replies.remove(0)
    }

    /// Claims due states, after a short wait for those that become due meanwhile on Postgres.
    pub async fn claim(&mut self) -> usize {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let before = self.held.len();
        self.commit(Vec::new(), ClaimMode::AllDue(1_000_000)).await;
        self.held.len() - before
    }

    pub async fn finish(
        &mut self,
        run: &Run,
        state: &Claimed,
        outcome: Outcome,
        journal: Journal,
    ) -> Operation {
        let graph = &run.info.graph;
        let changes = match ids_needed(graph, state, &outcome) {
            0 => plan(graph, state, outcome, 0.0, &NoIds),
            count => {
                let ids = self.store.state_ids(count, self.now).await.unwrap();
                plan(graph, state, outcome, 0.0, &ids)
            }
        };
        Operation::Finish(Box::new(Finished {
            run: run.info.clone(),
            state: state.clone(),
            changes: changes.unwrap(),
            journal,
            logs: None,
            usage: None,
            began_at: None,
            jitter: 0.0,
            limits: limits(),
            staged: None,
        }))
    }

    /// Ends the claimed states of a run as `ending` says, until none is claimed. A state
    /// without an ending stays claimed. A batch has up to `at_once` states.
    pub async fn drive(
        &mut self,
        run: &Run,
        at_once: usize,
        mut ending: impl FnMut(&str, &Claimed) -> Option<(Outcome, Journal)>,
    ) {
        let mut remaining = Vec::new();
        loop {
            let is_of_run = |state: &Claimed| state.run == run.info.key;
            let Some(at) = self.held.iter().position(is_of_run) else {
                if self.claim().await == 0 {
                    break;
                }
                continue;
            };
            let first = self.held.remove(at);
            let mut batch = vec![first];
            while batch.len() < at_once
                && let Some(at) = self.held.iter().position(is_of_run)
            {
                batch.push(self.held.remove(at));
            }
            let mut operations = Vec::new();
            for state in batch {
                let node = run.info.graph.node(state.place.node).identifier.to_string();
                match ending(&node, &state) {
                    Some((outcome, journal)) => {
                        operations.push(self.finish(run, &state, outcome, journal).await);
                    }
                    None => remaining.push(state),
                }
            }
            if operations.is_empty() {
                continue;
            }
            let done = self.commit(operations, ClaimMode::NewOnly(1_000_000)).await;
            assert!(done.replies.iter().all(|a| matches!(a, Reply::Done)), "{:?}", done.replies);
        }
        self.held.extend(remaining);
    }

    /// Sweeps a run, `limit` states at a time, in up to `steps` steps.
    pub async fn sweep(&mut self, run: &Run, event: i64, limit: u32, steps: usize) {
        let mut from = String::new();
        for _ in 0..steps {
            let info = run.info.clone();
            match self
                .commit_one(Operation::Control(info, Control::Sweep { event, from, limit }))
                .await
            {
                Reply::More(next) => from = next,
                Reply::Done => break,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn failed(&self, database: &TestDatabase, run: &Run) -> StateId {
        let sql = format!(
            "SELECT MIN(id) FROM state WHERE run = {} AND status = 'ERRORED' AND kind <> 'blocked'",
            run.info.key.0
        );
        StateId(database.number(&sql))
    }

    /// Returns a redrive of all failed states of a run, in one operation.
    pub async fn redrive(&self, run: &Run) -> Operation {
        let (failed, _) = self.store.failed_states(run.info.key, "", 9999, 9999).await.unwrap();
        Operation::Control(run.info.clone(), Control::Redrive(RedrivePart::Whole(failed)))
    }

    pub async fn close(self) {
        self.store.close().await;
    }
}

/// Returns an outcome with `count` empty outputs.
pub fn outputs(count: usize) -> Option<(Outcome, Journal)> {
    Some((Outcome::Outputs(vec!["{}".to_owned(); count]), Journal::default()))
}
