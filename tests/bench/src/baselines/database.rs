//! The database alone: the same transactions as in the host, with outcomes generated in memory,
//! and without sandbox, templates and logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use exosphere_domain::deadline::Deadlines;
use exosphere_domain::graph::Graph;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Name, NamespaceKey, RunId, RunKey, SessionId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::Limits;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{ids_needed, plan, root_state};
use exosphere_store::{
    Batch, ClaimMode, ClaimShares, ClaimedState, Database, Finished, HostIdentity, NewPlugin,
    NewRun, Operation, Reply, RunInfo, SecretCipher, StagedQueues, Store,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Number of states claimed at a time, as by a host of 128 slots.
const CLAIM_BATCH: u32 = 512;
/// Duration of the measurement.
const MEASURED_TIME: Duration = Duration::from_millis(1500);
/// Number of branches of the run whose middle part is measured.
const BRANCHES: usize = 150_000;

const FANOUT_GRAPH: &str = "U > W; W > M; M(U)";

type Runs = BTreeMap<RunKey, Arc<RunInfo>>;

/// A graph that was applied.
struct AppliedGraph {
    graph: Arc<Graph>,
    /// The name of the graph and of its namespace.
    name: Name,
    namespace: NamespaceKey,
    revision: i64,
}

/// A database with a session on it.
pub struct StorePipeline {
    runtime: Runtime,
    store: Store,
    session: SessionId,
    limits: Arc<Limits>,
    /// The folder of the database, if it is a file.
    _folder: Option<TempDir>,
}

impl StorePipeline {
    /// Creates a new file in a temporary folder below `within`.
    pub fn sqlite(within: &Path) -> Result<StorePipeline> {
        let folder = tempfile::tempdir_in(within)?;
        StorePipeline::new(Database::Sqlite(folder.path().join("database")), Some(folder))
    }

    /// Opens an empty Postgres database.
    pub fn postgres(url: String) -> Result<StorePipeline> {
        StorePipeline::new(Database::Postgres(url), None)
    }

    fn new(database: Database, folder: Option<TempDir>) -> Result<StorePipeline> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (store, session) = runtime.block_on(async {
            let store = Store::open(&database, SecretCipher::new(&[7; 32])).await?;
            let session = store.begin_session(&HostIdentity::new("bench", "bench"), 1).await?;
            anyhow::Ok((store, session))
        })?;
        Ok(StorePipeline { runtime, store, session, limits: Arc::default(), _folder: folder })
    }

    /// Returns the states per second in the middle of a wide run. A transaction ends `batch` states
    /// and claims their successors.
    pub fn rate(self, batch: usize) -> Result<f64> {
        self.measure(async |pipeline| {
            let fanout = pipeline.apply(FANOUT_GRAPH).await?;
            let (runs, held) = pipeline.fan_out(&fanout, BRANCHES).await?;
            let started = Instant::now();
            let states =
                pipeline.end_all(&runs, held, batch, ClaimMode::AllDue, MEASURED_TIME).await?;
            Ok(states as f64 / started.elapsed().as_secs_f64())
        })
    }

    /// Returns the states per second of a whole run, from its start to the end of its unite.
    pub fn fanout(self, branches: usize, batch: usize) -> Result<f64> {
        self.measure(async |pipeline| {
            let fanout = pipeline.apply(FANOUT_GRAPH).await?;
            let started = Instant::now();
            let (runs, held) = pipeline.fan_out(&fanout, branches).await?;
            let states =
                pipeline.end_all(&runs, held, batch, ClaimMode::AllDue, Duration::MAX).await?;
            ensure!(states == branches + 1, "{states} states ended");
            Ok((states + 1) as f64 / started.elapsed().as_secs_f64())
        })
    }

    /// Returns the states per second of `chains` chains at a time, each in its own run. A successor
    /// is claimed when it is created.
    pub fn chains(self, chains: usize, length: usize, batch: usize) -> Result<f64> {
        self.measure(async |pipeline| {
            let links: Vec<_> = (1..length).map(|at| format!("n{} > n{at}", at - 1)).collect();
            let chain = pipeline.apply(&links.join("; ")).await?;
            let started = Instant::now();
            let (runs, held) = pipeline.start(&chain, chains).await?;
            let states =
                pipeline.end_all(&runs, held, batch, ClaimMode::NewOnly, Duration::MAX).await?;
            ensure!(states == chains * length, "{states} states ended");
            Ok(states as f64 / started.elapsed().as_secs_f64())
        })
    }

    fn measure(self, work: impl AsyncFnOnce(&StorePipeline) -> Result<f64>) -> Result<f64> {
        let rate = self.runtime.block_on(work(&self))?;
        self.runtime.block_on(self.store.close());
        Ok(rate)
    }

    /// Applies the graph that `text` draws.
    async fn apply(&self, text: &str) -> Result<AppliedGraph> {
        let graph =
            GraphBuilder::from_text(text).build().map_err(|problems| anyhow!("{problems:?}"))?;
        let graph = Arc::new(graph);
        let name: Name = "bench".parse().map_err(|cause| anyhow!("{cause}"))?;
        let none = BTreeMap::new();
        for (plugin, digest) in graph.uploads() {
            let new = NewPlugin {
                namespace: name.clone(),
                name: plugin.clone(),
                version: String::new(),
                digest,
                bytes: Vec::new(),
                nodes: Vec::new(),
                imports: Vec::new(),
                compile_ms: 0,
            };
            self.store.push_plugin(new, 1).await?;
        }
        let applied = self.store.apply_graph(&name, &name, &graph, &none, 1).await?;
        Ok(AppliedGraph {
            graph,
            name,
            namespace: applied.namespace,
            revision: applied.revision.id,
        })
    }

    /// Starts runs, and returns them with their first states.
    async fn start(&self, ready: &AppliedGraph, runs: usize) -> Result<(Runs, Vec<ClaimedState>)> {
        let mut starts = Vec::with_capacity(runs);
        let mut infos = Runs::new();
        for _ in 0..runs {
            let new = self.new_run(ready).await?;
            infos.insert(new.info.key, Arc::clone(&new.info));
            starts.push(Operation::Start(new.into()));
        }
        let held = self.commit(starts, ClaimMode::NewOnly(CLAIM_BATCH)).await?;
        Ok((infos, held))
    }

    /// Starts a run, ends its first state, and returns the claimed branches.
    async fn fan_out(
        &self,
        ready: &AppliedGraph,
        branches: usize,
    ) -> Result<(Runs, Vec<ClaimedState>)> {
        let (runs, root) = self.start(ready, 1).await?;
        let root = root.into_iter().next().context("no first state")?;
        let fan = self.ended(&runs, root, branches).await?;
        let held = self.commit(vec![fan], ClaimMode::NewOnly(CLAIM_BATCH)).await?;
        Ok((runs, held))
    }

    /// Ends the claimed states and the next ones, until nothing is left or the time is up. Returns
    /// their number.
    async fn end_all(
        &self,
        runs: &Runs,
        mut held: Vec<ClaimedState>,
        batch: usize,
        claim_mode: fn(u32) -> ClaimMode,
        duration: Duration,
    ) -> Result<usize> {
        let (started, mut states) = (Instant::now(), 0);
        let mut operations = self.ends(runs, &mut held, batch).await?;
        while !operations.is_empty() && started.elapsed() < duration {
            states += operations.len();
            let free = CLAIM_BATCH - u32::try_from(held.len())?;
            // The next batch is prepared while this one is committed, as in a host.
            let commit = self.commit(operations, claim_mode(free));
            let (claimed, next) = tokio::join!(commit, self.ends(runs, &mut held, batch));
            held.extend(claimed?);
            operations = next?;
            if operations.is_empty() {
                operations = self.ends(runs, &mut held, batch).await?;
            }
        }
        Ok(states)
    }

    /// Returns the ends of up to `max` of the claimed states.
    async fn ends(
        &self,
        runs: &Runs,
        held: &mut Vec<ClaimedState>,
        max: usize,
    ) -> Result<Vec<Operation>> {
        let mut operations = Vec::with_capacity(max);
        for claimed in held.drain(..max.min(held.len())) {
            operations.push(self.ended(runs, claimed, 1).await?);
        }
        Ok(operations)
    }

    async fn new_run(&self, ready: &AppliedGraph) -> Result<NewRun> {
        let AppliedGraph { graph, name, namespace, revision } = ready;
        let (root, counts) = root_state(graph, &self.store.state_ids(1, 1).await?);
        let key = self.store.run_key(1).await?;
        let info = Arc::new(RunInfo {
            key,
            id: RunId(uuid::Uuid::from_u128(key.0.unsigned_abs().into())),
            namespace: name.clone(),
            namespace_key: *namespace,
            graph_name: name.clone(),
            revision: 1,
            revision_id: *revision,
            graph: Arc::clone(graph),
            inputs: "{}".into(),
            labels: Default::default(),
        });
        Ok(NewRun {
            info,
            revision: *revision,
            is_pinned: false,
            deadlines: Deadlines::default(),
            store: BTreeMap::new(),
            root,
            counts,
            key: None,
            digest: None,
            started_by: None,
            delay: 0,
            limits: Arc::clone(&self.limits),
        })
    }

    /// Returns the end of a state with `outputs` outputs.
    async fn ended(&self, runs: &Runs, claimed: ClaimedState, outputs: usize) -> Result<Operation> {
        let state = claimed.state;
        let run = runs.get(&state.run).context("a state of an unknown run")?;
        let outcome =
            Outcome::Outputs((0..outputs).map(|i| format!("{{\"value\":{i}}}")).collect());
        let count = ids_needed(&run.graph, &state, &outcome);
        let numbers = self.store.state_ids(count, 1).await?;
        let changes = plan(&run.graph, &state, outcome, 0.0, &numbers);
        Ok(Operation::Finish(Box::new(Finished {
            run: Arc::clone(run),
            state,
            changes: changes.map_err(|cause| anyhow!("{cause}"))?,
            journal: Journal::default(),
            logs: None,
            usage: None,
            began_at: None,
            jitter: 0.0,
            limits: Arc::clone(&self.limits),
            staged: None,
        })))
    }

    async fn commit(
        &self,
        operations: Vec<Operation>,
        claim_mode: ClaimMode,
    ) -> Result<Vec<ClaimedState>> {
        let batch = Batch {
            range: 0..operations.len(),
            operations: operations.into(),
            session: self.session,
            now: 1,
            claim_mode,
            shares: ClaimShares::unbounded(),
            rotation: 0,
            cursors: BTreeMap::new(),
            staged_queues: StagedQueues::default(),
            traces: None,
        };
        // In its own task, as in a host: on SQLite a commit blocks its thread.
        let store = self.store.clone();
        let done = tokio::spawn(async move { store.commit(batch).await }).await??;
        match done.replies.iter().find(|answer| **answer != Reply::Done) {
            Some(answer) => bail!("{answer:?}"),
            None => Ok(done.claimed),
        }
    }
}
