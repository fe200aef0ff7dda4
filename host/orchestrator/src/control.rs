//! What people do with runs: start, pause, cancel, retry by hand.

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::graph::{Problem, check_start};
use exosphere_domain::ids::{Millis, Name, RunId, StateId};
use exosphere_domain::plan::begin;
use exosphere_sandbox::Turn;
use exosphere_store::{Answer, Member, NewRun, RunInfo};
use serde_json::Value;
use tokio::sync::watch;

use crate::ambient::fresh_id;
use crate::error::{Error, log_internal};
use crate::read::{RunDetails, Until};
use crate::runs::Current;
use crate::sweeps::Reopened;
use crate::watch::Latest;
use crate::{Host, sweeps};

/// What a run is started with.
#[derive(Default)]
pub struct StartRequest {
    /// Inputs of the root node: a JSON object.
    pub inputs: Option<Value>,
    /// First values of the store: a JSON object of texts.
    pub store: Option<Value>,
    /// A second start with the same key gives the first one's run.
    pub idempotency_key: Option<String>,
    /// How long to wait before the first state is due, in milliseconds.
    pub delay_ms: Option<u64>,
    /// How long to wait for its end before it is shown.
    pub wait: Duration,
    /// The turn that its inputs were read in, if they are large; given up as
    /// soon as they are committed.
    pub turn: Option<Turn<Name>>,
}

/// What became of a start.
#[derive(Debug)]
pub struct Started {
    /// The run: as it ended, if it did while it was waited for.
    pub run: RunDetails,
    /// Whether it began by this request, and not by an earlier one with the
    /// same key.
    pub new: bool,
}

/// What became of a redrive.
#[derive(Debug)]
pub struct Redriven {
    /// The run.
    pub run: RunDetails,
    /// States that run again.
    pub retried: usize,
    /// Failed states that do not: a unite above has gone on without them.
    pub late: usize,
}

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 256;

/// The longest delay of a start, in milliseconds: a year.
const MAX_DELAY: u64 = 366 * 24 * 60 * 60 * 1000;

/// How often a start is tried anew because its graph was applied meanwhile.
const STARTS: u32 = 20;

impl Host {
    /// Starts a run of a graph's current revision, and waits for its end if it
    /// is told to.
    pub async fn start_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: StartRequest,
    ) -> Result<Started, Error> {
        let wait = request.wait;
        let (id, news, answer) = self.begin_run(namespace, graph_name, &request).await?;
        // Nothing large is kept while it runs.
        drop(request);
        match answer {
            Answer::Known { graph, .. } if graph != *graph_name => Err(Error::Conflict(format!(
                "this idempotency key has started a run of the graph {graph} before; use another key"
            ))),
            Answer::Known { run, .. } => Ok(Started {
                run: self.run_when(namespace, run, Until::Over, wait).await?,
                new: false,
            }),
            answer => {
                done("graph", graph_name, answer)?;
                let run = match news {
                    None => self.run(namespace, id).await?,
                    Some(news) => self.await_run(namespace, id, news, 0, Until::Over, wait).await?,
                };
                Ok(Started { run, new: true })
            }
        }
    }

    /// Commits a start, and once more each time that the graph turns out to have
    /// been applied anew. The run is watched before it is there, so that its end
    /// is not missed.
    async fn begin_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        request: &StartRequest,
    ) -> Result<(RunId, Option<watch::Receiver<Latest>>, Answer), Error> {
        let parts = &self.parts;
        // One for all attempts: should a commit that seemed to fail go through
        // late, the next finds its own run.
        let id = RunId(fresh_id(parts.clock.now()));
        for _ in 0..STARTS {
            let at_hand = parts.graphs.at_hand(namespace, graph_name);
            let may_be_old = at_hand.is_some() && parts.store.is_shared();
            let current = match at_hand {
                None => parts.graphs.current(&parts.store, namespace, graph_name).await?,
                current => current,
            };
            let current = current.ok_or_else(|| Error::not_found("graph", graph_name))?;
            let new = match self.prepare(id, namespace, graph_name, &current, request).await {
                Ok(new) => new,
                Err(_) if may_be_old => {
                    parts.graphs.forget(namespace, graph_name);
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            let key = new.info.key;
            let news = (!request.wait.is_zero()).then(|| parts.watchers.watch(key));
            match parts.committer.submit(Member::Start(new.into())).await? {
                Answer::Outdated => parts.graphs.forget(namespace, graph_name),
                answer => return Ok((id, news, answer)),
            }
        }
        Err(Error::Conflict(format!(
            "the graph {graph_name} is applied anew again and again; start the run later"
        )))
    }

    /// A run of a graph's revision, or all that is wrong with the request.
    async fn prepare(
        &self,
        id: RunId,
        namespace: &Name,
        graph_name: &Name,
        current: &Current,
        request: &StartRequest,
    ) -> Result<NewRun, Error> {
        let parts = &self.parts;
        let StartRequest { inputs, store, idempotency_key, delay_ms, .. } = request;
        let graph = current.graph.clone();
        let root = graph.node(graph.root());
        let described = parts.descriptions.get(&parts.store, root.digest).await?;
        let described = described.iter().find(|described| described.name == root.node_name);
        let described = described.ok_or_else(|| Error::not_found("node", &root.node_name))?;
        let mut problems = door(idempotency_key.as_deref(), *delay_ms);
        let tenant = parts.tenants.get(&parts.store, namespace).await?;
        let mut limits = parts.allowed(namespace, &tenant.limits);
        graph.lower(root, &mut limits);
        let start = check_start(&graph, described, inputs.as_ref(), store.as_ref(), &limits);
        let start = match start {
            Ok(start) if problems.is_empty() => start,
            other => {
                problems.extend(other.err().unwrap_or_default());
                return Err(Error::Invalid { what: "the start request".into(), problems });
            }
        };
        let now = parts.clock.now();
        let (root, counts) = begin(&graph, &parts.store.state_numbers(1, now).await?);
        let info = Arc::new(RunInfo {
            key: parts.store.run_key(now).await?,
            id,
            namespace: namespace.clone(),
            namespace_key: current.namespace,
            graph_name: graph_name.clone(),
            revision: current.revision.number,
            graph,
            inputs: Value::Object(start.inputs).to_string().into(),
        });
        parts.runs.keep(info.clone());
        Ok(NewRun {
            info,
            revision: current.revision.id,
            store: start.store,
            root,
            counts,
            key: idempotency_key.clone(),
            delay: Millis::try_from(delay_ms.unwrap_or(0)).unwrap_or(Millis::MAX),
            limits: Arc::new(limits),
        })
    }

    /// Cancels a run: nothing of it has effects any more, and what runs of it
    /// is stopped, on whichever host.
    pub async fn cancel_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        let run = self.info(namespace, id).await?;
        let answer = self.parts.committer.submit(Member::Cancel(run.clone())).await?;
        self.sweep(run, id, answer).await?;
        self.run(namespace, id).await
    }

    /// Pauses a run: what runs of it ends, and nothing is claimed.
    pub async fn pause_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.set_paused(namespace, id, true).await
    }

    /// Lets a paused run go on.
    pub async fn resume_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.set_paused(namespace, id, false).await
    }

    async fn set_paused(
        &self,
        namespace: &Name,
        id: RunId,
        paused: bool,
    ) -> Result<RunDetails, Error> {
        let run = self.info(namespace, id).await?;
        let member = Member::Pause { run: run.clone(), paused };
        let answer = self.parts.committer.submit(member).await?;
        self.sweep(run, id, answer).await?;
        self.run(namespace, id).await
    }

    /// Begins to bring a run's states in line with it, if that is what is to be done.
    async fn sweep(&self, run: Arc<RunInfo>, id: RunId, answer: Answer) -> Result<(), Error> {
        match answer {
            Answer::ToSweep(event) => {
                sweeps::begin_sweep(&self.parts, run, event).await;
                Ok(())
            }
            other => done("run", id, other),
        }
    }

    /// Lets a failed state run again.
    pub async fn retry_state(
        &self,
        namespace: &Name,
        id: RunId,
        state: StateId,
    ) -> Result<RunDetails, Error> {
        let run = self.info(namespace, id).await?;
        let member = Member::Retry { run, state };
        done("state", state, self.parts.committer.submit(member).await?)?;
        self.run(namespace, id).await
    }

    /// Lets every failed state of a run run again, but for those without which
    /// a unite has gone on.
    pub async fn redrive_run(&self, namespace: &Name, id: RunId) -> Result<Redriven, Error> {
        let run = self.info(namespace, id).await?;
        match sweeps::redrive(&self.parts, &run).await? {
            Ok(Reopened { states: 0, late }) => Err(Error::Conflict(format!(
                "none of its {late} failed states can be retried: unites above have gone on without them"
            ))),
            Ok(Reopened { states, late }) => {
                Ok(Redriven { run: self.run(namespace, id).await?, retried: states, late })
            }
            Err(other) => {
                done("run", id, other)?;
                Err(Error::Internal(log_internal(&"a redrive was not answered as one")))
            }
        }
    }

    /// What never changes of a run, if it is of this namespace.
    pub(crate) async fn info(&self, namespace: &Name, id: RunId) -> Result<Arc<RunInfo>, Error> {
        let found = self.parts.store.run(namespace, id).await?;
        let key = found.ok_or_else(|| Error::not_found("run", id))?.key;
        Ok(self.parts.runs.get(&self.parts.store, key).await?)
    }
}

/// What is wrong with how a run is to be started.
fn door(key: Option<&str>, delay_ms: Option<u64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, message: String| {
        problems.push(Problem { path: path.to_owned(), message });
    };
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY || key.contains('\0')) {
        problem("$.idempotency_key", format!("use 1 to {MAX_KEY} bytes, none of them NUL"));
    }
    if delay_ms.is_some_and(|delay| delay > MAX_DELAY) {
        problem("$.delay_ms", format!("use at most {MAX_DELAY}, which is a year"));
    }
    problems
}

/// What a commit's answer means to who asked.
fn done(what: &'static str, name: impl ToString, answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Done | Answer::ToSweep(_) | Answer::More(_) => Ok(()),
        Answer::Refused(why) => Err(Error::Conflict(why)),
        Answer::Missing => Err(Error::not_found(what, name)),
        Answer::Outdated
        | Answer::Stale
        | Answer::Leftover(_)
        | Answer::Known { .. }
        | Answer::Redriven { .. } => {
            Err(Error::Internal(log_internal(&"a request was answered as another")))
        }
    }
}
