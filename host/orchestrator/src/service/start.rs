//! Starts of runs: the check of the request, its commit, and the wait for the end.
//!
//! Not here: pause, cancel and retries (`run_control`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::budget::{Budget, StepBudget};
use exosphere_domain::clock::Clock;
use exosphere_domain::deadline::{Deadlines, MAX_DEADLINE_MS};
use exosphere_domain::graph::{Graph, Problem, check_start};
use exosphere_domain::ids::{Millis, Name, RunId};
use exosphere_domain::json_size;
use exosphere_domain::label::Labels;
use exosphere_domain::limits::Limits;
use exosphere_domain::node::DescribedNode;
use exosphere_domain::plan::root_state;
use exosphere_domain::start_digest::StartDigest;
use exosphere_sandbox::FairPermit;
use exosphere_store::{ExistingRun, NewRun, Operation, Reply, RunInfo};
use serde_json::Value;
use tokio::sync::watch;

use crate::Host;
use crate::cache::graphs::Current;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, INLINE_STEPS, Meter, REQUEST_STEPS};
use crate::service::queries::RunDetails;
use crate::service::request::{Request, RequestKind, expect_done};
use crate::system::time_ordered_id;
use crate::watchers::{Latest, WaitFor};

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
    /// Labels of the run.
    pub labels: Labels,
    /// Delay before the first state is due, in milliseconds.
    pub delay_ms: Option<u64>,
    /// The number of the revision to start; if absent, the current one.
    pub revision: Option<u64>,
    /// The deadline of the whole run, in milliseconds after its start.
    pub deadline_ms: Option<u64>,
    /// The deadline of its beginning, in milliseconds after its start.
    pub start_by_ms: Option<u64>,
    /// Time to wait for the end of the run before it is shown.
    pub wait: Duration,
    /// The turn in which large inputs were read, released as soon as they are committed.
    pub turn: Option<FairPermit<Name>>,
}

impl StartRequest {
    fn deadlines(&self) -> Deadlines {
        let millis = |ms| Millis::try_from(ms).unwrap_or(Millis::MAX);
        Deadlines { end: self.deadline_ms.map(millis), begin: self.start_by_ms.map(millis) }
    }
}

/// The result of a start.
#[derive(Debug)]
pub struct Started {
    /// The run, with its end if that came within the wait.
    pub run: RunDetails,
    /// Set if this request began the run; not set if an earlier one with the same key did.
    pub new: bool,
}

/// Bytes of a value that one step of the budget covers.
const VALUE_BYTES_PER_STEP: u64 = 16;

/// The longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The longest delay of a start, in milliseconds: a year.
const MAX_DELAY_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// Maximum number of tries of a start: it is tried again if the graph was applied again meanwhile.
const MAX_START_ATTEMPTS: u32 = 20;

/// The outcome of a start, before its run is read.
enum CommittedStart {
    /// An earlier request with the same key has started the run.
    Existing(ExistingRun),
    /// A new run, watched if the caller waits for its end.
    New(RunId, Option<watch::Receiver<Latest>>, Reply),
}

impl Host {
    /// Starts a run of a graph's current or named revision, and waits for its end if the request
    /// says so. A repeat under the same idempotency key returns the run of that key,
    /// before the rest of the request is checked.
    pub async fn start_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: StartRequest,
    ) -> Result<Started, Error> {
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        let wait = request.wait;
        let has_key = request.idempotency_key.is_some();
        let has_deadlines = request.deadlines() != Deadlines::default();
        let mut pending = Request::new(RequestKind::Start { has_key });
        let committed = self.commit_start(namespace, graph_name, &request, &mut pending).await;
        let (start, digest) = committed?;
        // No large inputs are kept while the run executes.
        drop(request);
        let existing = match start {
            CommittedStart::New(_, _, Reply::Existing(existing))
            | CommittedStart::Existing(existing) => existing,
            CommittedStart::New(id, events, answer) => {
                expect_done("graph", graph_name, answer)?;
                if has_deadlines {
                    self.inner.pipeline.deadlines.wake();
                }
                let run = async {
                    match events {
                        None => self.run(namespace, id).await,
                        Some(events) => {
                            self.await_run(namespace, id, events, 0, WaitFor::End, wait).await
                        }
                    }
                };
                let run = pending.after_commit(wait, id, run).await?;
                return Ok(Started { run, new: true });
            }
        };
        check_same_request(&existing, graph_name, digest.as_ref())?;
        let run = self.run_when(namespace, existing.run, WaitFor::End, wait);
        Ok(Started { run: pending.after_commit(wait, existing.run, run).await?, new: false })
    }

    /// Commits a start request, and retries if the graph was applied again meanwhile.
    /// Watches the run before it exists, so that its end cannot be missed.
    async fn commit_start(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: &StartRequest,
        pending: &mut Request,
    ) -> Result<(CommittedStart, Option<StartDigest>), Error> {
        let inner = &self.inner;
        let key = request.idempotency_key.as_deref().filter(|key| is_key(key));
        let (inputs, store) = (request.inputs.as_deref(), request.store.as_ref());
        let digest = key.map(|_| {
            let digest = StartDigest::new(inputs, store, request.delay_ms);
            let digest = digest.with("labels", Some(&request.labels.to_json()));
            let options = [
                ("revision", request.revision),
                ("deadline_ms", request.deadline_ms),
                ("start_by_ms", request.start_by_ms),
            ];
            options.into_iter().fold(digest, |digest, (name, value)| {
                digest.with(name, value.map(Value::from).as_ref())
            })
        });
        if let Some(key) = key
            && let Some(existing) =
                pending.before_commit(inner.db.store.started_with(namespace, key)).await?
        {
            return Ok((CommittedStart::Existing(existing), digest));
        }
        // All tries share one id: if a commit that seemed to fail succeeds late, the next try
        // finds its own run.
        let id = RunId(time_ordered_id(inner.db.clock.now()));
        for _ in 0..MAX_START_ATTEMPTS {
            let cached = match request.revision {
                None => inner.caches.graphs.cached(namespace, graph_name),
                Some(_) => None,
            };
            let may_be_old = cached.is_some() && inner.db.store.is_shared();
            let current = match cached {
                None if let Some(number) = request.revision => {
                    let pinned = inner.caches.graphs.pinned(
                        &inner.db.store,
                        (namespace, graph_name),
                        number,
                    );
                    pending.before_commit(pinned).await?
                }
                None => {
                    let current =
                        inner.caches.graphs.current(&inner.db.store, namespace, graph_name);
                    pending.before_commit(current).await?
                }
                current => current,
            };
            let Some(current) = current else {
                return Err(match request.revision {
                    None => {
                        let refusal = self.graph_not_found(namespace, graph_name);
                        pending.before_commit(refusal).await?
                    }
                    Some(number) => Error::not_found("revision", format!("{graph_name}/{number}")),
                });
            };
            let new = self.prepare(id, namespace, graph_name, &current, request);
            let new = match request.turn {
                // The time to read and check large inputs does not count towards the deadlines.
                Some(_) => pending.uncounted(new).await,
                None => pending.before_commit(new).await,
            };
            let new = match new {
                Ok(new) => NewRun { digest: digest.clone(), ..new },
                Err(unanswered @ Error::Unanswered { .. }) => return Err(unanswered),
                Err(_) if may_be_old => {
                    inner.caches.graphs.forget(namespace, graph_name);
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            let key = new.info.key;
            let events =
                (!request.wait.is_zero()).then(|| inner.pipeline.watchers.watch(key, WaitFor::End));
            match pending.commit(&inner.pipeline.committer, Operation::Start(new.into())).await? {
                Reply::Outdated => inner.caches.graphs.forget(namespace, graph_name),
                answer => return Ok((CommittedStart::New(id, events, answer), digest)),
            }
        }
        Err(Error::Conflict(format!(
            "the graph {graph_name} was applied again during each of {MAX_START_ATTEMPTS} tries to start \
             the run; start it later"
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
        let inner = &self.inner;
        let StartRequest { inputs, store, idempotency_key, labels, delay_ms, turn, .. } = request;
        let graph = current.graph.clone();
        let root = graph.node(graph.root());
        let from = (&inner.db.store, &inner.host_work);
        let described = inner.caches.descriptions.get(from, namespace, root.digest).await?;
        let described = described.get(&root.node_name);
        let described = described.ok_or_else(|| Error::not_found("node", &root.node_name))?;
        let mut problems = validate_start(idempotency_key.as_deref(), *delay_ms);
        problems.extend(validate_deadlines(request));
        let settings = inner.caches.namespaces.get(&inner.db.store, namespace).await?;
        self.charge_start(namespace, &settings).await?;
        let mut limits = inner.settings.attempt_limits(namespace, &settings.limits);
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
                return Err(Error::Invalid { subject: "the start request".into(), problems });
            }
        };
        let now = inner.db.clock.now();
        let (root, counts) = root_state(&graph, &inner.db.store.state_ids(1, now).await?);
        let info = Arc::new(RunInfo {
            key: inner.db.store.run_key(now).await?,
            id,
            namespace: namespace.clone(),
            namespace_key: current.namespace,
            graph_name: graph_name.clone(),
            revision: current.revision.number,
            revision_id: current.revision.id,
            graph,
            inputs,
            labels: labels.clone(),
        });
        inner.caches.runs.insert(info.clone());
        Ok(NewRun {
            info,
            revision: current.revision.id,
            is_pinned: request.revision.is_some(),
            deadlines: request.deadlines(),
            store,
            root,
            counts,
            key: idempotency_key.clone(),
            digest: None,
            started_by: self.key_id(),
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
        let work = &self.inner.host_work;
        let turn = if has_turn { None } else { work.turn(namespace).await };
        let check = move |meter: &Meter| check.check(meter);
        let done = work.run(turn, Bounds::steps(REQUEST_STEPS), check).await;
        Ok(done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value)
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
        let _ = budget.take(values / VALUE_BYTES_PER_STEP);
        let start = check_start(graph, root, (inputs, store.as_ref()), limits, budget)?;
        Ok((Value::Object(start.inputs).to_string().into(), start.store))
    }
}

/// Lists the problems of the idempotency key and the delay of a start.
fn validate_start(key: Option<&str>, delay_ms: Option<u64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, message: String| {
        problems.push(Problem { path: path.to_owned(), message });
    };
    if key.is_some_and(|key| !is_key(key)) {
        problem("$.idempotency_key", format!("use 1 to {MAX_KEY_BYTES} bytes, none of them NUL"));
    }
    if delay_ms.is_some_and(|delay| delay > MAX_DELAY_MS) {
        problem("$.delay_ms", format!("use at most {MAX_DELAY_MS}, which is a year"));
    }
    problems
}

/// Lists the problems of the deadlines of a start.
fn validate_deadlines(request: &StartRequest) -> Vec<Problem> {
    let given = [("$.deadline_ms", request.deadline_ms), ("$.start_by_ms", request.start_by_ms)];
    let given = given.into_iter().filter_map(|(path, value)| Some((path, value?)));
    let delay = request.delay_ms.unwrap_or(0);
    let problem = |(path, value)| {
        let message = match value {
            0 | MAX_DEADLINE_MS.. if value != MAX_DEADLINE_MS => {
                format!("use 1 to {MAX_DEADLINE_MS}, which is ten years")
            }
            _ if value <= delay => {
                format!("the run begins after `delay_ms`, which is {delay}: use more than that")
            }
            _ => return None,
        };
        Some(Problem { path: String::from(path), message })
    };
    given.filter_map(problem).collect()
}

/// Refuses a text that is not a valid idempotency key.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let message = || format!("use 1 to {MAX_KEY_BYTES} bytes, none of them NUL");
    let invalid = || Error::invalid("the request", "$.idempotency_key", message());
    if is_key(key) { Ok(()) } else { Err(invalid()) }
}

/// Returns `true` if a text is a valid idempotency key.
fn is_key(text: &str) -> bool {
    (1..=MAX_KEY_BYTES).contains(&text.len()) && !text.contains('\0')
}

/// Refuses a request that differs from the one with which its key started a run. For a run
/// without a stored digest, only the graph is compared.
fn check_same_request(
    existing: &ExistingRun,
    graph: &Name,
    digest: Option<&StartDigest>,
) -> Result<(), Error> {
    let mut problems = Vec::new();
    if existing.graph != *graph {
        let message = format!("the run is one of the graph {}", existing.graph);
        problems.push(Problem { path: "$".to_owned(), message });
    }
    if let (Some(first), Some(digest)) = (&existing.digest, digest) {
        problems.extend(first.differences(digest).into_iter().map(|part| Problem {
            path: format!("$.{part}"),
            message: "this is not what the run was started with".to_owned(),
        }));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::KeyReused { object: format!("the run {}", existing.run), problems })
}
