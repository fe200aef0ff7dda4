//! Caches of the immutable part of runs under execution, and of the graphs that runs are
//! started from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, NamespaceKey, RunKey};
use exosphere_store::{GraphRow, RevisionRow, RunInfo, Store, StoreError};

use crate::cache::Cache;

/// Graphs, and current revisions, that are cached. All are dropped when one more comes,
/// since each can be read again.
const MOST: usize = 4096;

/// Bytes of the cached runs: mostly their inputs.
const RUNS_WEIGHT: u64 = 256 * 1024 * 1024;

/// Bytes of a run without its inputs.
const RUN_WEIGHT: u64 = 1024;

/// A cache of runs.
pub(crate) struct Runs {
    known: Cache<RunKey, Arc<RunInfo>>,
}

impl Default for Runs {
    fn default() -> Self {
        Runs { known: Cache::new(RUNS_WEIGHT) }
    }
}

impl Runs {
    /// Caches a run that is known already.
    pub(crate) fn keep(&self, run: Arc<RunInfo>) {
        let weight = RUN_WEIGHT + run.inputs.len() as u64;
        self.known.put(run.key, run, weight);
    }

    /// Returns a run, read if it is not cached.
    pub(crate) async fn get(&self, store: &Store, key: RunKey) -> Result<Arc<RunInfo>, StoreError> {
        if let Some(run) = self.known.get(&key) {
            return Ok(run);
        }
        let missing = || StoreError::Data(format!("table run has no row {}", key.0));
        let run = Arc::new(store.run_info(key).await?.ok_or_else(missing)?);
        self.keep(run.clone());
        Ok(run)
    }
}

/// The current revision of a graph, from which a run is started.
pub(crate) struct Current {
    /// The key of its namespace.
    pub namespace: NamespaceKey,
    pub revision: RevisionRow,
    pub graph: Arc<Graph>,
}

/// A cache of the graphs of current revisions. Another host may have applied a graph
/// since; the commit of a start checks that.
#[derive(Default)]
pub(crate) struct Graphs {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    revisions: HashMap<i64, Arc<Graph>>,
    current: HashMap<(Name, Name), Arc<Current>>,
    /// Number of times that a graph was dropped: a row read before the last of them may
    /// be old.
    applied: u64,
}

impl Graphs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current revision of a graph, if it is cached.
    pub(crate) fn at_hand(&self, namespace: &Name, name: &Name) -> Option<Arc<Current>> {
        self.lock().current.get(&(namespace.clone(), name.clone())).cloned()
    }

    /// Reads the current revision of a graph as it is now, if there is one.
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

    /// Drops a graph that has, or may have, another current revision now.
    pub(crate) fn forget(&self, namespace: &Name, name: &Name) {
        let mut known = self.lock();
        known.applied += 1;
        known.current.remove(&(namespace.clone(), name.clone()));
    }

    /// Returns the graph of a revision, parsed if it is not cached.
    fn graph(&self, row: &GraphRow) -> Result<Arc<Graph>, StoreError> {
        if let Some(graph) = self.lock().revisions.get(&row.revision.id) {
            return Ok(graph.clone());
        }
        // Parsed without the lock, since a large graph takes long.
        let graph = Arc::new(row.graph()?);
        let mut known = self.lock();
        if known.revisions.len() >= MOST {
            known.revisions.clear();
        }
        known.revisions.insert(row.revision.id, graph.clone());
        Ok(graph)
    }
}
