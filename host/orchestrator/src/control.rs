//! Commands for runs: start, pause, cancel, manual retry and redrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::budget::{Budget, StepBudget};
use exosphere_domain::clock::Clock;
use exosphere_domain::graph::{Graph, Problem, check_start};
use exosphere_domain::ids::{Millis, Name, RunId, StateId};
use exosphere_domain::json_size;
use exosphere_domain::limits::Limits;
use exosphere_domain::node::DescribedNode;
use exosphere_domain::plan::root_state;
use exosphere_domain::start_digest::StartDigest;
use exosphere_sandbox::FairPermit;
use exosphere_store::{Answer, KnownRun, Member, NewRun, RunInfo};
use serde_json::Value;
use tokio::sync::watch;

use crate::ambient::fresh_id;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, INLINE_STEPS, Meter, REQUEST_STEPS};
use crate::read::{RunDetails, WaitFor};
use crate::request::{Asked, Late, Request};
use crate::runs::Current;
use crate::sweeps::Reopened;
use crate::watch::Latest;
use crate::{Host, sweeps};

/// A request to start a run.
#[derive(Default)]
pub struct StartRequest {
    /// Inputs of the root node, a JSON object.
    pub inputs: Option<Arc<Value>>,
    /// Initial values of the store, a JSON object of texts.
    pub store: Option<Value>,
    /// Idempotency key. A second start with the same key returns the run of the first,
    /// and is refused if its request differs.
    pub idempotency_key: Option<String>,
    /// Delay before the first state is due, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Time to wait for the end of the run before it is shown.
    pub wait: Duration,
    /// The turn in which large inputs were read, released as soon as they are committed.
    pub turn: Option<FairPermit<Name>>,
}

/// The result of a start.
#[derive(Debug)]
pub struct Started {
    /// The run, with its end if that came within the wait.
    pub run: RunDetails,
    /// Set if this request began the run, and not an earlier one with the same key.
    pub new: bool,
}

/// The result of a redrive.
#[derive(Debug)]
pub struct Redriven {
    /// The run.
    pub run: RunDetails,
    /// States that run again.
    pub retried: usize,
    /// Failed states that do not run again: a unite above has continued without them.
    pub late: usize,
}

/// Bytes of a value that one step of the budget covers.
const VALUE_BYTES_A_STEP: u64 = 16;

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 256;

/// The longest delay of a start, in milliseconds: a year.
const MAX_DELAY: u64 = 366 * 24 * 60 * 60 * 1000;

/// Attempts of a start, each after the graph was applied again meanwhile.
const STARTS: u32 = 20;

/// The outcome of a start, before its run is read.
enum Began {
    /// An earlier request with the same key has started the run.
    Known(KnownRun),
    /// A new run, watched if the caller waits for its end.
    New(RunId, Option<watch::Receiver<Latest>>, Answer),
}

impl Host {
    /// Starts a run of a graph's current revision, and waits for its end if the request
    /// says so. A repeat under the same idempotency key returns the run of that key,
    /// before the rest of the request is checked.
    pub async fn start_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: StartRequest,
    ) -> Result<Started, Error> {
        let wait = request.wait;
        let has_key = request.idempotency_key.is_some();
        let mut under_way = Request::new(Asked::Start { has_key });
        let begun = self.begin_run(namespace, graph_name, &request, &mut under_way).await;
        let (began, digest) = begun?;
        // No large inputs are kept while the run executes.
        drop(request);
        let known = match began {
            Began::New(_, _, Answer::Known(known)) | Began::Known(known) => known,
            Began::New(id, news, answer) => {
                done("graph", graph_name, answer)?;
                let run = async {
                    match news {
                        None => self.run(namespace, id).await,
                        Some(news) => {
                            self.await_run(namespace, id, news, 0, WaitFor::End, wait).await
                        }
                    }
                };
                let run = under_way.after(wait, id, run).await?;
                return Ok(Started { run, new: true });
            }
        };
        held_to(&known, graph_name, digest.as_ref())?;
        let run = self.run_when(namespace, known.run, WaitFor::End, wait);
        Ok(Started { run: under_way.after(wait, known.run, run).await?, new: false })
    }

    /// Commits a start request, and retries if the graph was applied again meanwhile.
    /// Watches the run before it exists, so that its end cannot be missed.
    async fn begin_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: &StartRequest,
        under_way: &mut Request,
    ) -> Result<(Began, Option<StartDigest>), Error> {
        let parts = &self.parts;
        let key = request.idempotency_key.as_deref().filter(|key| is_key(key));
        let (inputs, store) = (request.inputs.as_deref(), request.store.as_ref());
        let digest = key.map(|_| StartDigest::of(inputs, store, request.delay_ms));
        if let Some(key) = key
            && let Some(known) = under_way.before(parts.store.started_with(namespace, key)).await?
        {
            return Ok((Began::Known(known), digest));
        }
        // All attempts share one id: if a commit that seemed to fail goes through late,
        // the next attempt finds its own run.
        let id = RunId(fresh_id(parts.clock.now()));
        for _ in 0..STARTS {
            let at_hand = parts.graphs.at_hand(namespace, graph_name);
            let may_be_old = at_hand.is_some() && parts.store.is_shared();
            let current = match at_hand {
                None => {
                    let current = parts.graphs.current(&parts.store, namespace, graph_name);
                    under_way.before(current).await?
                }
                current => current,
            };
            let current = current.ok_or_else(|| Error::not_found("graph", graph_name))?;
            let new = self.prepare(id, namespace, graph_name, &current, request);
            let new = match request.turn {
                // The time to read and check large inputs is not the database's.
                Some(_) => under_way.beside(new).await,
                None => under_way.before(new).await,
            };
            let new = match new {
                Ok(new) => NewRun { digest: digest.clone(), ..new },
                Err(unanswered @ Error::Unanswered { .. }) => return Err(unanswered),
                Err(_) if may_be_old => {
                    parts.graphs.forget(namespace, graph_name);
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            let key = new.info.key;
            let news = (!request.wait.is_zero()).then(|| parts.watchers.watch(key, WaitFor::End));
            match under_way.commit(&parts.committer, Member::Start(new.into())).await? {
                Answer::Outdated => parts.graphs.forget(namespace, graph_name),
                answer => return Ok((Began::New(id, news, answer), digest)),
            }
        }
        Err(Error::Conflict(format!(
            "the graph {graph_name} is applied anew again and again; start the run later"
        )))
    }

    /// Prepares a run of a graph's revision, or returns every problem of the request.
    async fn prepare(
        &self,
        id: RunId,
        namespace: &Name,
        graph_name: &Name,
        current: &Current,
        request: &StartRequest,
    ) -> Result<NewRun, Error> {
        let parts = &self.parts;
        let StartRequest { inputs, store, idempotency_key, delay_ms, turn, .. } = request;
        let graph = current.graph.clone();
        let root = graph.node(graph.root());
        let from = (&parts.store, &parts.work);
        let described = parts.descriptions.get(from, namespace, root.digest).await?;
        let described = described.get(&root.node_name);
        let described = described.ok_or_else(|| Error::not_found("node", &root.node_name))?;
        let mut problems = door(idempotency_key.as_deref(), *delay_ms);
        let tenant = parts.tenants.get(&parts.store, namespace).await?;
        let mut limits = parts.allowed(namespace, &tenant.limits);
        graph.lower(root, &mut limits);
        let check = StartCheck {
            graph: graph.clone(),
            root: described.clone(),
            inputs: inputs.clone(),
            store: store.clone(),
            limits: limits.clone(),
        };
        let (inputs, store) = match self.check_start(namespace, check, turn.is_some()).await? {
            Ok(start) if problems.is_empty() => start,
            other => {
                problems.extend(other.err().unwrap_or_default());
                return Err(Error::Invalid { what: "the start request".into(), problems });
            }
        };
        let now = parts.clock.now();
        let (root, counts) = root_state(&graph, &parts.store.state_numbers(1, now).await?);
        let info = Arc::new(RunInfo {
            key: parts.store.run_key(now).await?,
            id,
            namespace: namespace.clone(),
            namespace_key: current.namespace,
            graph_name: graph_name.clone(),
            revision: current.revision.number,
            graph,
            inputs,
        });
        parts.runs.keep(info.clone());
        Ok(NewRun {
            info,
            revision: current.revision.id,
            store,
            root,
            counts,
            key: idempotency_key.clone(),
            digest: None,
            delay: Millis::try_from(delay_ms.unwrap_or(0)).unwrap_or(Millis::MAX),
            limits: Arc::new(limits),
        })
    }

    /// Checks a start: a small one inline, a larger one as host work, in a turn of its
    /// namespace.
    async fn check_start(
        &self,
        namespace: &Name,
        check: StartCheck,
        has_turn: bool,
    ) -> Result<CheckedStart, Error> {
        let budget = StepBudget::new(INLINE_STEPS);
        let started = check.check(&budget);
        if !budget.is_exhausted() {
            return Ok(started);
        }
        let work = &self.parts.work;
        let turn = if has_turn { None } else { work.turn(namespace).await };
        let check = move |meter: &Meter| check.check(meter);
        let done = work.run(turn, Bounds::steps(REQUEST_STEPS), check).await;
        Ok(done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value)
    }

    /// Cancels a run: it has no further effects, and its executions are stopped on every
    /// host.
    pub async fn cancel_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.turn(namespace, id, Asked::Cancel, Member::Cancel).await
    }

    /// Pauses a run: running executions end, and none of its states is claimed.
    pub async fn pause_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.turn(namespace, id, Asked::Pause, |run| Member::Pause { run, paused: true }).await
    }

    /// Resumes a paused run.
    pub async fn resume_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.turn(namespace, id, Asked::Resume, |run| Member::Pause { run, paused: false }).await
    }

    /// Changes the status of a run, and sweeps its states if needed. It runs in its own
    /// task, so that neither a caller that has gone nor a late commit prevents the sweep.
    async fn turn(
        &self,
        namespace: &Name,
        id: RunId,
        asked: Asked,
        member: impl FnOnce(Arc<RunInfo>) -> Member,
    ) -> Result<RunDetails, Error> {
        let request = Request::new(asked);
        let run = request.before(self.info(namespace, id)).await?;
        let (parts, member) = (self.parts.clone(), member(run.clone()));
        let turned = tokio::spawn(async move {
            let late: Late = {
                let (parts, run) = (parts.clone(), run.clone());
                Box::new(move |answer| {
                    if let Answer::ToSweep(event) = answer {
                        tokio::spawn(async move { sweeps::begin_sweep(&parts, run, event).await });
                    }
                })
            };
            match request.commit_with(&parts.committer, member, Some(late)).await? {
                Answer::ToSweep(event) => {
                    sweeps::begin_sweep(&parts, run, event).await;
                    Ok(())
                }
                other => done("run", id, other),
            }
        });
        turned.await.unwrap_or_else(|ended| Err(Error::Internal(log_internal(&ended))))?;
        request.after(Duration::ZERO, id, self.run(namespace, id)).await
    }

    /// Retries a failed state.
    pub async fn retry_state(
        &self,
        namespace: &Name,
        id: RunId,
        state: StateId,
    ) -> Result<RunDetails, Error> {
        let request = Request::new(Asked::Retry);
        let run = request.before(self.info(namespace, id)).await?;
        let member = Member::Retry { run, state };
        done("state", state, request.commit(&self.parts.committer, member).await?)?;
        request.after(Duration::ZERO, id, self.run(namespace, id)).await
    }

    /// Redrives a run: retries every failed state, except those that a unite has
    /// continued without.
    pub async fn redrive_run(&self, namespace: &Name, id: RunId) -> Result<Redriven, Error> {
        let request = Request::new(Asked::Redrive);
        let run = request.before(self.info(namespace, id)).await?;
        match sweeps::redrive(&self.parts, &run, &request).await? {
            Ok(Reopened { states: 0, late }) => Err(Error::Conflict(format!(
                "none of its {late} failed states can be retried: unites above have gone on without them"
            ))),
            Ok(Reopened { states, late }) => {
                let shown = self.run(namespace, id);
                let run = request.after(sweeps::REDRIVE_PATIENCE, id, shown).await?;
                Ok(Redriven { run, retried: states, late })
            }
            Err(other) => {
                done("run", id, other)?;
                Err(Error::Internal(log_internal(&"a redrive was not answered as one")))
            }
        }
    }

    /// Reads the immutable part of a run, if the run is of this namespace.
    pub(crate) async fn info(&self, namespace: &Name, id: RunId) -> Result<Arc<RunInfo>, Error> {
        let found = self.parts.store.run(namespace, id).await?;
        let key = found.ok_or_else(|| Error::not_found("run", id))?.key;
        Ok(self.parts.runs.get(&self.parts.store, key).await?)
    }
}

/// Parameters for the check of a start.
struct StartCheck {
    graph: Arc<Graph>,
    root: Arc<DescribedNode>,
    inputs: Option<Arc<Value>>,
    store: Option<Value>,
    limits: Limits,
}

/// The checked inputs as text and the initial store of a start, or every problem.
type CheckedStart = Result<(Arc<str>, BTreeMap<String, String>), Vec<Problem>>;

impl StartCheck {
    fn check(&self, budget: &dyn Budget) -> CheckedStart {
        let StartCheck { graph, root, inputs, store, limits } = self;
        let inputs = inputs.as_deref();
        let values = inputs.map_or(0, json_size::estimate_value);
        // These steps are for names, sizes and the text for the database.
        let _ = budget.take(values / VALUE_BYTES_A_STEP);
        let start = check_start(graph, root, (inputs, store.as_ref()), limits, budget)?;
        Ok((Value::Object(start.inputs).to_string().into(), start.store))
    }
}

/// Lists the problems of the idempotency key and the delay of a start.
fn door(key: Option<&str>, delay_ms: Option<u64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, message: String| {
        problems.push(Problem { path: path.to_owned(), message });
    };
    if key.is_some_and(|key| !is_key(key)) {
        problem("$.idempotency_key", format!("use 1 to {MAX_KEY} bytes, none of them NUL"));
    }
    if delay_ms.is_some_and(|delay| delay > MAX_DELAY) {
        problem("$.delay_ms", format!("use at most {MAX_DELAY}, which is a year"));
    }
    problems
}

/// Returns `true` if a text is a valid idempotency key.
fn is_key(text: &str) -> bool {
    (1..=MAX_KEY).contains(&text.len()) && !text.contains('\0')
}

/// Refuses a request that differs from the one by which its key has started a run. For a
/// run without a stored digest, the graph alone is compared.
fn held_to(known: &KnownRun, graph: &Name, digest: Option<&StartDigest>) -> Result<(), Error> {
    let mut problems = Vec::new();
    if known.graph != *graph {
        let message = format!("the run is one of the graph {}", known.graph);
        problems.push(Problem { path: "$".to_owned(), message });
    }
    if let (Some(first), Some(digest)) = (&known.digest, digest) {
        problems.extend(first.differences(digest).into_iter().map(|part| Problem {
            path: format!("$.{part}"),
            message: "this is not what the run was started with".to_owned(),
        }));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::KeyReused { run: known.run, problems }),
    }
}

/// Converts the answer of a commit into the result of the request.
fn done(what: &'static str, name: impl ToString, answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Done | Answer::ToSweep(_) | Answer::More(_) => Ok(()),
        Answer::Refused(why) => Err(Error::Conflict(why)),
        Answer::Missing => Err(Error::not_found(what, name)),
        Answer::Outdated
        | Answer::Stale
        | Answer::Leftover(_)
        | Answer::Known(_)
        | Answer::Redriven { .. } => {
            Err(Error::Internal(log_internal(&"a request was answered as another")))
        }
    }
}
