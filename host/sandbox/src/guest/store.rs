//! `exosphere:node/store`: the run's key-value data, read through a trait and written
//! into a journal that commits with the outcome, or not at all.

use exosphere_domain::journal::{Entry, check_key};
use exosphere_domain::limits::Limit;
use futures::future::BoxFuture;

use crate::bindings::v0_1::exosphere::node::store as wit;
use crate::failure::Stop;
use crate::guest::state::Host;

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
pub(crate) struct Empty;

impl RunStore for Empty {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl Host {
    async fn fix_all(&mut self) -> Result<(), Stop> {
        if self.journal.needs_all() {
            let found = self.store.all().await.map_err(Stop::Unavailable)?;
            self.journal.fix_all(found);
        }
        Ok(())
    }

    async fn fix(&mut self, key: &str) -> Result<(), Stop> {
        check_key(key).map_err(Stop::Store)?;
        if !self.journal.needs(key) {
            return Ok(());
        }
        // The journal keeps each key that the guest looked for, present or not. After
        // more look-ups than a run may have keys, the guest is given all entries at
        // once, and the journal need not grow any more.
        self.keys_read += 1;
        if u64::from(self.keys_read) > self.limits.get(Limit::StoreKeys) {
            return self.fix_all().await;
        }
        let found = self.store.get(key).await.map_err(Stop::Unavailable)?;
        self.journal.fix(key, found);
        Ok(())
    }

    /// Checks the journal against the limits of a run's store, after a write of
    /// `bytes`.
    fn check_journal(&mut self, bytes: u64) -> Result<(), Stop> {
        if self.journal.written_keys() > self.limits.size(Limit::StoreKeys) {
            return Err(Stop::Limit(Limit::StoreKeys));
        }
        // The journal's size is a sum over all its writes. The bytes ever written bound
        // it, so it is computed only once they exceed the limit.
        self.bytes_written = self.bytes_written.saturating_add(bytes);
        if self.bytes_written > self.limits.get(Limit::StoreBytes) {
            self.bytes_written = self.journal.written_bytes();
        }
        match self.bytes_written > self.limits.get(Limit::StoreBytes) {
            true => Err(Stop::Limit(Limit::StoreBytes)),
            false => Ok(()),
        }
    }
}

impl wit::Host for Host {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        self.fix(&key).await?;
        Ok(self.journal.get(&key).map_err(Stop::Store)?)
    }

    fn set(&mut self, key: String, value: String) -> wasmtime::Result<()> {
        self.count_call()?;
        if value.len() > self.limits.size(Limit::StoreValueBytes) {
            return Err(Stop::Limit(Limit::StoreValueBytes).into());
        }
        let bytes = (key.len() + value.len()) as u64;
        self.journal.set(&key, value).map_err(Stop::Store)?;
        Ok(self.check_journal(bytes)?)
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<()> {
        self.count_call()?;
        self.journal.remove(&key).map_err(Stop::Store)?;
        Ok(self.check_journal(key.len() as u64)?)
    }

    async fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        self.count_call()?;
        self.fix_all().await?;
        Ok(self.journal.keys())
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<()> {
        self.count_call()?;
        self.journal.increment(&key, by).map_err(Stop::Store)?;
        Ok(self.check_journal(key.len() as u64)?)
    }
}
