//! A cache of the graphs that runs are started from: the current revision of each, and
//! the graphs of revisions.

use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_store::{GraphRow, RevisionRow, Store, StoreError};

use crate::cache::{Cache, MAX_CACHE_ENTRIES};
use parking_lot::Mutex;

/// The revision of a graph from which a run is started.
pub(crate) struct Current {
    /// The key of its namespace.
    pub namespace: NamespaceKey,
    pub revision: RevisionRow,
    pub graph: Arc<Graph>,
}

/// The cache of graphs. Another host may have applied a graph since; the commit of a
/// start checks that.
pub(crate) struct GraphCache {
    revisions: Cache<i64, Arc<Graph>>,
    current: Cache<(Name, Name), Arc<Current>>,
    /// Number of times that a graph was dropped. A row that was read before the latest drop may
    /// be outdated. Current revisions are cached and dropped under this lock.
    dropped: Mutex<u64>,
}

impl Default for GraphCache {
    fn default() -> Self {
        GraphCache {
            revisions: Cache::from_entry_count(MAX_CACHE_ENTRIES),
            current: Cache::from_entry_count(MAX_CACHE_ENTRIES),
            dropped: Mutex::default(),
        }
    }
}

impl GraphCache {
    /// Returns the current revision of a graph, if it is cached.
    pub(crate) fn cached(&self, namespace: &Name, name: &Name) -> Option<Arc<Current>> {
        self.current.get(&(namespace.clone(), name.clone()))
    }

    /// Reads the current revision of a graph from the database, if there is one.
    pub(crate) async fn current(
        &self,
        store: &Store,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<Arc<Current>>, StoreError> {
        let key = (namespace.clone(), name.clone());
        let dropped = *self.dropped.lock();
        let Some(row) = store.graph(namespace, name).await? else { return Ok(None) };
        let graph = self.graph(&row)?;
        let (namespace, revision) = (row.namespace, row.revision);
        let current = Arc::new(Current { namespace, revision, graph });
        let now_dropped = self.dropped.lock();
        if *now_dropped == dropped {
            self.current.insert(key, current.clone(), 0);
        }
        drop(now_dropped);
        Ok(Some(current))
    }

    /// Reads a revision of a graph by its number. Only its parsed graph is cached.
    pub(crate) async fn pinned(
        &self,
        store: &Store,
        (namespace, name): (&Name, &Name),
        number: u64,
    ) -> Result<Option<Arc<Current>>, StoreError> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let Some(row) = store.revision(namespace, name, number).await? else { return Ok(None) };
        let graph = self.graph(&row)?;
        Ok(Some(Arc::new(Current { namespace: row.namespace, revision: row.revision, graph })))
    }

    /// Drops a graph that has, or may have, another current revision now.
    pub(crate) fn forget(&self, namespace: &Name, name: &Name) {
        let mut dropped = self.dropped.lock();
        *dropped += 1;
        self.current.remove(&(namespace.clone(), name.clone()));
    }

    /// Returns the graph of a revision, parsed if it is not cached.
    fn graph(&self, row: &GraphRow) -> Result<Arc<Graph>, StoreError> {
        if let Some(graph) = self.revisions.get(&row.revision.id) {
            return Ok(graph);
        }
        let graph = Arc::new(row.graph()?);
        self.revisions.insert(row.revision.id, graph.clone(), 0);
        Ok(graph)
    }
}
