//! Executes what was claimed: inputs, sandbox, plan, and off to the commit.
//! One task for each state; none holds a transaction.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::clock::Clock;
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Node;
use exosphere_domain::ids::{NamespaceKey, RunKey, StateId};
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::limits::{Limits, Usage};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Changes, Misfit, give_up, numbers_needed, plan};
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_sandbox::{
    Cancel, Completion, Context, Invocation, LogLine, RunStore, Secrets, Turn, Turns, Unavailable,
};
use exosphere_store::{
    Answer, Finished, Leased, Member, Numbers, RunInfo, Store, StoreError, Touched,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::Parts;
use crate::committer::BACKOFF;
use crate::error::internal;
use crate::inputs::{NoInputs, inputs, read_ahead, text};
use crate::plugins::{NodeInfo, NotReady};
use crate::reading::Reading;
use crate::room::Lease;
use crate::secrets::secrets;
use crate::staging;
use crate::tenants::Tenant;

/// What is being executed.
pub(crate) struct Executor {
    slots: Turns<NamespaceKey>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: HashMap<StateId, Running>,
    /// Runs that were aborted, the latest last: what was claimed of them just
    /// before is not to begin.
    aborted: VecDeque<RunKey>,
    /// Runs that were paused: what was claimed of them before and has not begun
    /// is given back. One of which something is claimed later goes on.
    paused: BTreeSet<RunKey>,
}

/// A task that executes a state.
struct Running {
    run: RunKey,
    /// Ends the execution, which then tells what it used.
    cancel: Cancel,
    task: AbortHandle,
}

/// New states up to which an outcome is planned at once: less than a millisecond.
const PLANNED_AT_ONCE: u64 = 1_000;

/// Aborted runs that are remembered. What was claimed of older ones is swept.
const REMEMBERED: usize = 1024;

impl Executor {
    pub(crate) fn new(slots: u32) -> Self {
        Executor { slots: Turns::new(slots), tasks: Mutex::default() }
    }

    /// Begins nothing more. What runs goes on.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    /// Stops what runs of runs that were cancelled, and begins nothing more of
    /// those that are paused.
    pub(crate) fn heed(&self, runs: &[Touched]) {
        for touched in runs.iter().filter(|touched| touched.turned) {
            match touched.status {
                RunStatus::Cancelled => self.abort(touched.run),
                _ if touched.paused => drop(self.lock().paused.insert(touched.run)),
                _ => drop(self.lock().paused.remove(&touched.run)),
            }
        }
    }

    /// Stops whatever runs of a run. Its results are not wanted any more.
    fn abort(&self, run: RunKey) {
        let mut tasks = self.lock();
        let of_run = tasks.running.values().filter(|running| running.run == run);
        of_run.for_each(|running| running.cancel.cancel());
        if tasks.aborted.len() == REMEMBERED {
            tasks.aborted.pop_front();
        }
        tasks.aborted.push_back(run);
    }

    /// Stops whatever runs. None of its results is wanted any more.
    pub(crate) fn abort_all(&self) {
        self.lock().running.drain().for_each(|(_, running)| running.task.abort());
    }

    /// The runs of what is being executed.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        let runs: BTreeSet<_> = self.lock().running.values().map(|running| running.run).collect();
        runs.into_iter().collect()
    }

    /// Executes a state in a task of its own, unless its run was aborted.
    fn spawn(&self, parts: &Arc<Parts>, leased: Leased, lease: Lease) {
        let (id, run) = (leased.state.id, leased.state.run);
        let mut tasks = self.lock();
        if tasks.aborted.contains(&run) {
            return;
        }
        // What was claimed was not of a paused run.
        tasks.paused.remove(&run);
        // Noted before it can end: it takes this lock to be forgotten.
        let cancel = Cancel::default();
        let task = tokio::spawn(execute(parts.clone(), leased, lease, cancel.clone()));
        tasks.running.insert(id, Running { run, cancel, task: task.abort_handle() });
    }

    fn is_paused(&self, run: RunKey) -> bool {
        self.lock().paused.contains(&run)
    }

    fn forget(&self, state: StateId) {
        self.lock().running.remove(&state);
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot, of which a namespace has at most so many.
    async fn slot(&self, namespace: NamespaceKey, most: u32) -> Option<Turn<NamespaceKey>> {
        self.slots.take(namespace, most).await
    }
}

/// Executes what was claimed, each in a task of its own. Outputs that are not
/// at hand are read for all of them at once.
pub(crate) fn dispatch(parts: &Arc<Parts>, leased: Vec<(Leased, Lease)>) {
    let at_hand =
        |(leased, _): &(Leased, Lease)| leased.state.place.refs.len() == leased.known.len();
    let (ready, mut rest): (Vec<_>, Vec<_>) = leased.into_iter().partition(at_hand);
    for (leased, lease) in ready {
        parts.executor.spawn(parts, leased, lease);
    }
    if rest.is_empty() {
        return;
    }
    let parts = parts.clone();
    tokio::spawn(async move {
        read_ahead(&parts, &mut rest).await;
        for (leased, lease) in rest {
            parts.executor.spawn(&parts, leased, lease);
        }
    });
}

async fn execute(parts: Arc<Parts>, leased: Leased, lease: Lease, cancel: Cancel) {
    let id = leased.state.id;
    let run = match parts.runs.get(&parts.patient, leased.state.run).await {
        Ok(run) => run,
        Err(error) => {
            // Without its run nothing can be said of a state, not even that it
            // failed. It is given back.
            tracing::error!(%error, state = %id, "a claimed state has no readable run");
            parts.executor.forget(id);
            drop(lease);
            return parts.committer.lose();
        }
    };
    let attempt = Attempt { parts: &parts, run: &run, leased: &leased, cancel };
    // A mistake of ours must not lose a state.
    let ended = std::panic::AssertUnwindSafe(attempt.run()).catch_unwind().await;
    let mut ended = ended.unwrap_or_else(|_| Ended::failed(internal(&"the host panicked")));
    let slot = ended.slot.take();
    let finished = finished(&parts, run, leased, ended).await;
    parts.executor.forget(id);
    if let Some(finished) = finished {
        staging::finish(&parts, finished, lease).await;
    }
    // Until its result waits for the committer alone, it keeps its slot: so what is in
    // memory is bounded by the slots.
    drop(slot);
}

/// What an attempt came to, before it is planned.
struct Ended {
    outcome: Outcome,
    journal: Journal,
    logs: Vec<LogLine>,
    usage: Option<Usage>,
    /// What it might use, if it ran.
    limits: Option<Arc<Limits>>,
    /// The slot that it ran in, until its result waits for the committer.
    slot: Option<Turn<NamespaceKey>>,
}

impl Ended {
    fn failed(failure: Failure) -> Self {
        Ended::without_a_run(Outcome::Failed(failure))
    }

    fn without_a_run(outcome: Outcome) -> Self {
        Ended {
            outcome,
            journal: Journal::default(),
            logs: Vec::new(),
            usage: None,
            limits: None,
            slot: None,
        }
    }
}

/// One attempt under way.
struct Attempt<'a> {
    parts: &'a Parts,
    run: &'a Arc<RunInfo>,
    leased: &'a Leased,
    cancel: Cancel,
}

impl Attempt<'_> {
    async fn run(&self) -> Ended {
        let parts = self.parts;
        let namespace = self.run.namespace_key;
        let most = parts.slots_of(parts.tenants.slots(namespace));
        let slot = tokio::select! {
            slot = parts.executor.slot(namespace, most) => slot,
            () = self.cancel.cancelled() => None,
        };
        let Some(slot) = slot else {
            return Ended::without_a_run(Outcome::Released);
        };
        Ended { slot: Some(slot), ..self.run_in_a_slot().await }
    }

    async fn run_in_a_slot(&self) -> Ended {
        let parts = self.parts;
        if parts.executor.is_paused(self.run.key) {
            return Ended::without_a_run(Outcome::Released);
        }
        if self.leased.state.tries.is_suspect() && !self.noted().await {
            return Ended::without_a_run(Outcome::Released);
        }
        match self.invoke().await {
            Ok(ended) => ended,
            Err(NoInputs::Failed(failure)) => Ended::failed(failure),
            Err(NoInputs::Unavailable(why)) => self.given_back(&why),
        }
    }

    /// Notes that a state begins which may have ended the last host that held
    /// it. False if it is no longer held.
    async fn noted(&self) -> bool {
        let (run, state) = (self.run.clone(), Box::new(self.leased.state.clone()));
        let member = Member::Begin { run, state };
        matches!(self.parts.committer.submit(member).await, Ok(Answer::Done))
    }

    /// It is no fault of the state that the database does not answer.
    fn given_back(&self, why: &str) -> Ended {
        tracing::warn!(why, state = %self.leased.state.id, "an attempt is given up: the database is unavailable");
        Ended::without_a_run(Outcome::Released)
    }

    /// The node, and what the attempt may use.
    fn allowed(&self, tenant: &Tenant) -> Result<(&Node, Limits), Failure> {
        let Attempt { parts, run, leased, .. } = self;
        let place = leased.state.place.node;
        let node = run.graph.get(place).ok_or_else(|| {
            internal(&format!(
                "state {} is at node {}, which is not there",
                leased.state.id, place.0
            ))
        })?;
        let mut limits = parts.allowed(&run.namespace, &tenant.limits);
        run.graph.lower(node, &mut limits);
        Ok((node, limits))
    }

    async fn invoke(&self) -> Result<Ended, NoInputs> {
        let Attempt { parts, run, leased, .. } = self;
        let tenant = parts.tenants.get(&parts.patient, &run.namespace).await?;
        let (node, limits) = self.allowed(&tenant)?;
        let limits = Arc::new(limits);
        let grants = tenant.grants(&node.plugin);
        let ready = parts.plugins.ready(&parts.patient, &parts.sandbox, node.digest).await;
        let (plugin, nodes) = ready.map_err(|error| match error {
            NotReady::Store(error) => error.into(),
            broken => NoInputs::Failed(internal(&broken)),
        })?;
        let info = nodes.get(&node.node_name).ok_or_else(|| {
            internal(&format!("plugin {} has no node {}", node.digest, node.node_name))
        })?;
        let inputs = tokio::select! {
            inputs = self.inputs(info, &limits) => inputs?,
            () = self.cancel.cancelled() => {
                return Ok(Ended::without_a_run(Outcome::Released));
            }
        };
        let store = Arc::new(StoreOfRun {
            store: parts.patient.clone(),
            run: run.key,
            unavailable: AtomicBool::new(false),
        });
        let secrets = secrets(parts, run, info, &grants).await?;
        let invocation = Invocation {
            node: node.node_name.clone(),
            inputs,
            context: self.context(node),
            store: store.clone(),
            secrets: secrets.clone(),
            grants,
            limits: Limits::clone(&limits),
            cancel: self.cancel.clone(),
        };
        tracing::debug!(state = %leased.state.id, attempt = leased.state.tries.attempt, "executing");
        let completion = parts.sandbox.invoke(&plugin, invocation).await;
        match store.unavailable.load(Ordering::Relaxed) {
            true => Ok(self.given_back("its store could not be read")),
            false => Ok(self.checked(completion, info, &secrets, limits).await),
        }
    }

    /// Its inputs as text. The values that they are made of are gone with this.
    async fn inputs(&self, info: &NodeInfo, limits: &Limits) -> Result<String, NoInputs> {
        let Attempt { parts, run, leased, .. } = self;
        let mut reading = Reading::new(parts, &run.namespace, limits);
        let inputs = inputs(&parts.patient, run, leased, limits, &mut reading).await?;
        let inputs = Value::Object(inputs);
        info.inputs.check(&inputs).map_err(|why| {
            Failure::new(FailureKind::InvalidInput, format!("the inputs break their schema: {why}"))
        })?;
        Ok(text(&inputs, limits)?)
    }

    /// A completion whose outputs are held to their schema. What is wrong with
    /// one repeats a part of it.
    async fn checked(
        &self,
        completion: Completion,
        info: &NodeInfo,
        secrets: &Secrets,
        limits: Arc<Limits>,
    ) -> Ended {
        let Completion { mut outcome, mut journal, logs, usage } = completion;
        let failure = match &outcome {
            Outcome::Outputs(outputs) => self.fault(outputs, info, secrets, &limits).await,
            _ => None,
        };
        if let Some(failure) = failure {
            outcome = Outcome::Failed(failure);
            journal = Journal::default();
        }
        Ended { outcome, journal, logs, usage: Some(usage), limits: Some(limits), slot: None }
    }

    /// What is wrong with the first bad output.
    async fn fault(
        &self,
        outputs: &[String],
        info: &NodeInfo,
        secrets: &Secrets,
        limits: &Limits,
    ) -> Option<Failure> {
        let mut reading = Reading::new(self.parts, &self.run.namespace, limits);
        for (number, output) in outputs.iter().enumerate() {
            if let Err(failure) = reading.room(std::iter::once(output.as_str())).await {
                return Some(failure);
            }
            let value = serde_json::from_str(output).map_err(|error| error.to_string());
            if let Err(why) = value.and_then(|value: Value| info.outputs.check(&value)) {
                let why = format!("output {number} breaks its schema: {why}");
                return Some(Failure::new(FailureKind::InvalidOutput, secrets.hide(why)));
            }
            reading.is_over();
        }
        None
    }

    fn context(&self, node: &Node) -> Context {
        let Attempt { run, leased, .. } = self;
        let state = &leased.state;
        Context {
            namespace: run.namespace.to_string(),
            graph: run.graph_name.to_string(),
            run: run.id.to_string(),
            state: format!("{}/{}", run.id, state.id),
            identifier: node.identifier.to_string(),
            attempt: state.tries.attempt,
            idempotency_key: format!("{}/{}/{}", run.id, state.id, state.tries.requeues),
        }
    }
}

/// What is committed of an attempt; nothing if its state cannot even be ended.
async fn finished(
    parts: &Parts,
    run: Arc<RunInfo>,
    leased: Leased,
    ended: Ended,
) -> Option<Finished> {
    let Ended { outcome, journal, logs, usage, limits, slot: _ } = ended;
    let limits = limits.unwrap_or_else(|| parts.limits.clone());
    let (state, jitter) = (leased.state, crate::ambient::jitter());
    let needed = numbers_needed(&run.graph, &state, &outcome);
    let planned = match numbers(parts, needed).await {
        Ok(numbers) if needed > PLANNED_AT_ONCE => {
            plan_aside(run.clone(), state.clone(), outcome, jitter, numbers).await
        }
        Ok(numbers) => plan(&run.graph, &state, outcome, jitter, &numbers),
        Err(why) => give_up(&run.graph, &state, internal(&why)),
    };
    let changes = planned.or_else(|misfit| give_up(&run.graph, &state, internal(&misfit)));
    let changes = changes
        .inspect_err(
            |misfit| tracing::error!(%misfit, state = %state.id, "a state cannot be ended"),
        )
        .ok()?;
    let logs = (!logs.is_empty()).then(|| serde_json::to_string(&logs).unwrap_or_default());
    let staged = None;
    Some(Finished { run, state, changes, journal, logs, usage, jitter, limits, staged })
}

/// Plans what an outcome with many outputs changes, on a thread that nobody else needs.
async fn plan_aside(
    run: Arc<RunInfo>,
    state: Claimed,
    outcome: Outcome,
    jitter: f64,
    numbers: Numbers,
) -> Result<Changes, Misfit> {
    let (graph, place) = (run.clone(), state.clone());
    let planned =
        tokio::task::spawn_blocking(move || plan(&run.graph, &state, outcome, jitter, &numbers));
    planned.await.unwrap_or_else(|_| give_up(&graph.graph, &place, internal(&"the host panicked")))
}

/// Numbers for new states, however long it takes: an outcome waits for its
/// database.
async fn numbers(parts: &Parts, count: u64) -> Result<Numbers, StoreError> {
    let mut pause = BACKOFF.0;
    loop {
        match parts.store.state_numbers(count, parts.clock.now()).await {
            Err(StoreError::Contention(_) | StoreError::Unavailable(_)) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
            settled => return settled,
        }
    }
}

/// A run's store, as a guest reads it.
struct StoreOfRun {
    store: Store,
    run: RunKey,
    /// Whether a read failed: then it is no fault of the guest's.
    unavailable: AtomicBool,
}

impl StoreOfRun {
    fn cannot(&self, error: &StoreError) -> Unavailable {
        self.unavailable.store(!matches!(error, StoreError::Data(_)), Ordering::Relaxed);
        Unavailable(error.to_string())
    }
}

impl RunStore for StoreOfRun {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        let entry = self.store.entry(self.run, key);
        entry.map(|entry| entry.map_err(|error| self.cannot(&error))).boxed()
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        let entries = self.store.entries(self.run);
        entries.map(|entries| entries.map_err(|error| self.cannot(&error))).boxed()
    }
}
