//! What people read of runs and states.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, RunId, StateId};
use exosphere_domain::state::{RunStatus, Status};
use exosphere_store::{AttemptRow, Page, RunFilter, RunView, StateFilter, StateView};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::Host;
use crate::error::Error;
use crate::reading::AnswerPlace;
use crate::watch::Latest;

/// Failed states that a run's details name.
const NAMED_FAILURES: u32 = 10;

/// How often a run is looked at that another host may be executing.
const WATCH_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Outputs of one state that its details hold.
const SHOWN_OUTPUTS: u32 = 1000;

/// A run with what people want to know of it.
#[derive(Debug)]
pub struct RunDetails {
    /// The run.
    pub run: RunView,
    /// Its graph.
    pub graph: Arc<Graph>,
    /// The first of its failed states.
    pub failures: Vec<StateView>,
    /// Its store, as far as it is there.
    pub store: BTreeMap<String, String>,
    /// Held until it has been sent, if that is large.
    pub place: Option<AnswerPlace>,
}

/// A state with what people want to know of it.
#[derive(Debug)]
pub struct StateDetails {
    /// The run.
    pub run: RunId,
    /// Its graph.
    pub graph: Arc<Graph>,
    /// The state.
    pub state: StateView,
    /// Its first outputs: JSON texts.
    pub outputs: Vec<String>,
    /// Its attempts, the latest last.
    pub attempts: Vec<AttemptRow>,
    /// Held until all that has been sent, if it is large.
    pub place: Option<AnswerPlace>,
}

/// What someone waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitFor {
    /// Any news behind the event of this number.
    Version(i64),
    /// The end of the run.
    End,
}

impl WaitFor {
    fn is_reached(self, latest: &Latest) -> bool {
        match self {
            WaitFor::Version(after) => latest.version > after,
            WaitFor::End => latest.over,
        }
    }
}

fn latest(run: &RunDetails) -> Latest {
    let over = run.run.status != RunStatus::Running;
    Latest { version: run.run.version, over, run: None }
}

impl Host {
    /// Runs, the newest first.
    pub async fn runs(&self, namespace: &Name, filter: &RunFilter) -> Result<Page<RunView>, Error> {
        Ok(self.parts.store.runs(namespace, filter).await?)
    }

    /// A run.
    pub async fn run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        let run = self.parts.store.run(namespace, id).await?;
        self.run_details(run.ok_or_else(|| Error::not_found("run", id))?).await
    }

    /// What else people want to know of a run.
    async fn run_details(&self, run: RunView) -> Result<RunDetails, Error> {
        let parts = &self.parts;
        let info = parts.runs.get(&parts.store, run.key).await?;
        let failures = match run.errored {
            0 => Vec::new(),
            _ => {
                let errored = Some(Status::Errored);
                let most = NAMED_FAILURES;
                let filter = StateFilter { status: errored, most, ..StateFilter::default() };
                parts.store.states(run.key, &filter).await?.items
            }
        };
        let (entries, place) = match run.store_keys {
            0 => (Vec::new(), None),
            _ => {
                let bytes = parts.store.store_size(run.key).await?;
                let entries = parts.store.entries(run.key);
                parts.large.read(&info.namespace, bytes, entries).await?
            }
        };
        let store = entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        Ok(RunDetails { run, graph: info.graph.clone(), failures, store, place })
    }

    /// A run, as soon as it has news behind event number `after`, or the wait
    /// is over.
    pub async fn watch_run(
        &self,
        namespace: &Name,
        id: RunId,
        after: i64,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        self.run_when(namespace, id, WaitFor::Version(after), wait).await
    }

    /// A run, as soon as it has come so far, or the wait is over.
    pub(crate) async fn run_when(
        &self,
        namespace: &Name,
        id: RunId,
        until: WaitFor,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        let key = self.info(namespace, id).await?.key;
        // Watched first and read then, so that no news falls between.
        let news = self.parts.watchers.watch(key, until);
        let run = self.run(namespace, id).await?;
        if wait.is_zero() || until.is_reached(&latest(&run)) {
            return Ok(run);
        }
        self.await_run(namespace, id, news, run.run.version, until, wait).await
    }

    /// A run that is watched and was seen as of a version, when it has come so
    /// far or the wait is over.
    pub(crate) async fn await_run(
        &self,
        namespace: &Name,
        id: RunId,
        mut news: watch::Receiver<Latest>,
        mut seen: i64,
        until: WaitFor,
        wait: Duration,
    ) -> Result<RunDetails, Error> {
        let end = Instant::now() + wait;
        loop {
            // What other hosts do to a run is told when it turns. In between it
            // is looked at now and then, as long as someone waits.
            let left = end.saturating_duration_since(Instant::now());
            let turn =
                if self.parts.store.is_shared() { left.min(WATCH_POLL_INTERVAL) } else { left };
            let later = async {
                // What is older than what was seen is no news: the run may have
                // been opened again since.
                let reached = |latest: &Latest| latest.version > seen && until.is_reached(latest);
                news.wait_for(reached).await.ok()?.run.clone()
            };
            if let Ok(Some(run)) = tokio::time::timeout(turn, later).await {
                return self.run_details(RunView::clone(&run)).await;
            }
            let run = self.run(namespace, id).await?;
            if until.is_reached(&latest(&run)) || Instant::now() >= end {
                return Ok(run);
            }
            seen = run.run.version;
        }
    }

    /// The states of a run, in path order. `identifier` may be any of the
    /// graph's.
    pub async fn states(
        &self,
        namespace: &Name,
        id: RunId,
        identifier: Option<&str>,
        filter: StateFilter,
    ) -> Result<(Arc<Graph>, Page<StateView>), Error> {
        let info = self.info(namespace, id).await?;
        let nodes = match identifier {
            None => None,
            Some(identifier) => {
                let node = info.graph.find(identifier);
                Some(vec![node.ok_or_else(|| Error::not_found("identifier", identifier))?])
            }
        };
        let filter = StateFilter { nodes, ..filter };
        let page = self.parts.store.states(info.key, &filter).await?;
        Ok((info.graph.clone(), page))
    }

    /// A state of a run.
    pub async fn state(
        &self,
        namespace: &Name,
        id: RunId,
        state: StateId,
    ) -> Result<StateDetails, Error> {
        let store = &self.parts.store;
        let info = self.info(namespace, id).await?;
        let bytes = store.state_size(state, SHOWN_OUTPUTS).await?;
        let whole = async {
            let found = store.state(info.key, state).await?;
            let found = found.ok_or_else(|| Error::not_found("state", state))?;
            let outputs = store.outputs_page(state, 0, SHOWN_OUTPUTS).await?;
            Ok::<_, Error>((found, outputs, store.attempts(state).await?))
        };
        let (whole, place) = self.parts.large.read(namespace, bytes, whole).await?;
        let (found, outputs, attempts) = whole;
        let graph = info.graph.clone();
        Ok(StateDetails { run: id, graph, state: found, outputs, attempts, place })
    }
}
