//! The start of a run, and the inputs of a state, rendered again.
//!
//! Not here: how inputs are rendered (`execution::inputs`).

use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, RunId, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::Status;
use exosphere_store::{RunInfo, RunStart, StateSources};
use serde_json::Value;

use crate::Host;
use crate::error::{Error, log_internal};
use crate::execution::inputs::{InputError, InputSources, render_inputs, to_text};
use crate::execution::json_budget::JsonBudget;
use crate::service::large_json::AnswerPermit;

/// The size that a read of unknown size counts as.
const UNKNOWN_BYTES: i64 = i64::MAX;

/// A run with its start: inputs, store, key and times.
#[derive(Debug)]
pub struct RunGiven {
    /// The immutable part of the run, with its inputs.
    pub run: Arc<RunInfo>,
    /// Store, key and times of the start.
    pub start: RunStart,
    /// Permit to hold until the answer has been sent, if it is large.
    pub permit: Option<AnswerPermit>,
}

/// The inputs of a state.
#[derive(Debug)]
pub struct StateGiven {
    /// The id of the run.
    pub run: RunId,
    /// The graph of the run.
    pub graph: Arc<Graph>,
    /// The path of the state.
    pub path: Path,
    /// The inputs as the node gets them: JSON text; or the failure to render them.
    pub inputs: Result<String, Failure>,
    /// Permit to hold until the answer has been sent.
    pub permit: Option<AnswerPermit>,
}

impl Host {
    /// Reads what a run was started with.
    pub async fn run_inputs(&self, namespace: &Name, id: RunId) -> Result<RunGiven, Error> {
        let run = self.run_info(namespace, id).await?;
        let store = &self.inner.db.store;
        let bytes = store.run_start_size(run.key).await?;
        let read = store.run_start(run.key);
        let (start, permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        let start = start.ok_or_else(|| Error::not_found("run", id))?;
        Ok(RunGiven { run, start, permit })
    }

    /// Renders the inputs of a state again, from rows that cannot change: byte for byte those that
    /// its node gets.
    pub async fn state_inputs(
        &self,
        namespace: &Name,
        id: RunId,
        path: &str,
    ) -> Result<StateGiven, Error> {
        let run = self.run_info(namespace, id).await?;
        let (state, path) = self.find_state(&run, path).await?;
        // The size is known only once they are rendered.
        let read = self.render_again(&run, state);
        let (inputs, permit) = self.inner.large_json.read(namespace, UNKNOWN_BYTES, read).await?;
        Ok(StateGiven { run: id, graph: run.graph.clone(), path, inputs, permit })
    }

    async fn render_again(
        &self,
        run: &RunInfo,
        id: StateId,
    ) -> Result<Result<String, Failure>, Error> {
        let inner = &self.inner;
        let sources = inner.db.store.state_sources(run.key, id).await?;
        let sources = sources.ok_or_else(|| Error::not_found("state", id))?;
        let node = run.graph.get(sources.place.node).ok_or_else(|| {
            let why = format!("state {id} is at node {}, which is not there", sources.place.node.0);
            Error::Internal(log_internal(&why))
        })?;
        if !has_all_sources(&sources, node.unites.is_some()) {
            return Err(Error::Conflict(format!(
                "this unite is {} and has no inputs: what it gathers was not complete when it \
                 ended, or is not yet",
                sources.status
            )));
        }
        let settings = inner.caches.namespaces.get(&inner.db.store, &run.namespace).await?;
        let mut limits = inner.settings.attempt_limits(&run.namespace, &settings.limits);
        run.graph.lower(node, &mut limits);
        let mut json = JsonBudget::new(&inner.host_work, &run.namespace, &limits);
        let state = InputSources {
            id: sources.id,
            place: &sources.place,
            store_snapshot: &sources.store_snapshot,
            known_outputs: &[],
        };
        let rendered = render_inputs(&inner.db.store, run, state, &limits, &mut json).await;
        match rendered {
            Ok(inputs) => Ok(to_text(&Value::Object(inputs), &limits)),
            Err(InputError::Failed(failure)) => Ok(Err(failure)),
            Err(InputError::Unavailable(_) | InputError::Cancelled) => Err(Error::Unavailable),
        }
    }
}

/// Returns whether everything that a state's inputs are rendered from is there. A unite gathers from
/// members that may be open still, unless it was opened.
fn has_all_sources(state: &StateSources, is_unite: bool) -> bool {
    match state.status {
        _ if !is_unite => true,
        Status::Waiting => false,
        Status::Created | Status::Queued => true,
        Status::Success | Status::Pruned | Status::Errored | Status::Cancelled => state.attempt > 0,
    }
}
