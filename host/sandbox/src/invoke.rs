//! Runs one guest once: from an invocation to its completion, whatever the guest does.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Name;
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits, Usage};
use exosphere_domain::outcome::Outcome;
use futures::FutureExt;
use tokio::sync::Notify;
use wasmtime::Store;

use crate::bindings::v0_1::exports::exosphere::node::guest as wit;
use crate::failure::{self, Phase};
use crate::fair_semaphore::FairPermit;
use crate::guest::context::Context;
use crate::guest::log::LogLine;
use crate::guest::run_store::RunStore;
use crate::guest::secrets::Secrets;
use crate::guest::state::{GuestState, InstanceParams, new_store};
use crate::guest::trap::HostTrap;
use crate::limits::cpu_meter::CpuQueue;
use crate::limits::epoch_ticker::TICK;
use crate::output;
use crate::plugins::Plugin;
use crate::sandbox::Sandbox;

/// One execution of a node, ready to run.
pub struct Invocation {
    /// The node, by its name in the plugin's description.
    pub node: Name,
    /// The node's inputs: a JSON object as text.
    pub inputs: String,
    /// The metadata of the execution that the guest may read.
    pub context: Context,
    /// The store of the run, to read from.
    pub store: Arc<dyn RunStore>,
    /// The secrets of the execution.
    pub secrets: Secrets,
    /// The grants of the plugin: requests over HTTP, configuration.
    pub grants: Arc<Grants>,
    /// The limits of the execution; its time counts from the moment it has a slot.
    /// Memory, tables and instances are also bounded by the sandbox's own limits, for
    /// which its slots were made.
    pub limits: Limits,
    /// The time that the execution has waited for its thread.
    pub waited: Duration,
    /// Cancels the execution from outside.
    pub cancel: Cancel,
}

/// A cancellation signal. All clones are one signal.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Notify>);

impl Cancel {
    /// Cancels the execution now, or as soon as it waits.
    pub fn cancel(&self) {
        self.0.notify_one();
    }

    /// Waits for the cancellation. Each signal wakes one waiter once.
    pub async fn cancelled(&self) {
        self.0.notified().await;
    }
}

/// The result of an execution.
#[derive(Debug)]
pub struct Completion {
    /// [`Outcome::Outputs`], [`Outcome::Prune`], [`Outcome::RequeueAfter`] or
    /// [`Outcome::Failed`]; [`Outcome::Released`] if the execution was cancelled.
    pub outcome: Outcome,
    /// The journal of the execution's reads and writes; empty if it failed or was
    /// cancelled.
    pub journal: Journal,
    /// The log lines of the guest, printed ones included.
    pub logs: Vec<LogLine>,
    /// The resources that the execution used.
    pub usage: Usage,
    /// The wait for its first turn at the processors, which uses up none of its time.
    pub queued: Duration,
}

/// The wait for a thread after which a guest begins in a turn, as it does after a tick.
/// A wait of this length means that too many guests use their whole tick. Without the
/// turn, those of one run would hold up later runs. Hundreds of short guests cause a
/// shorter wait.
const MAX_WAIT_WITHOUT_TURN: Duration = TICK.saturating_mul(5);

/// Bytes of outputs up to which they are checked on this thread. Checking more would
/// hold up the other executions on it.
const MAX_CHECKED_INLINE_BYTES: usize = 256 * 1024;

impl Sandbox {
    /// Runs a node in a separate sandbox, after waiting for a free slot. Every failure
    /// is in the completion. Dropping the future ends the guest and frees its slot.
    pub async fn invoke(&self, plugin: &Plugin, invocation: Invocation) -> Completion {
        let limits = self.capped(invocation.limits);
        if invocation.inputs.len() > limits.size(Limit::InputBytes) {
            let failure = limits.reached(Limit::InputBytes);
            return SideEffects::default().without_effect(Outcome::Failed(failure));
        }
        let input_bytes = invocation.inputs.len() as u64;
        let secrets = invocation.secrets;
        let params = InstanceParams {
            context: invocation.context,
            store: invocation.store,
            secrets: secrets.clone(),
            grants: invocation.grants,
            network: self.network(),
            limits: limits.clone(),
        };
        let call = Execute { node: invocation.node, inputs: invocation.inputs };
        let Context { namespace, run, .. } = &params.context;
        let (namespace, run) = (namespace.clone(), run.clone());
        let in_turn = invocation.waited >= MAX_WAIT_WITHOUT_TURN;
        let called = self.call_guest(plugin, params, call, (in_turn, &invocation.cancel));
        let (answer, mut effects) = called.await;
        effects.usage.input_bytes += input_bytes;
        let (outcome, bytes) = match answer {
            Ok(answer) if answer_bytes(&answer) > MAX_CHECKED_INLINE_BYTES => {
                let turns = self.cpu_turns();
                let turn = turns.acquire_for(namespace, run, u32::MAX);
                let checked = check_in_turn(answer, limits, secrets.clone(), turn);
                let checked = tokio::select! {
                    checked = checked => checked,
                    () = invocation.cancel.cancelled() => {
                        return effects.without_effect(Outcome::Released);
                    }
                };
                effects.usage.cpu_us = effects.usage.cpu_us.saturating_add(checked.cpu_us);
                (checked.outcome, checked.bytes)
            }
            Ok(answer) => output::decode_outcome(answer, &limits, &secrets),
            Err(CallError::Cancelled) => return effects.without_effect(Outcome::Released),
            Err(CallError::Typecheck(error)) => {
                (Outcome::Failed(failure::typecheck_failed(&error)), 0)
            }
            Err(CallError::Failed(failure)) => {
                (Outcome::Failed(secrets.redact_failure(failure)), 0)
            }
        };
        effects.usage.output_bytes += bytes;
        match outcome {
            Outcome::Failed(failure) => {
                let failure = match effects.denied.take() {
                    Some(cause) => secrets.redact_failure(failure::with_denial(failure, &cause)),
                    None => failure,
                };
                effects.without_effect(Outcome::Failed(failure))
            }
            outcome => {
                let SideEffects { journal, logs, usage, queued, .. } = effects;
                Completion { outcome, journal, logs, usage, queued }
            }
        }
    }

    /// Calls one function of a new guest, and drops the guest.
    pub(crate) async fn call_guest<Q: GuestCall>(
        &self,
        plugin: &Plugin,
        params: InstanceParams,
        call: Q,
        (in_turn, cancel): (bool, &Cancel),
    ) -> (Result<Q::Answer, CallError>, SideEffects) {
        // Locals are dropped in reverse order: the guest's memory returns to the pool before
        // its slot is free, even if this future is dropped half-way.
        let _instance = self.instance().await;
        let _running = self.ticker().running();
        let timeout = params.limits.time(Limit::TimeoutMs);
        let Context { namespace, run, .. } = &params.context;
        let (namespace, run) = (namespace.clone(), run.clone());
        let queue = CpuQueue { turns: self.cpu_turns(), namespace, run };
        // Before the deadline counts, since the guest cannot help the queue.
        let started = Instant::now();
        let turn = async { if in_turn { queue.wait().await } else { None } };
        let first = tokio::select! {
            biased;
            first = turn => first,
            () = cancel.cancelled() => return (Err(CallError::Cancelled), SideEffects::default()),
        };
        let queued = if in_turn { started.elapsed() } else { Duration::ZERO };
        let mut store = new_store(self.engine(), params);
        let meter = Arc::clone(&store.data().cpu_meter);
        let limit_signal = Arc::clone(&store.data().limit_signal);
        let ended = {
            // Pinned, since each wrapper copies a future that it wraps by value.
            let work = pin!(instantiate_and_call(plugin, &mut store, call));
            let work = pin!(meter.measure(queue, first, work));
            let work = async {
                tokio::select! {
                    biased;
                    answer = work => Some(answer),
                    limit = limit_signal.reached() => Some(Err((Phase::Call, HostTrap::Limit(limit).into()))),
                    () = cancel.cancelled() => None,
                }
            };
            tokio::time::timeout(timeout, AssertUnwindSafe(work).catch_unwind()).await
        };
        let state = store.data();
        let answer = match ended {
            Ok(Ok(Some(Ok(answer)))) => match state.exceeded_limit() {
                Some(limit) => Err(state.limits.reached(limit).into()),
                None => Ok(answer),
            },
            Ok(Ok(Some(Err((Phase::Typecheck, error))))) => Err(CallError::Typecheck(error)),
            Ok(Ok(Some(Err((phase, error))))) => {
                Err(failure::classify(&error, phase, state).into())
            }
            Ok(Ok(None)) => Err(CallError::Cancelled),
            Ok(Err(_)) => Err(failure::internal("a host function panicked", state).into()),
            Err(_) => Err(state.limits.timed_out().into()),
        };
        (answer, SideEffects { queued, ..SideEffects::from_state(store.into_data()) })
    }
}

/// The reason why a call of a guest has no answer.
pub(crate) enum CallError {
    /// The guest's functions have other parameters or results than the contract.
    Typecheck(wasmtime::Error),
    /// The guest failed.
    Failed(Failure),
    /// The caller cancelled the call.
    Cancelled,
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        CallError::Failed(failure)
    }
}

/// A call of one of the guest's functions, with its arguments.
pub(crate) trait GuestCall: Send {
    type Answer: Send;

    fn call(
        self,
        guest: &wit::Guest,
        store: &mut Store<GuestState>,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>> + Send;
}

/// The call of `describe`: which nodes the plugin has.
pub(crate) struct Describe;

impl GuestCall for Describe {
    type Answer = String;

    async fn call(
        self,
        guest: &wit::Guest,
        store: &mut Store<GuestState>,
    ) -> wasmtime::Result<String> {
        guest.call_describe(store).await
    }
}

/// The call of `execute`: runs one node.
struct Execute {
    node: Name,
    inputs: String,
}

impl GuestCall for Execute {
    type Answer = Result<wit::Completion, wit::Failure>;

    async fn call(
        self,
        guest: &wit::Guest,
        store: &mut Store<GuestState>,
    ) -> wasmtime::Result<Self::Answer> {
        guest.call_execute(store, self.node.as_str(), &self.inputs).await
    }
}

/// Creates an instance of the plugin, and calls its function.
async fn instantiate_and_call<Q: GuestCall>(
    plugin: &Plugin,
    store: &mut Store<GuestState>,
    call: Q,
) -> Result<Q::Answer, (Phase, wasmtime::Error)> {
    let instance = plugin.instance_pre().instantiate_async(&mut *store).await;
    let instance = instance.map_err(|error| (Phase::Start, error))?;
    let guest = plugin.indices().load(&mut *store, &instance);
    let guest = guest.map_err(|error| (Phase::Typecheck, error))?;
    let answer = call.call(guest.exosphere_node_guest(), store).await;
    answer.map_err(|error| (Phase::Call, error))
}

/// The logs, usage and journal that a guest leaves, however it ended.
#[derive(Default)]
pub(crate) struct SideEffects {
    journal: Journal,
    logs: Vec<LogLine>,
    usage: Usage,
    /// The reason why the latest HTTP request was denied, if it was.
    denied: Option<String>,
    /// The wait for the first turn.
    queued: Duration,
}

impl SideEffects {
    fn from_state(mut state: GuestState) -> SideEffects {
        SideEffects {
            denied: state.http.take_denied(),
            usage: Usage {
                cpu_us: u64::try_from(state.cpu_meter.total().as_micros()).unwrap_or(u64::MAX),
                peak_memory_bytes: state.memory.peak_memory(),
                host_calls: state.host_calls,
                input_bytes: state.http.received(),
                output_bytes: state.http.sent(),
            },
            logs: state.logs.finish(),
            journal: state.store.into_journal(),
            queued: Duration::ZERO,
        }
    }

    /// Creates a completion with an empty journal: such an attempt changes nothing in the
    /// store.
    fn without_effect(self, outcome: Outcome) -> Completion {
        let SideEffects { logs, usage, queued, .. } = self;
        Completion { outcome, journal: Journal::default(), logs, usage, queued }
    }
}

/// Returns the bytes of a node's answer.
fn answer_bytes(answer: &Result<wit::Completion, wit::Failure>) -> usize {
    match answer {
        Ok(wit::Completion::Outputs(outputs)) => outputs.iter().map(String::len).sum(),
        Ok(wit::Completion::Prune(data)) => data.as_ref().map_or(0, String::len),
        Ok(wit::Completion::RequeueAfter(_)) | Err(_) => 0,
    }
}

/// Large outputs after their check.
struct CheckedOutputs {
    outcome: Outcome,
    bytes: u64,
    /// The elapsed time of the check in microseconds, billed to the attempt as CPU
    /// time.
    cpu_us: u64,
}

/// Checks large outputs on a blocking thread, in the run's turn at the processors.
async fn check_in_turn(
    answer: Result<wit::Completion, wit::Failure>,
    limits: Limits,
    secrets: Secrets,
    turn: impl Future<Output = Option<FairPermit<String, String>>>,
) -> CheckedOutputs {
    let turn = turn.await;
    let check = move || {
        let started = Instant::now();
        let (outcome, bytes) = output::decode_outcome(answer, &limits, &secrets);
        // The turn ends with the work, even if its caller is gone.
        drop(turn);
        let cpu_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        CheckedOutputs { outcome, bytes, cpu_us }
    };
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the check of an output ended early");
        let message = "the host could not check the outputs; its log says why";
        let outcome = Outcome::Failed(Failure::new(FailureKind::Internal, message));
        CheckedOutputs { outcome, bytes: 0, cpu_us: 0 }
    })
}
