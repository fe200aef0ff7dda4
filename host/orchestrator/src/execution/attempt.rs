//! One attempt at a claimed state: it waits for a slot, renders and checks the inputs,
//! invokes the guest, and checks the outputs.
//!
//! Not here: tasks and slots (`executor`), and what follows from the outcome (`planner`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::budget::{Budget, StepBudget};
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::grant::{Capability, Grants};
use exosphere_domain::graph::Node;
use exosphere_domain::ids::{Digest, Name, NamespaceKey, RunId, RunKey};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits, Usage};
use exosphere_domain::node::DescribedNode;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::path::Path;
use exosphere_domain::schema::Refusal;
use exosphere_sandbox::{Cancel, Completion, Context, FairPermit, Invocation, LogLine, Secrets};
use exosphere_store::{ClaimedState, Control, Operation, Reply, RunInfo};
use futures::FutureExt;
use serde_json::Value;
use tokio::time::Instant;

use super::inputs::{InputError, render_inputs, to_text};
use super::json_budget::JsonBudget;
use super::output_check::{OutputCheck, Progress};
use super::plugins::{self, PluginError};
use super::run_store::RunStoreReader;
use super::secrets::read_secrets;
use crate::cache::namespaces::NamespaceLimits;
use crate::error::internal;
use crate::host_work::{Bounds, INLINE_STEPS, JobLost, JobResult, Meter};
use crate::inner::HostInner;

/// The result of an attempt, before it is planned.
pub(super) struct AttemptResult {
    pub outcome: Outcome,
    pub journal: Journal,
    pub logs: Vec<LogLine>,
    pub usage: Option<Usage>,
    /// The time at which it began, in its slot; `None` if it never got one.
    pub began_at: Option<std::time::Instant>,
    /// The limits of the attempt, if it ran.
    pub limits: Option<Arc<Limits>>,
    /// The slot of the attempt, held until its result is in the commit queue.
    pub slot: Option<FairPermit<NamespaceKey, RunKey>>,
}

impl AttemptResult {
    pub(super) fn failed(failure: Failure) -> Self {
        AttemptResult::without_invocation(Outcome::Failed(failure))
    }

    fn without_invocation(outcome: Outcome) -> Self {
        AttemptResult {
            outcome,
            journal: Journal::default(),
            logs: Vec::new(),
            usage: None,
            began_at: None,
            limits: None,
            slot: None,
        }
    }
}

/// Hexadecimal digits of the digest of a path in a key: no two states of a run have the same.
const PATH_DIGEST_DIGITS: usize = 32;

/// The reason why host work for an attempt was not done.
enum WorkError {
    Cancelled,
    /// The attempt ran past its deadline.
    TooLate,
    /// The job panicked.
    JobLost(JobLost),
}

/// Builds the failure of an attempt whose CPU time was used up by checks of its inputs or
/// outputs.
fn cpu_limit_reached_by_checks(limits: &Limits, values: &str, cpu: Duration) -> Failure {
    let Failure { kind, message, details, .. } = limits.reached(Limit::CpuMs);
    let cpu_ms = cpu.as_millis();
    let message = format!(
        "{message}. The host's checks of the {values} against their schema are a part of it and took {cpu_ms} ms; \
         use a simpler schema or fewer {values}"
    );
    Failure { details, ..Failure::new(kind, message) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One attempt under way.
pub(super) struct Attempt<'a> {
    pub inner: &'a HostInner,
    pub run: &'a Arc<RunInfo>,
    pub claimed: &'a ClaimedState,
    pub cancel: Cancel,
    /// The time for which the attempt has waited for its thread.
    pub waited: Duration,
}

impl Attempt<'_> {
    /// Executes the state once a slot is free.
    pub(super) async fn run(mut self) -> AttemptResult {
        let inner = self.inner;
        let namespace = self.run.namespace_key;
        let asked_at = Instant::now();
        let max_slots = inner.settings.slots_of(inner.caches.namespaces.slots(namespace));
        let mut slot = pin!(inner.pipeline.executor.slot(namespace, self.run.key, max_slots));
        let slot = match slot.as_mut().now_or_never() {
            Some(slot) => slot,
            None => {
                // From now on the attempt waits for a slot, not for a thread.
                self.waited = Duration::ZERO;
                let _wait = inner.pipeline.executor.wait(self.claimed.state.id, namespace);
                tokio::select! {
                    slot = slot => slot,
                    () = self.cancel.cancelled() => None,
                }
            }
        };
        let Some(slot) = slot else {
            return AttemptResult::without_invocation(Outcome::Released);
        };
        inner.metrics.slot_wait.observe_time(asked_at.elapsed());
        let began_at = Some(std::time::Instant::now());
        AttemptResult { slot: Some(slot), began_at, ..self.run_in_a_slot().await }
    }

    async fn run_in_a_slot(&self) -> AttemptResult {
        let inner = self.inner;
        let _running = inner.pipeline.prefetch.begin(self.run.namespace_key, self.run.key);
        if inner.pipeline.executor.is_paused(self.run.key)
            || inner.pipeline.pauses.is_paused(self.run.namespace_key)
        {
            return AttemptResult::without_invocation(Outcome::Released);
        }
        if self.claimed.state.attempts.is_poison_suspect() && !self.record_begin().await {
            return AttemptResult::without_invocation(Outcome::Released);
        }
        match self.invoke().await {
            Ok(result) => result,
            Err(InputError::Failed(failure)) => AttemptResult::failed(failure),
            Err(InputError::Cancelled) => AttemptResult::without_invocation(Outcome::Released),
            Err(InputError::Unavailable(cause)) => self.release(&cause),
        }
    }

    /// Records that a suspected poison state is about to run, so that a further host loss
    /// can be attributed to it. Returns `false` if the state is no longer claimed.
    async fn record_begin(&self) -> bool {
        let (run, state) = (self.run.clone(), Box::new(self.claimed.state.clone()));
        let operation = Operation::Control(run, Control::Begin(state));
        matches!(self.inner.pipeline.committer.submit(operation).await, Ok(Reply::Done))
    }

    /// Gives the state back, because an unavailable database is not the node's fault.
    fn release(&self, cause: &str) -> AttemptResult {
        tracing::warn!(cause, state = %self.claimed.state.id, "an attempt is given up: the database is unavailable");
        AttemptResult::without_invocation(Outcome::Released)
    }

    /// Returns the node and the limits of the attempt.
    fn node_and_limits(&self, settings: &NamespaceLimits) -> Result<(&Node, Limits), Failure> {
        let Attempt { inner, run, claimed, .. } = self;
        let place = claimed.state.place.node;
        let node = run.graph.get(place).ok_or_else(|| {
            internal(&format!(
                "state {} is at node {}, which does not exist",
                claimed.state.id, place.0
            ))
        })?;
        let mut limits = inner.settings.attempt_limits(&run.namespace, &settings.limits);
        run.graph.lower(node, &mut limits);
        Ok((node, limits))
    }

    async fn invoke(&self) -> Result<AttemptResult, InputError> {
        let Attempt { inner, run, claimed, .. } = self;
        let settings =
            inner.caches.namespaces.get(&inner.db.retrying_store, &run.namespace).await?;
        let (node, limits) = self.node_and_limits(&settings)?;
        let limits = Arc::new(limits);
        let grants = settings.grants(&node.plugin);
        let loaded = plugins::load(inner, &run.namespace, node).await;
        let (plugin, described) = loaded.map_err(|error| match error {
            PluginError::Store(error) => error.into(),
            broken => InputError::Failed(internal(&broken)),
        })?;
        let deadline = Instant::now() + limits.time(Limit::TimeoutMs);
        let inputs = tokio::select! {
            inputs = self.checked_inputs(&described, &limits, deadline) => inputs?,
            () = self.cancel.cancelled() => {
                return Ok(AttemptResult::without_invocation(Outcome::Released));
            }
        };
        let (inputs, check_cpu) = inputs;
        let store = Arc::new(RunStoreReader::new(inner.db.retrying_store.clone(), run.key));
        let secrets = read_secrets(inner, run, &described.description, &grants).await?;
        let invocation = Invocation {
            node: node.node_name.clone(),
            inputs,
            context: self.context(node, &grants),
            store: store.clone(),
            secrets: secrets.clone(),
            grants,
            limits: Limits::clone(&limits),
            waited: self.waited,
            cancel: self.cancel.clone(),
        };
        tracing::debug!(state = %self.state_name(), attempt = claimed.state.attempts.attempt, "executing");
        let invoked_at = Instant::now();
        let mut completion = inner.sandbox.invoke(&plugin, invocation).await;
        inner.metrics.invoke.observe_time(invoked_at.elapsed());
        completion.usage.cpu_us += micros(check_cpu);
        if store.has_failed() {
            return Ok(self.release("its store could not be read"));
        }
        let deadline = deadline + completion.queued;
        Ok(self.validate_outputs(completion, &described, &secrets, limits, deadline).await)
    }

    /// Reads and checks the inputs; returns their text, and the CPU time of a check as host
    /// work. The values from which they are rendered are dropped here.
    async fn checked_inputs(
        &self,
        node: &Arc<DescribedNode>,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<(String, Duration), InputError> {
        let Attempt { inner, run, claimed, .. } = self;
        let mut json = JsonBudget::new(&inner.host_work, &run.namespace, limits);
        let inputs =
            render_inputs(&inner.db.retrying_store, run, (*claimed).into(), limits, &mut json)
                .await?;
        let inputs = Value::Object(inputs);
        let check = |node: &DescribedNode, inputs: &Value, budget: &dyn Budget| {
            node.inputs(budget)?.check(inputs, budget)
        };
        let mut cpu = Duration::ZERO;
        let (inputs, checked) = match check(node, &inputs, &StepBudget::new(INLINE_STEPS)) {
            Err(Refusal::Exhausted) => {
                let turn = json.take_turn();
                let node = node.clone();
                let work = move |meter: &Meter| {
                    let checked = check(&node, &inputs, meter);
                    (inputs, checked)
                };
                let bounds = Bounds::cpu(limits.time(Limit::CpuMs));
                let done = match self.run_host_work(turn, bounds, deadline, work).await {
                    Ok(done) => done,
                    Err(WorkError::Cancelled) => return Err(InputError::Cancelled),
                    Err(WorkError::TooLate) => return Err(limits.timed_out().into()),
                    Err(WorkError::JobLost(lost)) => return Err(internal(&lost).into()),
                };
                cpu = done.cpu;
                json.return_turn(done.turn);
                done.value
            }
            checked => (inputs, checked),
        };
        checked.map_err(|refusal| match refusal {
            Refusal::Mismatch(cause) => Failure::new(
                FailureKind::InvalidInput,
                format!("the inputs break their schema: {cause}"),
            ),
            Refusal::Exhausted => cpu_limit_reached_by_checks(limits, "inputs", cpu),
        })?;
        Ok((to_text(&inputs, limits)?, cpu))
    }

    /// Checks the outputs of a completion against their schema. The message of a mismatch
    /// repeats a part of the output, so secrets in it are redacted.
    async fn validate_outputs(
        &self,
        completion: Completion,
        node: &Arc<DescribedNode>,
        secrets: &Secrets,
        limits: Arc<Limits>,
        deadline: Instant,
    ) -> AttemptResult {
        let Completion { mut outcome, mut journal, logs, mut usage, queued: _ } = completion;
        if let Outcome::Outputs(outputs) = outcome {
            let check = OutputCheck::new(outputs, node.clone(), limits.get(Limit::JsonBytes));
            outcome = self.check_outputs(check, secrets, (&limits, deadline), &mut usage).await;
        }
        if matches!(outcome, Outcome::Failed(_) | Outcome::Released) {
            journal = Journal::default();
        }
        AttemptResult {
            outcome,
            journal,
            logs,
            usage: Some(usage),
            began_at: None,
            limits: Some(limits),
            slot: None,
        }
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
        let mut progress = check.resume(&StepBudget::new(INLINE_STEPS), || false);
        let mut cpu = Duration::ZERO;
        loop {
            match progress {
                Progress::Passed => return Outcome::Outputs(check.into_outputs()),
                Progress::TooLargeInMemory => {
                    return Outcome::Failed(limits.reached(Limit::JsonBytes));
                }
                Progress::Mismatch { output, cause } => {
                    let cause = format!("output {output} breaks its schema: {cause}");
                    let cause = secrets.redact(cause);
                    return Outcome::Failed(Failure::new(FailureKind::InvalidOutput, cause));
                }
                Progress::Paused => {}
            }
            let used = Duration::from_micros(usage.cpu_us);
            let Some(left) = limits.time(Limit::CpuMs).checked_sub(used) else {
                return Outcome::Failed(cpu_limit_reached_by_checks(limits, "outputs", cpu));
            };
            let work = move |meter: &Meter| {
                let progress = check.resume(meter, || meter.is_slice_over());
                (check, progress)
            };
            let turn = self.inner.host_work.turn(&self.run.namespace);
            let done = match self.run_host_work(turn, Bounds::cpu(left), deadline, work).await {
                Ok(done) => done,
                Err(WorkError::Cancelled) => return Outcome::Released,
                Err(WorkError::TooLate) => return Outcome::Failed(limits.timed_out()),
                Err(WorkError::JobLost(lost)) => return Outcome::Failed(internal(&lost)),
            };
            (check, progress) = done.value;
            usage.cpu_us = usage.cpu_us.saturating_add(micros(done.cpu).max(1));
            cpu += done.cpu;
        }
    }

    /// Runs host work for this attempt, until the attempt is cancelled or past its deadline.
    /// The wait for the turn counts towards the attempt's time.
    async fn run_host_work<T: Send + 'static>(
        &self,
        turn: impl Future<Output = Option<FairPermit<Name>>>,
        bounds: Bounds,
        deadline: Instant,
        work: impl FnOnce(&Meter) -> T + Send + 'static,
    ) -> Result<JobResult<T>, WorkError> {
        let run = async { self.inner.host_work.run(turn.await, bounds, work).await };
        tokio::select! {
            done = tokio::time::timeout_at(deadline, run) => match done {
                Ok(done) => done.map_err(WorkError::JobLost),
                Err(_) => Err(WorkError::TooLate),
            },
            () = self.cancel.cancelled() => Err(WorkError::Cancelled),
        }
    }

    /// Returns the run and the path of the state. (The number of its row would tell a tenant how
    /// busy the others are.)
    fn state_name(&self) -> String {
        let path = self.run.graph.path_text(&self.claimed.state.place.path).unwrap_or_default();
        format!("{}/{path}", self.run.id)
    }

    fn context(&self, node: &Node, grants: &Grants) -> Context {
        let Attempt { inner, run, claimed, .. } = self;
        let state = &claimed.state;
        let (path, attempt) = (&state.place.path, state.attempts.attempt);
        let makes_requests = grants.has(Capability::Http);
        Context {
            namespace: run.namespace.to_string(),
            graph: run.graph_name.to_string(),
            run: run.id.to_string(),
            state: self.state_name(),
            identifier: node.identifier.to_string(),
            plugin: node.plugin.to_string(),
            attempt,
            idempotency_key: idempotency_key(run.id, path, state.attempts.requeues),
            traceparent: makes_requests
                .then(|| inner.traces.traceparent(run.id, path, attempt))
                .flatten(),
        }
    }
}

/// Returns the idempotency key of all attempts of one work. A digest stands for the path, which may
/// be longer than the header of a service.
fn idempotency_key(run: RunId, path: &Path, requeues: u32) -> String {
    let digest = Digest::from_content(path.as_str().as_bytes()).to_string();
    let digest: String = digest.chars().take(PATH_DIGEST_DIGITS).collect();
    format!("{run}/{digest}/{requeues}")
}
