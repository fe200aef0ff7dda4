//! What never changes of the runs that are being executed, and the graphs that
//! are being started, kept at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::RunKey;
use exosphere_store::{GraphRow, RunInfo, Store, StoreError};

/// Of each kind; the whole lot is forgotten when one more comes, since
/// each can be read again.
const MOST: usize = 4096;

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

/// The graphs of current revisions, kept at hand.
#[derive(Default)]
pub(crate) struct Graphs {
    known: Mutex<HashMap<i64, Arc<Graph>>>,
}

impl Graphs {
    /// The graph in a revision, parsed if it is not at hand.
    pub(crate) fn get(&self, row: &GraphRow) -> Result<Arc<Graph>, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = known.get(&row.revision.id) {
            return Ok(graph.clone());
        }
        if known.len() >= MOST {
            known.clear();
        }
        let graph = Arc::new(row.graph()?);
        known.insert(row.revision.id, graph.clone());
        Ok(graph)
    }
}
