//! The store of a run as a guest reads it: an adapter from the sandbox to the database.
//!
//! Not here: the guest's writes, which go into its journal.

use std::sync::atomic::{AtomicBool, Ordering};

use exosphere_domain::ids::RunKey;
use exosphere_domain::journal::Entry;
use exosphere_sandbox::{RunStore, Unavailable};
use exosphere_store::{Store, StoreError};
use futures::FutureExt;
use futures::future::BoxFuture;

/// The store of a run, as a guest reads it.
pub(super) struct RunStoreReader {
    store: Store,
    run: RunKey,
    /// Set if a read failed, which is not the guest's fault.
    unavailable: AtomicBool,
}

impl RunStoreReader {
    pub(super) fn new(store: Store, run: RunKey) -> Self {
        RunStoreReader { store, run, unavailable: AtomicBool::new(false) }
    }

    /// Returns `true` if a read failed because the database was unavailable.
    pub(super) fn has_failed(&self) -> bool {
        self.unavailable.load(Ordering::Relaxed)
    }

    fn unavailable_error(&self, error: &StoreError) -> Unavailable {
        self.unavailable.store(!matches!(error, StoreError::Data(_)), Ordering::Relaxed);
        Unavailable(error.to_string())
    }
}

impl RunStore for RunStoreReader {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        let entry = self.store.entry(self.run, key);
        entry.map(|entry| entry.map_err(|error| self.unavailable_error(&error))).boxed()
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        let entries = self.store.entries(self.run);
        entries.map(|entries| entries.map_err(|error| self.unavailable_error(&error))).boxed()
    }
}
