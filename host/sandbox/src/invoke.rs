//! Runs one guest once: from an invocation to what came of it, whatever the
//! guest does.

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
use crate::context::Context;
use crate::failure::{self, Phase, Stop};
use crate::fair_semaphore::FairPermit;
use crate::host::{self, Host, Session};
use crate::log::LogLine;
use crate::meter::{Begin, Queue};
use crate::output;
use crate::plugins::Plugin;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;
use crate::store::RunStore;
use crate::ticker::TICK;

/// One execution of a node, ready to run.
pub struct Invocation {
    /// The node, by the name that the plugin's description gives it.
    pub node: Name,
    /// Its inputs: a JSON object as text.
    pub inputs: String,
    /// What it may know of itself.
    pub context: Context,
    /// Where it reads the store of its run.
    pub store: Arc<dyn RunStore>,
    /// The secrets that it may see.
    pub secrets: Secrets,
    /// What its plugin may reach: requests over HTTP, configuration.
    pub grants: Arc<Grants>,
    /// What it may use; its time counts from the moment it has a slot. Memory,
    /// tables and instances are bounded by the sandbox's own limits too, for
    /// which its slots were made.
    pub limits: Limits,
    /// How long it has waited for its thread.
    pub waited: Duration,
    /// Ends it from outside.
    pub cancel: Cancel,
}

/// Ends what waits for it. All clones are one.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Notify>);

impl Cancel {
    /// Ends it: now, or as soon as it waits.
    pub fn cancel(&self) {
        self.0.notify_one();
    }

    /// Waits for that. It is told once.
    pub async fn cancelled(&self) {
        self.0.notified().await;
    }
}

/// What came of an execution.
#[derive(Debug)]
pub struct Completion {
    /// [`Outcome::Outputs`], [`Outcome::Prune`], [`Outcome::RequeueAfter`] or
    /// [`Outcome::Failed`]; [`Outcome::Released`] if it was cancelled.
    pub outcome: Outcome,
    /// What it read and wrote; empty if it failed or was cancelled.
    pub journal: Journal,
    /// What it logged and printed.
    pub logs: Vec<LogLine>,
    /// What it used.
    pub usage: Usage,
}

/// A guest that has waited so long for its thread begins in a turn, as it goes on
/// after a tick: too many are there that use their whole tick, and those of one run
/// would hold up others that come later. Hundreds of short ones take less.
const LONG_WAIT: Duration = TICK.saturating_mul(5);

/// Bytes of outputs up to which they are checked at once. More of them would
/// hold up the other executions on this thread.
const CHECK_AT_ONCE: usize = 256 * 1024;

impl Sandbox {
    /// Runs a node in a sandbox of its own. Waits for a free slot first.
    /// Whatever goes wrong is in the completion. Dropping the future ends the
    /// guest and frees its slot.
    pub async fn invoke(&self, plugin: &Plugin, invocation: Invocation) -> Completion {
        let limits = self.bounded(invocation.limits);
        if invocation.inputs.len() > limits.size(Limit::InputBytes) {
            let failure = limits.reached(Limit::InputBytes);
            return Trace::default().without_effect(Outcome::Failed(failure));
        }
        let input_bytes = invocation.inputs.len() as u64;
        let secrets = invocation.secrets;
        let session = Session {
            context: invocation.context,
            store: invocation.store,
            secrets: secrets.clone(),
            grants: invocation.grants,
            network: self.network(),
            limits: limits.clone(),
        };
        let question = Execute { node: invocation.node, inputs: invocation.inputs };
        let Context { namespace, run, .. } = &session.context;
        let (namespace, run) = (namespace.clone(), run.clone());
        let begin = if invocation.waited < LONG_WAIT { Begin::AtOnce } else { Begin::InTurn };
        let asked = self.ask(plugin, session, question, (begin, &invocation.cancel));
        let (answer, mut trace) = asked.await;
        trace.usage.input_bytes += input_bytes;
        let (outcome, bytes) = match answer {
            Ok(answer) if bytes_of(&answer) > CHECK_AT_ONCE => {
                let turns = self.turns();
                let turn = turns.take_for(namespace, run, u32::MAX);
                let checked = check_in_turn(answer, limits, secrets.clone(), turn);
                let checked = tokio::select! {
                    checked = checked => checked,
                    () = invocation.cancel.cancelled() => {
                        return trace.without_effect(Outcome::Released);
                    }
                };
                trace.usage.cpu_us = trace.usage.cpu_us.saturating_add(checked.cpu_us);
                (checked.outcome, checked.bytes)
            }
            Ok(answer) => output::judge(answer, &limits, &secrets),
            Err(Unanswered::Cancelled) => return trace.without_effect(Outcome::Released),
            Err(Unanswered::Misfit(error)) => (Outcome::Failed(failure::misfit(&error)), 0),
            Err(Unanswered::Failed(failure)) => (Outcome::Failed(secrets.hide_in(failure)), 0),
        };
        trace.usage.output_bytes += bytes;
        match outcome {
            Outcome::Failed(failure) => {
                let failure = match trace.denied.take() {
                    Some(why) => secrets.hide_in(failure::denied(failure, &why)),
                    None => failure,
                };
                trace.without_effect(Outcome::Failed(failure))
            }
            outcome => {
                Completion { outcome, journal: trace.journal, logs: trace.logs, usage: trace.usage }
            }
        }
    }

    /// Asks a guest of its own one question, and lets it go.
    pub(crate) async fn ask<Q: Question>(
        &self,
        plugin: &Plugin,
        session: Session,
        question: Q,
        (begin, cancel): (Begin, &Cancel),
    ) -> (Result<Q::Answer, Unanswered>, Trace) {
        // Locals go in the order opposite to this one: the guest's memory is
        // back in the pool before its slot is free, even if this future is
        // dropped in the middle.
        let _slot = self.slot().await;
        let _running = self.ticker().running();
        let timeout = session.limits.time(Limit::TimeoutMs);
        let Context { namespace, run: of_run, .. } = &session.context;
        let (namespace, of_run) = (namespace.clone(), of_run.clone());
        let queue = Queue { turns: self.turns(), namespace, run: of_run, begin };
        let mut store = host::store(self.engine(), session);
        let (meter, breach) = (Arc::clone(&store.data().meter), Arc::clone(&store.data().breach));
        let ended = {
            // Pinned, since what is wrapped by value is copied by each wrapper.
            let work = pin!(run(plugin, &mut store, question));
            let work = pin!(meter.measure(queue, work));
            let work = async {
                tokio::select! {
                    biased;
                    answer = work => Some(answer),
                    limit = breach.reached() => Some(Err((Phase::Call, Stop::Limit(limit).into()))),
                    () = cancel.cancelled() => None,
                }
            };
            tokio::time::timeout(timeout, AssertUnwindSafe(work).catch_unwind()).await
        };
        let host = store.data();
        let answer = match ended {
            Ok(Ok(Some(Ok(answer)))) => match host.overrun() {
                Some(limit) => Err(host.limits.reached(limit).into()),
                None => Ok(answer),
            },
            Ok(Ok(Some(Err((Phase::Fit, error))))) => Err(Unanswered::Misfit(error)),
            Ok(Ok(Some(Err((phase, error))))) => Err(failure::judge(&error, phase, host).into()),
            Ok(Ok(None)) => Err(Unanswered::Cancelled),
            Ok(Err(_)) => Err(failure::internal("a host function panicked", host).into()),
            Err(_) => Err(host.limits.timed_out().into()),
        };
        (answer, Trace::of(store.into_data()))
    }
}

/// Why a guest did not answer.
pub(crate) enum Unanswered {
    /// Its functions have other parameters or results than the contract says.
    Misfit(wasmtime::Error),
    /// It was asked, and failed.
    Failed(Failure),
    /// Nobody wants to know any more.
    Cancelled,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Unanswered {
        Unanswered::Failed(failure)
    }
}

/// Something that a guest can be asked.
pub(crate) trait Question: Send {
    type Answer: Send;

    fn ask(
        self,
        guest: &wit::Guest,
        store: &mut Store<Host>,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>> + Send;
}

/// "What are your nodes?"
pub(crate) struct Describe;

impl Question for Describe {
    type Answer = String;

    async fn ask(self, guest: &wit::Guest, store: &mut Store<Host>) -> wasmtime::Result<String> {
        guest.call_describe(store).await
    }
}

/// "Run this node."
struct Execute {
    node: Name,
    inputs: String,
}

impl Question for Execute {
    type Answer = Result<wit::Completion, wit::Failure>;

    async fn ask(
        self,
        guest: &wit::Guest,
        store: &mut Store<Host>,
    ) -> wasmtime::Result<Self::Answer> {
        guest.call_execute(store, self.node.as_str(), &self.inputs).await
    }
}

async fn run<Q: Question>(
    plugin: &Plugin,
    store: &mut Store<Host>,
    question: Q,
) -> Result<Q::Answer, (Phase, wasmtime::Error)> {
    let instance = plugin.instance_pre().instantiate_async(&mut *store).await;
    let instance = instance.map_err(|error| (Phase::Start, error))?;
    let guest = plugin.indices().load(&mut *store, &instance);
    let guest = guest.map_err(|error| (Phase::Fit, error))?;
    let answer = question.ask(guest.exosphere_node_guest(), store).await;
    answer.map_err(|error| (Phase::Call, error))
}

/// What a guest leaves behind, however it ended.
#[derive(Default)]
pub(crate) struct Trace {
    journal: Journal,
    logs: Vec<LogLine>,
    usage: Usage,
    /// Why its latest request over HTTP was denied, if it was.
    denied: Option<String>,
}

impl Trace {
    fn of(mut host: Host) -> Trace {
        Trace {
            denied: host.http.denied(),
            usage: Usage {
                cpu_us: u64::try_from(host.meter.total().as_micros()).unwrap_or(u64::MAX),
                peak_memory_bytes: host.limiter.peak_memory(),
                host_calls: host.host_calls,
                input_bytes: host.http.received(),
                output_bytes: host.http.sent(),
            },
            logs: host.logs.finish(),
            journal: host.journal,
        }
    }

    /// An attempt that came to nothing leaves no mark on the store.
    fn without_effect(self, outcome: Outcome) -> Completion {
        let Trace { logs, usage, .. } = self;
        Completion { outcome, journal: Journal::default(), logs, usage }
    }
}

/// Bytes of what a node returned.
fn bytes_of(answer: &Result<wit::Completion, wit::Failure>) -> usize {
    match answer {
        Ok(wit::Completion::Outputs(outputs)) => outputs.iter().map(String::len).sum(),
        Ok(wit::Completion::Prune(data)) => data.as_ref().map_or(0, String::len),
        Ok(wit::Completion::RequeueAfter(_)) | Err(_) => 0,
    }
}

/// Large outputs that were checked.
struct CheckedOutputs {
    outcome: Outcome,
    bytes: u64,
    /// Time that the check took, which is billed to the attempt.
    cpu_us: u64,
}

/// Checks large outputs on a thread of their own, in the turn of the run at the
/// processors.
async fn check_in_turn(
    answer: Result<wit::Completion, wit::Failure>,
    limits: Limits,
    secrets: Secrets,
    turn: impl Future<Output = Option<FairPermit<String, String>>>,
) -> CheckedOutputs {
    let turn = turn.await;
    let judge = move || {
        let begun = Instant::now();
        let (outcome, bytes) = output::judge(answer, &limits, &secrets);
        // The turn ends with the work, also if nobody waits for it any more.
        drop(turn);
        let cpu_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        CheckedOutputs { outcome, bytes, cpu_us }
    };
    tokio::task::spawn_blocking(judge).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the check of an output ended early");
        let words = "the host could not check the outputs; its log says why";
        let outcome = Outcome::Failed(Failure::new(FailureKind::Internal, words));
        CheckedOutputs { outcome, bytes: 0, cpu_us: 0 }
    })
}
