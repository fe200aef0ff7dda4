//! Executes claimed states: renders the inputs, runs the guest, plans the outcome and
//! submits it for commit. One task per state; none holds a transaction.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exosphere_domain::budget::{Budget, StepBudget};
use exosphere_domain::clock::Clock;
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Node;
use exosphere_domain::ids::{Name, NamespaceKey, RunKey, StateId};
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::limits::{Limit, Limits, Usage};
use exosphere_domain::node::DescribedNode;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Changes, Misfit, give_up, numbers_needed, plan};
use exosphere_domain::schema::Refusal;
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_sandbox::{
    Cancel, Completion, Context, FairPermit, FairSemaphore, Invocation, LogLine, RunStore, Secrets,
    Unavailable,
};
use exosphere_store::{
    Answer, Finished, Leased, Member, Numbers, RunInfo, Store, StoreError, Touched,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Parts;
use crate::claims::ClaimPermit;
use crate::committer::BACKOFF;
use crate::error::internal;
use crate::host_work::{Bounds, Done, INLINE_STEPS, JobLost, Meter};
use crate::inputs::{NoInputs, inputs, read_ahead, text};
use crate::output_check::{OutputCheck, Progress};
use crate::plugins::{self, NotReady};
use crate::prefetch::LARGE_RUN;
use crate::reading::Reading;
use crate::secrets::secrets;
use crate::staging;
use crate::tenants::Tenant;

/// The executor: its slots, and the tasks of the states under execution.
pub(crate) struct Executor {
    slots: FairSemaphore<NamespaceKey, RunKey>,
    tasks: Mutex<Tasks>,
    /// The runtime of the tasks, apart from heartbeats, answers and the effects of
    /// commits.
    work: Handle,
}

#[derive(Default)]
struct Tasks {
    running: HashMap<StateId, Running>,
    /// Recently cancelled runs, newest last. Their states must not start, even if they
    /// were claimed before the cancellation.
    aborted: VecDeque<RunKey>,
    /// Paused runs. A state that was claimed before the pause and has not begun is given
    /// back. A later claim of the run means that it was resumed.
    paused: BTreeSet<RunKey>,
}

/// A task that executes a state.
struct Running {
    run: RunKey,
    /// Ends the execution, which then reports its usage.
    cancel: Cancel,
    task: AbortHandle,
}

/// New states up to which an outcome is planned inline: less than a millisecond.
const PLANNED_AT_ONCE: u64 = 1_000;

/// Cancelled runs that are remembered. The sweep covers claimed states of older ones.
const REMEMBERED: usize = 1024;

impl Executor {
    pub(crate) fn new(slots: u32, work: Handle) -> Self {
        Executor {
            slots: FairSemaphore::with_last_kept(slots, LARGE_RUN),
            tasks: Mutex::default(),
            work,
        }
    }

    /// Returns the runtime of the tasks.
    pub(crate) fn work(&self) -> &Handle {
        &self.work
    }

    /// Closes the slots, so that nothing more begins. Running executions continue.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    /// Stops executions of runs that were cancelled, and begins none of runs that are
    /// paused.
    pub(crate) fn heed(&self, runs: &[Touched]) {
        for touched in runs.iter().filter(|touched| touched.turned) {
            match touched.status {
                RunStatus::Cancelled => self.abort(touched.run),
                _ if touched.paused => drop(self.lock().paused.insert(touched.run)),
                _ => drop(self.lock().paused.remove(&touched.run)),
            }
        }
    }

    /// Stops the executions of a run, since their results no longer count.
    fn abort(&self, run: RunKey) {
        let mut tasks = self.lock();
        let of_run = tasks.running.values().filter(|running| running.run == run);
        of_run.for_each(|running| running.cancel.cancel());
        if tasks.aborted.len() == REMEMBERED {
            tasks.aborted.pop_front();
        }
        tasks.aborted.push_back(run);
    }

    /// Stops all executions, since none of their results counts.
    pub(crate) fn abort_all(&self) {
        self.lock().running.drain().for_each(|(_, running)| running.task.abort());
    }

    /// Returns the runs that have states under execution.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        let runs: BTreeSet<_> = self.lock().running.values().map(|running| running.run).collect();
        runs.into_iter().collect()
    }

    /// Notes that paused runs were resumed: nothing is claimed of a paused one.
    fn go_on(&self, leased: &[(Leased, ClaimPermit)]) {
        let mut tasks = self.lock();
        if !tasks.paused.is_empty() {
            for (leased, _) in leased {
                tasks.paused.remove(&leased.state.run);
            }
        }
    }

    /// Executes a state in its own task, unless its run was cancelled.
    fn spawn(&self, parts: &Arc<Parts>, leased: Leased, lease: ClaimPermit) {
        let (id, run) = (leased.state.id, leased.state.run);
        let mut tasks = self.lock();
        if tasks.aborted.contains(&run) {
            return;
        }
        // The lock is held until the task is noted: a task that ends takes it to be
        // forgotten.
        let cancel = Cancel::default();
        let work = execute(parts.clone(), leased, lease, cancel.clone(), Instant::now());
        let task = self.work.spawn(work);
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

    /// Waits for a slot, of which a namespace has at most `most`. Slots go round-robin to
    /// namespaces, and within a namespace to the run with the fewest.
    async fn slot(
        &self,
        namespace: NamespaceKey,
        run: RunKey,
        most: u32,
    ) -> Option<FairPermit<NamespaceKey, RunKey>> {
        self.slots.acquire_for(namespace, run, most).await
    }

    /// Gives back up to `most` states of a namespace, or of one of its runs, that
    /// have waited for a slot since before `since`. Returns their number.
    pub(crate) fn withdraw(
        &self,
        namespace: NamespaceKey,
        run: Option<RunKey>,
        most: u32,
        since: std::time::Instant,
    ) -> u32 {
        let withdrawn = self.slots.withdraw(&namespace, run.as_ref(), most as usize, since);
        u32::try_from(withdrawn).unwrap_or(u32::MAX)
    }
}

/// Executes claimed states, each in its own task. Outputs that the claim did not bring
/// are read for all of them at once.
pub(crate) fn dispatch(parts: &Arc<Parts>, leased: Vec<(Leased, ClaimPermit)>) {
    // Called in the order of the commits, so that a later pause counts.
    parts.executor.go_on(&leased);
    let at_hand =
        |(leased, _): &(Leased, ClaimPermit)| leased.state.place.refs.len() == leased.known.len();
    let (ready, mut rest): (Vec<_>, Vec<_>) = leased.into_iter().partition(at_hand);
    parts.prefetch.notify();
    if ready.is_empty() && rest.is_empty() {
        return;
    }
    let parts = parts.clone();
    let work = parts.executor.work().clone();
    // In one task, since a spawn from a thread of this runtime costs a fraction of a
    // spawn from elsewhere.
    work.spawn(async move {
        for (leased, lease) in ready {
            parts.executor.spawn(&parts, leased, lease);
        }
        if rest.is_empty() {
            return;
        }
        read_ahead(&parts, &mut rest).await;
        for (leased, lease) in rest {
            parts.executor.spawn(&parts, leased, lease);
        }
    });
}

async fn execute(
    parts: Arc<Parts>,
    leased: Leased,
    lease: ClaimPermit,
    cancel: Cancel,
    spawned: Instant,
) {
    let waited = spawned.elapsed();
    let id = leased.state.id;
    let run = match parts.runs.get(&parts.patient, leased.state.run).await {
        Ok(run) => run,
        Err(error) => {
            // Without its run, a state cannot even be failed, so it is given back.
            tracing::error!(%error, state = %id, "a claimed state has no readable run");
            parts.executor.forget(id);
            drop(lease);
            return parts.committer.lose();
        }
    };
    let attempt = Attempt { parts: &parts, run: &run, leased: &leased, cancel, waited };
    // A panic is an internal error, and must not lose the state.
    let ended = std::panic::AssertUnwindSafe(attempt.run()).catch_unwind().await;
    let mut ended = ended.unwrap_or_else(|_| Ended::failed(internal(&"the host panicked")));
    let slot = ended.slot.take();
    let finished = finished(&parts, run, leased, ended).await;
    parts.executor.forget(id);
    if let Some(finished) = finished {
        staging::finish(&parts, finished, lease).await;
    }
    // The execution keeps its slot until its result is in the commit queue, so that the
    // slots bound the memory.
    drop(slot);
}

/// The result of an attempt, before it is planned.
struct Ended {
    outcome: Outcome,
    journal: Journal,
    logs: Vec<LogLine>,
    usage: Option<Usage>,
    /// The limits of the attempt, if it ran.
    limits: Option<Arc<Limits>>,
    /// The slot of the attempt, held until its result is in the commit queue.
    slot: Option<FairPermit<NamespaceKey, RunKey>>,
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

/// The reason for which host work for an attempt was not done.
enum NotDone {
    Cancelled,
    /// The attempt ran past its deadline.
    TooLate,
    /// The job was lost.
    Lost(JobLost),
}

/// Builds the failure of an attempt whose CPU time was used up by checks of its inputs or
/// outputs.
fn reached_by_checks(limits: &Limits, what: &str, cpu: Duration) -> Failure {
    let Failure { kind, message, details, .. } = limits.reached(Limit::CpuMs);
    let took = cpu.as_millis();
    let message = format!(
        "{message}. The host's checks of the {what} against their schema are a part of it and took {took} ms; \
         use a simpler schema or fewer {what}"
    );
    Failure { details, ..Failure::new(kind, message) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One attempt under way.
struct Attempt<'a> {
    parts: &'a Parts,
    run: &'a Arc<RunInfo>,
    leased: &'a Leased,
    cancel: Cancel,
    /// The time for which the attempt has waited for its thread.
    waited: Duration,
}

impl Attempt<'_> {
    async fn run(mut self) -> Ended {
        let parts = self.parts;
        let namespace = self.run.namespace_key;
        let most = parts.slots_of(parts.tenants.slots(namespace));
        let mut slot = pin!(parts.executor.slot(namespace, self.run.key, most));
        let slot = match slot.as_mut().now_or_never() {
            Some(slot) => slot,
            None => {
                // From now on the attempt waits for a slot, not for a thread.
                self.waited = Duration::ZERO;
                tokio::select! {
                    slot = slot => slot,
                    () = self.cancel.cancelled() => None,
                }
            }
        };
        let Some(slot) = slot else {
            return Ended::without_a_run(Outcome::Released);
        };
        Ended { slot: Some(slot), ..self.run_in_a_slot().await }
    }

    async fn run_in_a_slot(&self) -> Ended {
        let parts = self.parts;
        let _running = parts.prefetch.begin(self.run.namespace_key, self.run.key);
        if parts.executor.is_paused(self.run.key) {
            return Ended::without_a_run(Outcome::Released);
        }
        if self.leased.state.tries.is_poison_suspect() && !self.noted().await {
            return Ended::without_a_run(Outcome::Released);
        }
        match self.invoke().await {
            Ok(ended) => ended,
            Err(NoInputs::Failed(failure)) => Ended::failed(failure),
            Err(NoInputs::Cancelled) => Ended::without_a_run(Outcome::Released),
            Err(NoInputs::Unavailable(why)) => self.given_back(&why),
        }
    }

    /// Records that a suspected poison state is about to run, so that a further host loss
    /// can be attributed to it. Returns `false` if the state is no longer claimed.
    async fn noted(&self) -> bool {
        let (run, state) = (self.run.clone(), Box::new(self.leased.state.clone()));
        let member = Member::Begin { run, state };
        matches!(self.parts.committer.submit(member).await, Ok(Answer::Done))
    }

    /// Gives the state back, since an unavailable database is not its fault.
    fn given_back(&self, why: &str) -> Ended {
        tracing::warn!(why, state = %self.leased.state.id, "an attempt is given up: the database is unavailable");
        Ended::without_a_run(Outcome::Released)
    }

    /// Returns the node and the limits of the attempt.
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
        let ready = plugins::ready(parts, &run.namespace, node).await;
        let (plugin, described) = ready.map_err(|error| match error {
            NotReady::Store(error) => error.into(),
            broken => NoInputs::Failed(internal(&broken)),
        })?;
        let deadline = Instant::now() + limits.time(Limit::TimeoutMs);
        let inputs = tokio::select! {
            inputs = self.inputs(&described, &limits, deadline) => inputs?,
            () = self.cancel.cancelled() => {
                return Ok(Ended::without_a_run(Outcome::Released));
            }
        };
        let (inputs, checked_for) = inputs;
        let store = Arc::new(StoreOfRun {
            store: parts.patient.clone(),
            run: run.key,
            unavailable: AtomicBool::new(false),
        });
        let secrets = secrets(parts, run, &described.description, &grants).await?;
        let invocation = Invocation {
            node: node.node_name.clone(),
            inputs,
            context: self.context(node),
            store: store.clone(),
            secrets: secrets.clone(),
            grants,
            limits: Limits::clone(&limits),
            waited: self.waited,
            cancel: self.cancel.clone(),
        };
        tracing::debug!(state = %leased.state.id, attempt = leased.state.tries.attempt, "executing");
        let mut completion = parts.sandbox.invoke(&plugin, invocation).await;
        completion.usage.cpu_us += micros(checked_for);
        match store.unavailable.load(Ordering::Relaxed) {
            true => Ok(self.given_back("its store could not be read")),
            false => {
                let deadline = deadline + completion.queued;
                Ok(self.checked(completion, &described, &secrets, limits, deadline).await)
            }
        }
    }

    /// Reads and checks the inputs; returns their text, and the CPU time of a check as
    /// host work. The values that they are made of are dropped here.
    async fn inputs(
        &self,
        node: &Arc<DescribedNode>,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<(String, Duration), NoInputs> {
        let Attempt { parts, run, leased, .. } = self;
        let mut reading = Reading::new(parts, &run.namespace, limits);
        let inputs = inputs(&parts.patient, run, leased, limits, &mut reading).await?;
        let inputs = Value::Object(inputs);
        let check = |node: &DescribedNode, inputs: &Value, budget: &dyn Budget| {
            node.inputs(budget)?.check(inputs, budget)
        };
        let mut cpu = Duration::ZERO;
        let (inputs, checked) = match check(node, &inputs, &StepBudget::new(INLINE_STEPS)) {
            Err(Refusal::Exhausted) => {
                let turn = reading.take_turn();
                let node = node.clone();
                let work = move |meter: &Meter| {
                    let checked = check(&node, &inputs, meter);
                    (inputs, checked)
                };
                let bounds = Bounds::cpu(limits.time(Limit::CpuMs));
                let done = match self.work(turn, bounds, deadline, work).await {
                    Ok(done) => done,
                    Err(NotDone::Cancelled) => return Err(NoInputs::Cancelled),
                    Err(NotDone::TooLate) => return Err(limits.timed_out().into()),
                    Err(NotDone::Lost(lost)) => return Err(internal(&lost).into()),
                };
                cpu = done.cpu;
                reading.give_turn(done.turn);
                done.value
            }
            checked => (inputs, checked),
        };
        checked.map_err(|refusal| match refusal {
            Refusal::Misfit(why) => Failure::new(
                FailureKind::InvalidInput,
                format!("the inputs break their schema: {why}"),
            ),
            Refusal::Exhausted => reached_by_checks(limits, "inputs", cpu),
        })?;
        Ok((text(&inputs, limits)?, cpu))
    }

    /// Checks the outputs of a completion against their schema. The message of a misfit
    /// repeats a part of the output, so secrets are hidden in it.
    async fn checked(
        &self,
        completion: Completion,
        node: &Arc<DescribedNode>,
        secrets: &Secrets,
        limits: Arc<Limits>,
        deadline: Instant,
    ) -> Ended {
        let Completion { mut outcome, mut journal, logs, mut usage, queued: _ } = completion;
        if let Outcome::Outputs(outputs) = outcome {
            let check = OutputCheck::new(outputs, node.clone(), limits.get(Limit::JsonBytes));
            outcome = self.check_outputs(check, secrets, (&limits, deadline), &mut usage).await;
        }
        if matches!(outcome, Outcome::Failed(_) | Outcome::Released) {
            journal = Journal::default();
        }
        Ended { outcome, journal, logs, usage: Some(usage), limits: Some(limits), slot: None }
    }

    /// Checks outputs: a few inline, and the rest as host work in slices, which is billed
    /// to the attempt.
    async fn check_outputs(
        &self,
        mut check: OutputCheck,
        secrets: &Secrets,
        (limits, deadline): (&Limits, Instant),
        usage: &mut Usage,
    ) -> Outcome {
        let mut progress = check.go_on(&StepBudget::new(INLINE_STEPS), || false);
        let mut cpu = Duration::ZERO;
        loop {
            match progress {
                Progress::Passed => return Outcome::Outputs(check.into_outputs()),
                Progress::TooHeavy => return Outcome::Failed(limits.reached(Limit::JsonBytes)),
                Progress::Misfit { output, why } => {
                    let why = format!("output {output} breaks its schema: {why}");
                    let why = secrets.hide(why);
                    return Outcome::Failed(Failure::new(FailureKind::InvalidOutput, why));
                }
                Progress::Paused => {}
            }
            let used = Duration::from_micros(usage.cpu_us);
            let Some(left) = limits.time(Limit::CpuMs).checked_sub(used) else {
                return Outcome::Failed(reached_by_checks(limits, "outputs", cpu));
            };
            let work = move |meter: &Meter| {
                let progress = check.go_on(meter, || meter.is_slice_over());
                (check, progress)
            };
            let turn = self.parts.work.turn(&self.run.namespace);
            let done = match self.work(turn, Bounds::cpu(left), deadline, work).await {
                Ok(done) => done,
                Err(NotDone::Cancelled) => return Outcome::Released,
                Err(NotDone::TooLate) => return Outcome::Failed(limits.timed_out()),
                Err(NotDone::Lost(lost)) => return Outcome::Failed(internal(&lost)),
            };
            (check, progress) = done.value;
            usage.cpu_us = usage.cpu_us.saturating_add(micros(done.cpu).max(1));
            cpu += done.cpu;
        }
    }

    /// Does host work for this attempt, until it is cancelled or past its deadline. The
    /// wait for the turn counts as its time.
    async fn work<T: Send + 'static>(
        &self,
        turn: impl Future<Output = Option<FairPermit<Name>>>,
        bounds: Bounds,
        deadline: Instant,
        work: impl FnOnce(&Meter) -> T + Send + 'static,
    ) -> Result<Done<T>, NotDone> {
        let run = async { self.parts.work.run(turn.await, bounds, work).await };
        tokio::select! {
            done = tokio::time::timeout_at(deadline, run) => match done {
                Ok(done) => done.map_err(NotDone::Lost),
                Err(_) => Err(NotDone::TooLate),
            },
            () = self.cancel.cancelled() => Err(NotDone::Cancelled),
        }
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
            plugin: node.plugin.to_string(),
            attempt: state.tries.attempt,
            idempotency_key: format!("{}/{}/{}", run.id, state.id, state.tries.requeues),
        }
    }
}

/// Plans the end of an attempt for its commit. Returns nothing if the state cannot even
/// be ended.
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

/// Plans the changes of an outcome with many outputs, on a blocking thread.
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

/// Reserves ids for new states, however long that takes: an outcome waits for its
/// database.
async fn numbers(parts: &Parts, count: u64) -> Result<Numbers, StoreError> {
    let mut pause = BACKOFF.0;
    loop {
        match parts.store.state_numbers(count, parts.clock.now()).await {
            Err(
                StoreError::Contention(_) | StoreError::Unavailable(_) | StoreError::Unknown(_),
            ) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
            settled => return settled,
        }
    }
}

/// The store of a run, as a guest reads it.
struct StoreOfRun {
    store: Store,
    run: RunKey,
    /// Set if a read failed, which is not the guest's fault.
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
