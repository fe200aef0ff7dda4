//! The run's key-value data, as the guest sees it: read through a trait and written
//! into a journal that commits with the outcome, or not at all.

use std::sync::Arc;

use exosphere_domain::journal::{Journal, check_key};
use exosphere_domain::limits::{Limit, Limits};

use super::run_store::RunStore;
use super::trap::HostTrap;

/// The store access of one guest.
pub(crate) struct StoreAccess {
    run: Arc<dyn RunStore>,
    journal: Journal,
    keys_read: u32,
    bytes_written: u64,
}

impl StoreAccess {
    pub(crate) fn new(run: Arc<dyn RunStore>) -> StoreAccess {
        StoreAccess { run, journal: Journal::default(), keys_read: 0, bytes_written: 0 }
    }

    /// Returns the guest's reads and writes.
    pub(crate) fn into_journal(self) -> Journal {
        self.journal
    }

    /// Returns the value of a key.
    pub(super) async fn get(
        &mut self,
        limits: &Limits,
        key: &str,
    ) -> Result<Option<String>, HostTrap> {
        self.read(limits, key).await?;
        self.journal.get(key).map_err(HostTrap::Store)
    }

    /// Returns all keys, in order.
    pub(super) async fn keys(&mut self) -> Result<Vec<String>, HostTrap> {
        self.read_all().await?;
        Ok(self.journal.keys())
    }

    /// Sets the value of a key.
    pub(super) fn set(
        &mut self,
        limits: &Limits,
        key: &str,
        value: String,
    ) -> Result<(), HostTrap> {
        if value.len() > limits.size(Limit::StoreValueBytes) {
            return Err(HostTrap::Limit(Limit::StoreValueBytes));
        }
        let bytes = (key.len() + value.len()) as u64;
        self.journal.set(key, value).map_err(HostTrap::Store)?;
        self.check_limits(limits, bytes)
    }

    /// Removes a key, as a write in the journal.
    pub(super) fn remove(&mut self, limits: &Limits, key: &str) -> Result<(), HostTrap> {
        self.journal.remove(key).map_err(HostTrap::Store)?;
        self.check_limits(limits, key.len() as u64)
    }

    /// Adds to the number under a key.
    pub(super) fn increment(
        &mut self,
        limits: &Limits,
        key: &str,
        by: i64,
    ) -> Result<(), HostTrap> {
        self.journal.increment(key, by).map_err(HostTrap::Store)?;
        self.check_limits(limits, key.len() as u64)
    }

    async fn read_all(&mut self) -> Result<(), HostTrap> {
        if self.journal.needs_snapshot() {
            let found = self.run.all().await.map_err(HostTrap::Unavailable)?;
            self.journal.record_snapshot(found);
        }
        Ok(())
    }

    async fn read(&mut self, limits: &Limits, key: &str) -> Result<(), HostTrap> {
        check_key(key).map_err(HostTrap::Store)?;
        if !self.journal.needs_read(key) {
            return Ok(());
        }
        // The journal keeps each key that the guest looked for, present or not. After more
        // look-ups than a run may have keys, all entries are read together, and the journal
        // need not grow any more.
        self.keys_read += 1;
        if u64::from(self.keys_read) > limits.get(Limit::StoreKeys) {
            return self.read_all().await;
        }
        let found = self.run.get(key).await.map_err(HostTrap::Unavailable)?;
        self.journal.record_read(key, found);
        Ok(())
    }

    /// Checks the journal against the limits of a run's store, after a write of
    /// `bytes`.
    fn check_limits(&mut self, limits: &Limits, bytes: u64) -> Result<(), HostTrap> {
        if self.journal.written_keys() > limits.size(Limit::StoreKeys) {
            return Err(HostTrap::Limit(Limit::StoreKeys));
        }
        // The journal's size is a sum over all its writes. The bytes ever written bound
        // it, so it is computed only once they exceed the limit.
        self.bytes_written = self.bytes_written.saturating_add(bytes);
        if self.bytes_written > limits.get(Limit::StoreBytes) {
            self.bytes_written = self.journal.written_bytes();
        }
        if self.bytes_written > limits.get(Limit::StoreBytes) {
            Err(HostTrap::Limit(Limit::StoreBytes))
        } else {
            Ok(())
        }
    }
}
