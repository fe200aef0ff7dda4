//! A cache of the immutable part of runs under execution.

use std::sync::Arc;

use exosphere_domain::ids::RunKey;
use exosphere_store::{RunInfo, Store, StoreError};

use crate::cache::Cache;

/// Maximum size of all cached runs, in bytes: mostly their inputs.
const MAX_CACHE_BYTES: u64 = 256 * 1024 * 1024;

/// Size of a run without its inputs, in bytes.
const RUN_BYTES: u64 = 1024;

/// The cache of runs.
pub(crate) struct RunCache {
    entries: Cache<RunKey, Arc<RunInfo>>,
}

impl Default for RunCache {
    fn default() -> Self {
        RunCache { entries: Cache::new(MAX_CACHE_BYTES) }
    }
}

impl RunCache {
    /// Caches a run that is known already.
    pub(crate) fn insert(&self, run: Arc<RunInfo>) {
        let weight = RUN_BYTES + run.inputs.len() as u64;
        self.entries.insert(run.key, run, weight);
    }

    /// Returns a run, read if it is not cached.
    pub(crate) async fn get(&self, store: &Store, key: RunKey) -> Result<Arc<RunInfo>, StoreError> {
        if let Some(run) = self.entries.get(&key) {
            return Ok(run);
        }
        let missing = || StoreError::Data(format!("table run has no row {}", key.0));
        let run = Arc::new(store.run_info(key).await?.ok_or_else(missing)?);
        self.insert(run.clone());
        Ok(run)
    }
}
