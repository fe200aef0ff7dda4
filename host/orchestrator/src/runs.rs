//! What never changes of the runs that are being executed, and what is needed to
//! start runs: graphs and descriptions of their nodes, kept at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Digest, Name, NamespaceKey, RunKey};
use exosphere_domain::node::NodeDescription;
use exosphere_store::{GraphRow, RevisionRow, RunInfo, Store, StoreError};

/// Of each kind; the whole lot is forgotten when one more comes, since
/// each can be read again.
const MOST: usize = 4096;

/// Of plugins' descriptions, each of which may be a megabyte.
const MOST_DESCRIBED: usize = 64;

/// Runs at hand.
#[derive(Default)]
pub(crate) struct Runs {
    known: Mutex<HashMap<RunKey, Arc<RunInfo>>>,
}

impl Runs {
    /// Keeps a run that is known already.
    pub(crate) fn keep(&self, run: Arc<RunInfo>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(run.key, run);
    }

    /// A run, read if it is not at hand.
    pub(crate) async fn get(&self, store: &Store, key: RunKey) -> Result<Arc<RunInfo>, StoreError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(run) = known() {
            return Ok(run);
        }
        let missing = || StoreError::Data(format!("table run has no row {}", key.0));
        let run = Arc::new(store.run_info(key).await?.ok_or_else(missing)?);
        self.keep(run.clone());
        Ok(run)
    }
}

/// The current revision of a graph: what a run is started of.
pub(crate) struct Current {
    /// The number of its namespace.
    pub namespace: NamespaceKey,
    /// The revision.
    pub revision: RevisionRow,
    /// The graph itself.
    pub graph: Arc<Graph>,
}

/// The graphs of current revisions, kept at hand. Another host may have applied
/// one anew since: a start asks for that when it is committed.
#[derive(Default)]
pub(crate) struct Graphs {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    revisions: HashMap<i64, Arc<Graph>>,
    current: HashMap<(Name, Name), Arc<Current>>,
    /// How often a graph was forgotten: what was read before that may be old.
    applied: u64,
}

impl Graphs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current revision of a graph, if it is at hand.
    pub(crate) fn at_hand(&self, namespace: &Name, name: &Name) -> Option<Arc<Current>> {
        self.lock().current.get(&(namespace.clone(), name.clone())).cloned()
    }

    /// The current revision of a graph as it is now, if there is one.
    pub(crate) async fn current(
        &self,
        store: &Store,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<Arc<Current>>, StoreError> {
        let key = (namespace.clone(), name.clone());
        let applied = self.lock().applied;
        let Some(row) = store.graph(namespace, name).await? else { return Ok(None) };
        let graph = self.graph(&row)?;
        let (namespace, revision) = (row.namespace, row.revision);
        let current = Arc::new(Current { namespace, revision, graph });
        let mut known = self.lock();
        if known.applied == applied {
            if known.current.len() >= MOST {
                known.current.clear();
            }
            known.current.insert(key, current.clone());
        }
        Ok(Some(current))
    }

    /// A graph has another current revision now, or may have.
    pub(crate) fn forget(&self, namespace: &Name, name: &Name) {
        let mut known = self.lock();
        known.applied += 1;
        known.current.remove(&(namespace.clone(), name.clone()));
    }

    /// The graph in a revision, parsed if it is not at hand.
    fn graph(&self, row: &GraphRow) -> Result<Arc<Graph>, StoreError> {
        let mut known = self.lock();
        if let Some(graph) = known.revisions.get(&row.revision.id) {
            return Ok(graph.clone());
        }
        if known.revisions.len() >= MOST {
            known.revisions.clear();
        }
        let graph = Arc::new(row.graph()?);
        known.revisions.insert(row.revision.id, graph.clone());
        Ok(graph)
    }
}

/// What plugins say of their nodes, kept at hand: a digest always says the same.
#[derive(Default)]
pub(crate) struct Descriptions {
    known: Mutex<HashMap<Digest, Arc<Vec<NodeDescription>>>>,
}

impl Descriptions {
    /// The nodes of a plugin, read if they are not at hand; none if there is no
    /// such plugin.
    pub(crate) async fn get(
        &self,
        store: &Store,
        digest: Digest,
    ) -> Result<Arc<Vec<NodeDescription>>, StoreError> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = lock().get(&digest) {
            return Ok(nodes.clone());
        }
        let Some(nodes) = store.nodes(digest).await? else { return Ok(Arc::default()) };
        let nodes = Arc::new(nodes);
        let mut known = lock();
        if known.len() >= MOST_DESCRIBED {
            known.clear();
        }
        known.insert(digest, nodes.clone());
        Ok(nodes)
    }
}
