//! The database alone: the very transactions of the host, with outcomes that
//! are made up on the spot. No sandbox, no templates, no logs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::ids::{Name, RunId, SessionId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::Limits;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{begin, numbers_needed, plan};
use exosphere_store::{
    Answer, Batch, Database, Finished, Leased, Member, NewRun, RunInfo, Shares, Store, Vault, Want,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// States that are held at a time, as a host of 128 slots does.
const HELD: u32 = 512;
/// How long states are ended.
const LASTS: Duration = Duration::from_millis(1500);
/// Branches of a run whose middle is measured.
const BRANCHES: usize = 150_000;

/// A database with a session on it.
pub struct Street {
    runtime: Runtime,
    store: Store,
    session: SessionId,
    limits: Arc<Limits>,
    /// Where it is, if it is a file.
    _folder: Option<TempDir>,
}

impl Street {
    /// A new file in a folder of its own below this one.
    pub fn sqlite(within: &Path) -> Result<Street> {
        let folder = tempfile::tempdir_in(within)?;
        Street::new(Database::Sqlite(folder.path().join("database")), Some(folder))
    }

    /// A database that is empty.
    pub fn postgres(url: String) -> Result<Street> {
        Street::new(Database::Postgres(url), None)
    }

    fn new(database: Database, folder: Option<TempDir>) -> Result<Street> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let (store, session) = runtime.block_on(async {
            let store = Store::open(&database, Vault::new(&[7; 32])).await?;
            let session = store.begin_session("bench", 1).await?;
            anyhow::Ok((store, session))
        })?;
        Ok(Street { runtime, store, session, limits: Arc::default(), _folder: folder })
    }

    /// States a second in the middle of a wide run, `batch` of them ended in a
    /// transaction that claims what follows.
    pub fn rate(self, batch: usize) -> Result<f64> {
        self.measure(async |street| {
            let new = street.new_run().await?;
            let (run, held) = street.fan_out(new, BRANCHES).await?;
            let begun = Instant::now();
            let states = street.end_all(&run, held, batch, LASTS).await?;
            Ok(states as f64 / begun.elapsed().as_secs_f64())
        })
    }

    /// States a second of a whole run, from its start to the end of its unite.
    pub fn fanout(self, branches: usize, batch: usize) -> Result<f64> {
        self.measure(async |street| {
            let new = street.new_run().await?;
            let begun = Instant::now();
            let (run, held) = street.fan_out(new, branches).await?;
            let states = 1 + street.end_all(&run, held, batch, Duration::MAX).await?;
            ensure!(states == branches + 2, "{states} states ended");
            Ok(states as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn measure(self, work: impl AsyncFnOnce(&Street) -> Result<f64>) -> Result<f64> {
        let rate = self.runtime.block_on(work(&self))?;
        self.runtime.block_on(self.store.close());
        Ok(rate)
    }

    /// A run whose first state has ended, and what is held of its branches.
    async fn fan_out(&self, new: NewRun, branches: usize) -> Result<(Arc<RunInfo>, Vec<Leased>)> {
        let run = Arc::clone(&new.info);
        let root = self.commit(vec![Member::Start(new.into())], Want::Births(1)).await?;
        let root = root.into_iter().next().context("no first state")?;
        let fan = self.ended(&run, root, branches).await?;
        let held = self.commit(vec![fan], Want::Births(HELD)).await?;
        Ok((run, held))
    }

    /// Ends what is held and what is claimed then, until nothing is left or the
    /// time is up. Gives how many that were.
    async fn end_all(
        &self,
        run: &Arc<RunInfo>,
        mut held: Vec<Leased>,
        batch: usize,
        lasts: Duration,
    ) -> Result<usize> {
        let (begun, mut states) = (Instant::now(), 0);
        while !held.is_empty() && begun.elapsed() < lasts {
            let mut members = Vec::with_capacity(batch);
            for leased in held.drain(..batch.min(held.len())) {
                members.push(self.ended(run, leased, 1).await?);
            }
            states += members.len();
            let free = HELD - u32::try_from(held.len())?;
            held.extend(self.commit(members, Want::Claims(free)).await?);
        }
        Ok(states)
    }

    async fn new_run(&self) -> Result<NewRun> {
        let graph = Sketch::of("U > W; W > M; M(U)").build();
        let graph = Arc::new(graph.map_err(|problems| anyhow!("{problems:?}"))?);
        let name: Name = "bench".parse().map_err(|why| anyhow!("{why}"))?;
        let (namespace, graph_name, none) = (name.clone(), name, BTreeMap::new());
        let applied = self.store.apply_graph(&namespace, &graph_name, &graph, &none, 1).await?;
        let (root, counts) = begin(&graph, &self.store.state_numbers(1, 1).await?);
        let info = Arc::new(RunInfo {
            key: self.store.run_key(1).await?,
            id: RunId(uuid::Uuid::from_u128(1)),
            namespace,
            namespace_key: applied.namespace,
            graph_name,
            revision: 1,
            graph,
            inputs: "{}".into(),
        });
        Ok(NewRun {
            info,
            revision: applied.revision.id,
            store: BTreeMap::new(),
            root,
            counts,
            key: None,
            delay: 0,
            limits: Arc::clone(&self.limits),
        })
    }

    /// A state that gave so many outputs.
    async fn ended(&self, run: &Arc<RunInfo>, leased: Leased, outputs: usize) -> Result<Member> {
        let state = leased.state;
        let outcome =
            Outcome::Outputs((0..outputs).map(|i| format!("{{\"value\":{i}}}")).collect());
        let count = numbers_needed(&run.graph, &state, &outcome);
        let numbers = self.store.state_numbers(count, 1).await?;
        let changes = plan(&run.graph, &state, outcome, 0.0, &numbers);
        Ok(Member::Finish(Box::new(Finished {
            run: Arc::clone(run),
            state,
            changes: changes.map_err(|why| anyhow!("{why}"))?,
            journal: Journal::default(),
            logs: None,
            usage: None,
            jitter: 0.0,
            limits: Arc::clone(&self.limits),
        })))
    }

    async fn commit(&self, members: Vec<Member>, want: Want) -> Result<Vec<Leased>> {
        let batch = Batch {
            range: 0..members.len(),
            members: members.into(),
            session: self.session,
            now: 1,
            want,
            shares: Shares::unbounded(),
            turn: 0,
        };
        let done = self.store.commit(batch).await?;
        match done.answers.iter().find(|answer| **answer != Answer::Done) {
            Some(answer) => bail!("{answer:?}"),
            None => Ok(done.leased),
        }
    }
}
