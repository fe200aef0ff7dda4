//! The values that several parts of this crate exchange: a run's immutable part, a claimed state
//! and a run's change. Not here: how they are read or written.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Millis, Name, NamespaceKey, RunId, RunKey};
use exosphere_domain::label::Labels;
use exosphere_domain::state::{Claimed, Ref, RunStatus};

/// The immutable part of a run's row, with the run's graph and namespace.
#[derive(Debug)]
pub struct RunInfo {
    /// The key of the run's row.
    pub key: RunKey,
    /// The public id of the run.
    pub id: RunId,
    /// The namespace of the run.
    pub namespace: Name,
    /// The key of the namespace's row.
    pub namespace_key: NamespaceKey,
    /// The name of the run's graph.
    pub graph_name: Name,
    /// The number of the graph's revision.
    pub revision: i64,
    /// The id of the revision's row, which is never used again.
    pub revision_id: i64,
    /// The graph, as this revision defines it.
    pub graph: Arc<Graph>,
    /// The run's inputs: a JSON object.
    pub inputs: Arc<str>,
    /// The labels that the run was started with.
    pub labels: Labels,
}

/// A claimed state, with the data that its execution needs.
#[derive(Debug)]
pub struct ClaimedState {
    /// The state, with its claim.
    pub state: Claimed,
    /// The namespace of the state's run.
    pub namespace: NamespaceKey,
    /// Values of the run's store, fixed when the state was created.
    pub store_snapshot: BTreeMap<String, String>,
    /// The time from which on the state could be claimed.
    pub due_at: Millis,
    /// Outputs that are known without a query.
    pub known_outputs: Vec<(Ref, Arc<str>)>,
}

/// A run that a commit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunUpdate {
    /// The key of the run's row.
    pub run: RunKey,
    /// The number of the run's latest event.
    pub version: i64,
    /// The status of the run.
    pub status: RunStatus,
    /// Set if the run is paused.
    pub paused: bool,
    /// Set if `status` or `paused` changed in this commit.
    pub status_changed: bool,
    /// Set if the run ended although states of it were open: it was cancelled, or has missed a
    /// deadline. No result of its states counts from then on.
    pub is_stopped: bool,
}
