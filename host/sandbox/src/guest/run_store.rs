//! The read access to the store of a run, which the caller of an invocation provides.
//!
//! Not here: what the guest sees of the store, its own writes included; see `store`.

use exosphere_domain::journal::Entry;
use futures::future::BoxFuture;

/// A failed read of the run's store. The text is for the host's log only.
#[derive(Debug, thiserror::Error)]
#[error("the store of the run cannot be read: {0}")]
pub struct Unavailable(pub String);

/// The read access of an execution to the store of its run. Writes do not come this
/// way: they are in the completion's journal.
pub trait RunStore: Send + Sync {
    /// Returns the current entry of a key.
    ///
    /// # Errors
    /// If the database does not answer; the attempt then fails as `internal`.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>>;

    /// Returns every key with its current entry.
    ///
    /// # Errors
    /// As for `get`.
    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>>;
}

/// An empty store without a run, for `describe`.
pub(crate) struct EmptyStore;

impl RunStore for EmptyStore {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}
