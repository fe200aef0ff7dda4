//! Reads of runs and states.
//!
//! Not here: the wait for an event of a run (`watch`).

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::filter::{RunFilter, StateFilter};
use exosphere_domain::graph::Graph;
use exosphere_domain::graph::problems::nearest;
use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::label::Labels;
use exosphere_domain::run_ref::RunRef;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    AttemptRow, ListedRun, Page, RunInfo, RunPageRequest, RunView, StatePageRequest, StateView,
};

use crate::Host;
use crate::error::Error;
use crate::service::large_json::AnswerPermit;
use crate::service::pauses::RunPause;

/// Maximum number of failed states in the details of a run.
const MAX_NAMED_FAILURES: u32 = 10;

/// Maximum number of outputs of one state in its details.
const MAX_SHOWN_OUTPUTS: u32 = 1000;

/// Maximum number of identifiers that a refusal names.
const MAX_NAMED_IDENTIFIERS: usize = 20;

/// A snapshot of a run: its progress, without its store.
#[derive(Debug)]
pub struct RunSnapshot {
    /// The status and the counters of the run.
    pub run: RunView,
    /// The labels of the run.
    pub labels: Labels,
    /// The graph of the run.
    pub graph: Arc<Graph>,
    /// The first failed states of the run.
    pub failures: Vec<StateView>,
    /// The pause of the run, if it is paused in any way.
    pub pause: Option<RunPause>,
}

/// The details of a run.
#[derive(Debug)]
pub struct RunDetails {
    /// The progress of the run.
    pub snapshot: RunSnapshot,
    /// The store of the run, with the entries that it has so far.
    pub store: BTreeMap<String, String>,
    /// Permit to hold until the details have been sent, if the store is large.
    pub permit: Option<AnswerPermit>,
}

/// The details of a state.
#[derive(Debug)]
pub struct StateDetails {
    /// The id of the run.
    pub run: RunId,
    /// The graph of the run.
    pub graph: Arc<Graph>,
    /// The state, with its status and counters.
    pub state: StateView,
    /// The first outputs of the state, as JSON texts.
    pub outputs: Vec<String>,
    /// The attempts of the state, newest last.
    pub attempts: Vec<AttemptRow>,
    /// Permit to hold until the details have been sent, if they are large.
    pub permit: Option<AnswerPermit>,
}

impl Host {
    /// Lists the runs of a namespace that meet a filter, newest first.
    pub async fn runs(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        page: RunPageRequest,
    ) -> Result<Page<ListedRun>, Error> {
        let is_first = page.after.is_none();
        let mut page = self.inner.db.store.runs(namespace, filter, page).await?;
        if page.items.is_empty() && is_first {
            self.check_list(namespace, filter.graph.as_ref()).await?;
        }
        // The runs of a paused namespace are paused, too.
        let paused = self.inner.pipeline.pauses.namespaces();
        if !paused.is_empty()
            && let Some(row) = self.inner.db.store.namespace(namespace).await?
            && paused.contains(&row.key)
        {
            let runs = page.items.iter_mut().map(|listed| &mut listed.run);
            let running = runs.filter(|run| run.status == RunStatus::Running);
            running.for_each(|run| run.paused = true);
        }
        Ok(page)
    }

    /// Refuses a list without items if nothing can be in it: the namespace does not exist, or the
    /// graph.
    pub(crate) async fn check_list(
        &self,
        namespace: &Name,
        graph: Option<&Name>,
    ) -> Result<(), Error> {
        self.check_namespace(namespace).await?;
        match graph {
            Some(graph) if self.inner.db.store.graph_size(namespace, graph).await? == 0 => {
                Err(self.graph_not_found(namespace, graph).await?)
            }
            _ => Ok(()),
        }
    }

    /// Reads the status and the counters of a run.
    pub(crate) async fn run_view(&self, namespace: &Name, id: RunId) -> Result<RunView, Error> {
        match self.inner.db.store.run(namespace, id).await? {
            Some(run) => Ok(run),
            None => Err(self.run_not_found(namespace, &RunRef::Id(id)).await?),
        }
    }

    /// Reads the details of a run.
    pub async fn run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        self.run_details(self.run_view(namespace, id).await?).await
    }

    /// Adds the graph, failed states and store to a run.
    pub(super) async fn run_details(&self, run: RunView) -> Result<RunDetails, Error> {
        let inner = &self.inner;
        let info = inner.caches.runs.get(&inner.db.store, run.key).await?;
        let snapshot = self.run_snapshot(run, true).await?;
        let run = &snapshot.run;
        let (entries, permit) = match run.counters.store_keys {
            0 => (Vec::new(), None),
            _ => {
                let bytes = inner.db.store.store_size(run.key).await?;
                let entries = inner.db.store.entries(run.key);
                inner.large_json.read(&info.namespace, bytes, entries).await?
            }
        };
        let store = entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        Ok(RunDetails { snapshot, store, permit })
    }

    /// Adds the graph and failed states to a run, with the details of their failures or without.
    pub(super) async fn run_snapshot(
        &self,
        run: RunView,
        has_details: bool,
    ) -> Result<RunSnapshot, Error> {
        let inner = &self.inner;
        let info = inner.caches.runs.get(&inner.db.store, run.key).await?;
        let failures = match run.counters.errored {
            0 => Vec::new(),
            _ => {
                let page = StatePageRequest { after: None, limit: MAX_NAMED_FAILURES, has_details };
                inner.db.store.states(run.key, &StateFilter::errored(), None, &page).await?.items
            }
        };
        let pause = self.pause_of_run(&info, &run).await?;
        let run = RunView { paused: pause.is_some(), ..run };
        let (labels, graph) = (info.labels.clone(), info.graph.clone());
        Ok(RunSnapshot { run, labels, graph, failures, pause })
    }

    /// Reads the immutable part of a run, if the run is of this namespace.
    pub(crate) async fn run_info(
        &self,
        namespace: &Name,
        id: RunId,
    ) -> Result<Arc<RunInfo>, Error> {
        let key = self.run_view(namespace, id).await?.key;
        Ok(self.inner.caches.runs.get(&self.inner.db.store, key).await?)
    }

    /// Lists the states of a run that meet a filter, in path order. The filter may name any
    /// identifier of the graph.
    pub async fn states(
        &self,
        namespace: &Name,
        id: RunId,
        filter: &StateFilter,
        page: &StatePageRequest,
    ) -> Result<(Arc<Graph>, Page<StateView>), Error> {
        let info = self.run_info(namespace, id).await?;
        let node = match &filter.identifier {
            None => None,
            Some(identifier) => {
                let node = info.graph.find(identifier);
                Some(node.ok_or_else(|| identifier_not_found(&info.graph, identifier))?)
            }
        };
        let page = self.inner.db.store.states(info.key, filter, node, page).await?;
        Ok((info.graph.clone(), page))
    }

    /// Reads the details of a state.
    pub async fn state(
        &self,
        namespace: &Name,
        id: RunId,
        path: &str,
    ) -> Result<StateDetails, Error> {
        let store = &self.inner.db.store;
        let info = self.run_info(namespace, id).await?;
        let (state, _) = self.find_state(&info, path).await?;
        let bytes = store.state_size(state, MAX_SHOWN_OUTPUTS).await?;
        let whole = async {
            let found = store.state(info.key, state).await?;
            let found = found.ok_or_else(|| Error::not_found("state", path))?;
            let outputs = store.outputs_page(state, 0, MAX_SHOWN_OUTPUTS).await?;
            Ok::<_, Error>((found, outputs, store.attempts(state).await?))
        };
        let (whole, permit) = self.inner.large_json.read(namespace, bytes, whole).await?;
        let (found, outputs, attempts) = whole;
        let graph = info.graph.clone();
        Ok(StateDetails { run: id, graph, state: found, outputs, attempts, permit })
    }
}

/// Returns the refusal of an identifier that a graph has not, with the nearest one.
pub(super) fn identifier_not_found(graph: &Graph, identifier: &str) -> Error {
    let known: Vec<&str> = graph.nodes().map(|(_, node)| node.identifier.as_str()).collect();
    let hint = match nearest(identifier, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => {
            let shown: Vec<_> = known.iter().take(MAX_NAMED_IDENTIFIERS).copied().collect();
            let rest = if known.len() > shown.len() { " and others" } else { "" };
            format!("; the graph has {}{rest}", shown.join(", "))
        }
    };
    Error::NotFound { kind: "identifier", name: identifier.to_owned(), hint }
}
