//! A cache of namespaces' settings: limits, slots of this host, and grants of plugins.
//!
//! A change by an operator counts within [`CACHE_TTL`] on every host, for executions that
//! begin then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;
use exosphere_domain::quota::QuotaValues;
use exosphere_store::{Store, StoreError};
use tokio::time::Instant;

use crate::cache::{Cache, MAX_CACHE_ENTRIES};
use parking_lot::Mutex;

/// Lifetime of a cache entry.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// The cache of namespaces.
pub(crate) struct NamespaceCache {
    entries: Cache<Name, CachedSettings>,
    /// The slots of namespaces that have slots of their own.
    slots: Mutex<HashMap<NamespaceKey, u32>>,
}

#[derive(Clone)]
struct CachedSettings {
    read_at: Instant,
    settings: Arc<NamespaceLimits>,
}

/// The settings of a namespace by an operator: limits and grants.
#[derive(Default)]
pub(crate) struct NamespaceLimits {
    pub limits: LimitValues,
    pub quotas: QuotaValues,
    grants: BTreeMap<Name, Arc<Grants>>,
}

impl NamespaceLimits {
    /// Returns the grants of the plugins of one name.
    pub(crate) fn grants(&self, plugin: &Name) -> Arc<Grants> {
        self.grants.get(plugin).cloned().unwrap_or_default()
    }
}

impl Default for NamespaceCache {
    fn default() -> Self {
        NamespaceCache {
            entries: Cache::from_entry_count(MAX_CACHE_ENTRIES),
            slots: Mutex::default(),
        }
    }
}

impl NamespaceCache {
    /// Returns a namespace's settings, at most [`CACHE_TTL`] old.
    pub(crate) async fn get(
        &self,
        store: &Store,
        name: &Name,
    ) -> Result<Arc<NamespaceLimits>, StoreError> {
        if let Some(settings) = self.cached(name) {
            return Ok(settings);
        }
        let row = store.namespace(name).await?;
        let grants = store.grants(name).await?;
        let grants = grants.into_iter().map(|(plugin, grants)| (plugin, Arc::new(grants)));
        let limits = row.as_ref().map(|row| row.limits.clone()).unwrap_or_default();
        let quotas = store.quotas(name).await?;
        let settings = Arc::new(NamespaceLimits { limits, quotas, grants: grants.collect() });
        if let Some(row) = row {
            self.set_slots(row.key, row.slots);
        }
        let entry = CachedSettings { read_at: Instant::now(), settings: settings.clone() };
        self.entries.insert(name.clone(), entry, 0);
        Ok(settings)
    }

    /// Returns the cached entry. After [`CACHE_TTL`], the first caller gets nothing and
    /// reads the namespace again, while the other callers keep the old entry.
    fn cached(&self, name: &Name) -> Option<Arc<NamespaceLimits>> {
        self.entries.update(name, |entry| {
            if entry.read_at.elapsed() >= CACHE_TTL {
                entry.read_at = Instant::now();
                return None;
            }
            Some(entry.settings.clone())
        })?
    }

    /// Drops a namespace that this host has changed.
    pub(crate) fn forget(&self, name: &Name) {
        self.entries.remove(name);
    }

    fn set_slots(&self, namespace: NamespaceKey, own: Option<u32>) {
        let mut slots = self.slots.lock();
        match own {
            Some(own) => {
                if slots.len() >= MAX_CACHE_ENTRIES && !slots.contains_key(&namespace) {
                    // The other namespace gets its own slots again when its entry is read again:
                    // within a second.
                    let other = slots.keys().next().copied();
                    other.and_then(|other| slots.remove(&other));
                }
                slots.insert(namespace, own);
            }
            None => drop(slots.remove(&namespace)),
        }
    }

    /// Returns the slots of a namespace, if it has slots of its own.
    pub(crate) fn slots(&self, namespace: NamespaceKey) -> Option<u32> {
        self.slots.lock().get(&namespace).copied()
    }

    /// Returns all namespaces with slots of their own.
    pub(crate) fn all_slots(&self) -> HashMap<NamespaceKey, u32> {
        self.slots.lock().clone()
    }
}
