//! The test harness: stand-ins for hosts on one database, which commit operations and execute no
//! guest.
//!
//! Not here: the expected results.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use exosphere_domain::deadline::Deadlines;
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Graph;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Digest, Millis, Name, NamespaceKey, RunId, SessionId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{NoIds, ids_needed, plan, root_state};
use exosphere_domain::state::Claimed;
use exosphere_domain::trace::SampleRatio;
use exosphere_store::{
    AppliedGraph, Batch, ClaimMode, ClaimShares, Committed, Control, Finished, HostIdentity,
    NewPlugin, NewRun, Operation, RedrivePart, Reply, RunInfo, SecretCipher, StagedQueues, Store,
    StoreError, check,
};

use crate::test_database::{Kind, TestDatabase};

/// A database and the first host on it.
pub struct Harness {
    pub database: TestDatabase,
    host: Host,
}

impl Deref for Harness {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

/// A session of a host.
#[derive(Clone)]
pub struct Host {
    pub store: Store,
    pub session: SessionId,
    /// The limits, which bound the store of a run.
    pub limits: Arc<Limits>,
    /// The host's clock; Postgres uses its own.
    pub clock: Arc<AtomicI64>,
}

/// A graph that was applied.
#[derive(Clone)]
pub struct Template {
    pub namespace: Name,
    pub namespace_key: NamespaceKey,
    pub name: Name,
    pub revision: i64,
    pub graph: Arc<Graph>,
}

/// A run with its first state, which is claimed.
#[derive(Clone)]
pub struct Run {
    pub info: Arc<RunInfo>,
    pub root: Claimed,
}

/// Returns the operation that records the begin of a state.
pub fn begin_op(run: &Run, state: &Claimed) -> Operation {
    Operation::Control(run.info.clone(), Control::Begin(Box::new(state.clone())))
}

/// The next number for a graph or a run.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

fn number() -> u64 {
    NEXT_NUMBER.fetch_add(1, Ordering::Relaxed)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Applies a graph, after an upload of every plugin that its nodes name.
pub async fn apply_graph(
    store: &Store,
    namespace: &Name,
    graph_name: &Name,
    graph: &Graph,
    secrets: &BTreeMap<Name, Option<String>>,
    now: Millis,
) -> Result<AppliedGraph, StoreError> {
    for (plugin, digest) in graph.uploads() {
        push_upload(store, namespace, plugin, digest, now).await?;
    }
    store.apply_graph(namespace, graph_name, graph, secrets, now).await
}

/// Uploads a plugin without bytes and nodes.
pub async fn push_upload(
    store: &Store,
    namespace: &Name,
    plugin: &Name,
    digest: Digest,
    now: Millis,
) -> Result<(), StoreError> {
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
    store.push_plugin(new, now).await.map(drop)
}

pub async fn open(database: &TestDatabase) -> Store {
    Store::open(&database.location, SecretCipher::new(&[7; 32])).await.unwrap()
}

impl Harness {
    pub async fn new(kind: Kind) -> Harness {
        let database = TestDatabase::new(kind);
        let host = Host::new(open(&database).await, "first", Arc::new(AtomicI64::new(1000))).await;
        Harness { database, host }
    }

    /// Starts another host, on Postgres with connections of its own.
    pub async fn another(&self, folder: &str) -> Host {
        let store = match self.database.kind {
            Kind::Sqlite => self.store.clone(),
            Kind::Postgres => open(&self.database).await,
        };
        Host::new(store, folder, self.clock.clone()).await
    }

    /// Sets a limit for executions that end from now on.
    pub fn limit(&mut self, limit: Limit, value: u64) {
        self.host.limits = Arc::new(Limits::clone(&self.host.limits).with(limit, value));
    }

    /// Advances the clock by `millis`.
    pub async fn advance(&self, millis: Millis) {
        match self.database.kind {
            Kind::Sqlite => drop(self.clock.fetch_add(millis, Ordering::Relaxed)),
            Kind::Postgres => self.database.shift_times_back(millis).await,
        }
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.database.number(sql).await
    }

    pub async fn text(&self, sql: &str) -> String {
        self.database.text(sql).await
    }

    /// Returns the time by Postgres's clock.
    pub async fn clock(&self) -> Millis {
        self.number("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT").await
    }

    /// Counts states by status: `CREATED 2, SUCCESS 1`.
    pub async fn states(&self) -> String {
        let sql = "SELECT status, COUNT(*) FROM state GROUP BY status ORDER BY status";
        let rows = self.database.rows(sql).await.into_iter();
        let counts: Vec<_> =
            rows.map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        counts.join(", ")
    }

    /// Checks all invariants of the database.
    pub async fn check(&self) {
        let report = check(&self.database.location).await.unwrap();
        assert_eq!(report.violations, [], "{:?}", self.database.kind);
    }
}

impl Host {
    async fn new(store: Store, folder: &str, clock: Arc<AtomicI64>) -> Host {
        let session = store
            .begin_session(&HostIdentity::new(folder, folder), clock.load(Ordering::Relaxed))
            .await
            .unwrap();
        let limits = Limits::default().with(Limit::StoreKeys, 10).with(Limit::StoreBytes, 1000);
        Host { store, session, limits: Arc::new(limits), clock }
    }

    pub fn now(&self) -> Millis {
        self.clock.load(Ordering::Relaxed)
    }

    pub async fn template(&self, builder: GraphBuilder) -> Template {
        self.template_of("n", builder).await
    }

    /// Applies a graph in a namespace.
    pub async fn template_of(&self, namespace_name: &str, builder: GraphBuilder) -> Template {
        let graph = Arc::new(builder.build().unwrap());
        let (namespace, name) = (name(namespace_name), name(&format!("g{}", number())));
        let no_secrets = BTreeMap::new();
        let applied =
            apply_graph(&self.store, &namespace, &name, &graph, &no_secrets, self.now()).await;
        let applied = applied.unwrap();
        let (revision, namespace_key) = (applied.revision.id, applied.namespace);
        Template { namespace, namespace_key, name, revision, graph }
    }

    /// Returns a run that is ready to start.
    pub async fn new_run(&self, template: &Template) -> NewRun {
        let info = Arc::new(RunInfo {
            key: self.store.run_key(self.now()).await.unwrap(),
            id: RunId(uuid::Uuid::from_u128(number().into())),
            namespace: template.namespace.clone(),
            namespace_key: template.namespace_key,
            graph_name: template.name.clone(),
            revision: 1,
            revision_id: template.revision,
            graph: template.graph.clone(),
            inputs: "{}".into(),
            labels: Default::default(),
        });
        let ids = self.store.state_ids(1, self.now()).await.unwrap();
        let (root, counts) = root_state(&template.graph, &ids);
        let (revision, store) = (template.revision, BTreeMap::new());
        let limits = self.limits.clone();
        NewRun {
            info,
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
        }
    }

    /// Starts a run, and claims its first state.
    pub async fn start(&self, template: &Template) -> Run {
        let new = self.new_run(template).await;
        let info = new.info.clone();
        let mut done =
            self.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(1)).await;
        assert_eq!(done.replies, [Reply::Done]);
        Run { info, root: done.claimed.remove(0).state }
    }

    /// Starts a run of a new graph.
    pub async fn start_of(&self, text: &str) -> Run {
        let template = self.template(GraphBuilder::from_text(text)).await;
        self.start(&template).await
    }

    pub fn batch(&self, operations: Vec<Operation>, claim_mode: ClaimMode) -> Batch {
        let (range, session) = (0..operations.len(), self.session);
        let (now, shares, rotation) = (self.now(), ClaimShares::unbounded(), number() as usize);
        let (cursors, staged_queues) = (BTreeMap::new(), StagedQueues::default());
        Batch {
            operations: operations.into(),
            range,
            session,
            now,
            claim_mode,
            shares,
            rotation,
            cursors,
            staged_queues,
            traces: Some(SampleRatio::ALL),
        }
    }

    pub async fn commit(
        &self,
        operations: Vec<Operation>,
        claim_mode: ClaimMode,
    ) -> Result<Committed, StoreError> {
        self.store.commit(self.batch(operations, claim_mode)).await
    }

    pub async fn commit_ok(&self, operations: Vec<Operation>, claim_mode: ClaimMode) -> Committed {
        self.commit(operations, claim_mode).await.unwrap()
    }

    /// Commits one operation without claims.
    pub async fn commit_one(&self, operation: Operation) -> Reply {
        self.commit_ok(vec![operation], ClaimMode::NewOnly(0)).await.replies.remove(0)
    }

    /// Commits one operation, and returns the states that it created and claimed.
    pub async fn commit_and_claim(&self, operation: Operation) -> Vec<Claimed> {
        let done = self.commit_ok(vec![operation], ClaimMode::NewOnly(u32::MAX)).await;
        assert_eq!(done.replies, [Reply::Done]);
        done.claimed.into_iter().map(|claimed| claimed.state).collect()
    }

    pub async fn claim(&self, limit: u32) -> Vec<Claimed> {
        let done = self.commit_ok(Vec::new(), ClaimMode::AllDue(limit)).await;
        done.claimed.into_iter().map(|claimed| claimed.state).collect()
    }

    /// Returns the finish of an execution.
    pub async fn finish(
        &self,
        run: &Arc<RunInfo>,
        state: &Claimed,
        outcome: Outcome,
        journal: Journal,
    ) -> Operation {
        let changes = match ids_needed(&run.graph, state, &outcome) {
            0 => plan(&run.graph, state, outcome, 0.0, &NoIds),
            count => {
                let ids = self.store.state_ids(count, self.now()).await.unwrap();
                plan(&run.graph, state, outcome, 0.0, &ids)
            }
        };
        Operation::Finish(Box::new(Finished {
            run: run.clone(),
            state: state.clone(),
            changes: changes.unwrap(),
            journal,
            logs: None,
            usage: None,
            began_at: None,
            jitter: 0.0,
            limits: self.limits.clone(),
            staged: None,
        }))
    }

    /// Returns a finish without writes to the store.
    pub async fn finish_plain(
        &self,
        run: &Arc<RunInfo>,
        state: &Claimed,
        outcome: Outcome,
    ) -> Operation {
        self.finish(run, state, outcome, Journal::default()).await
    }

    /// Returns a finish with `count` outputs.
    pub async fn finish_with_outputs(
        &self,
        run: &Arc<RunInfo>,
        state: &Claimed,
        count: usize,
    ) -> Operation {
        self.finish_plain(run, state, outputs(count)).await
    }

    /// Sweeps a run to its end, `limit` states at a time. Returns the number of steps.
    pub async fn sweep(&self, run: &Arc<RunInfo>, event: i64, limit: u32) -> usize {
        let mut from = String::new();
        for step in 1.. {
            match self.commit_one(sweep(run, event, &from, limit)).await {
                Reply::More(next) => from = next,
                Reply::Done => return step,
                other => panic!("{other:?}"),
            }
        }
        unreachable!()
    }

    /// Returns a redrive of all failed states of a run.
    pub async fn redrive(&self, run: &Arc<RunInfo>) -> Operation {
        let (failed, _) = self.store.failed_states(run.key, "", 9999, 9999).await.unwrap();
        Operation::Control(run.clone(), Control::Redrive(RedrivePart::Whole(failed)))
    }

    /// Commits an operation that asks for sweeps, and returns its event.
    pub async fn commit_for_sweep(&self, operation: Operation) -> i64 {
        match self.commit_one(operation).await {
            Reply::ToSweep(event) => event,
            other => panic!("{other:?}"),
        }
    }
}

pub fn sweep(run: &Arc<RunInfo>, event: i64, from: &str, limit: u32) -> Operation {
    Operation::Control(run.clone(), Control::Sweep { event, from: from.into(), limit })
}

pub fn pause(run: &Arc<RunInfo>, paused: bool) -> Operation {
    Operation::Control(run.clone(), if paused { Control::Pause } else { Control::Resume })
}

/// Returns an outcome with `count` empty outputs.
pub fn outputs(count: usize) -> Outcome {
    Outcome::Outputs(vec!["{}".to_owned(); count])
}

pub fn fails(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "failed on purpose"))
}

/// Returns a journal with one write.
pub fn sets(key: &str, value: &str) -> Journal {
    let mut journal = Journal::default();
    journal.set(key, value.into()).unwrap();
    journal
}
