//! A cache of namespaces' settings: limits, slots of this host, and grants of plugins.
//!
//! A change by an operator counts within [`FRESH`] on every host, for executions that
//! begin then.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;
use exosphere_store::{Store, StoreError};
use tokio::time::Instant;

/// Lifetime of a cache entry.
const FRESH: Duration = Duration::from_secs(1);

/// Namespaces that are cached; all are dropped when one more comes, since each can be
/// read again.
const MOST: usize = 4096;

/// The cache of namespaces.
#[derive(Default)]
pub(crate) struct Tenants {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Name, Seen>,
    /// Namespaces with slots of their own.
    slots: HashMap<NamespaceKey, u32>,
}

struct Seen {
    at: Instant,
    tenant: Arc<Tenant>,
}

/// The settings of a namespace.
#[derive(Default)]
pub(crate) struct Tenant {
    pub limits: LimitValues,
    grants: BTreeMap<Name, Arc<Grants>>,
}

impl Tenant {
    /// Returns the grants of the plugins of one name.
    pub(crate) fn grants(&self, plugin: &Name) -> Arc<Grants> {
        self.grants.get(plugin).cloned().unwrap_or_default()
    }
}

impl Tenants {
    /// Returns a namespace as it is now, or was up to [`FRESH`] ago.
    pub(crate) async fn get(&self, store: &Store, name: &Name) -> Result<Arc<Tenant>, StoreError> {
        if let Some(tenant) = self.at_hand(name) {
            return Ok(tenant);
        }
        let row = store.namespace(name).await?;
        let grants = store.grants(name).await?;
        let grants = grants.into_iter().map(|(plugin, grants)| (plugin, Arc::new(grants)));
        let limits = row.as_ref().map(|row| row.limits.clone()).unwrap_or_default();
        let tenant = Arc::new(Tenant { limits, grants: grants.collect() });
        let mut known = self.lock();
        if known.by_name.len() >= MOST {
            *known = Known::default();
        }
        if let Some(row) = row {
            match row.slots {
                Some(slots) => known.slots.insert(row.key, slots),
                None => known.slots.remove(&row.key),
            };
        }
        known.by_name.insert(name.clone(), Seen { at: Instant::now(), tenant: tenant.clone() });
        Ok(tenant)
    }

    /// Returns the cached entry. After [`FRESH`], the first caller gets nothing and reads
    /// the namespace again, while the other callers keep the old entry.
    fn at_hand(&self, name: &Name) -> Option<Arc<Tenant>> {
        let mut known = self.lock();
        let seen = known.by_name.get_mut(name)?;
        if seen.at.elapsed() >= FRESH {
            seen.at = Instant::now();
            return None;
        }
        Some(seen.tenant.clone())
    }

    /// Drops a namespace that this host has changed.
    pub(crate) fn forget(&self, name: &Name) {
        self.lock().by_name.remove(name);
    }

    /// Returns the slots of a namespace, if it has slots of its own.
    pub(crate) fn slots(&self, namespace: NamespaceKey) -> Option<u32> {
        self.lock().slots.get(&namespace).copied()
    }

    /// Returns all namespaces with slots of their own.
    pub(crate) fn all_slots(&self) -> HashMap<NamespaceKey, u32> {
        self.lock().slots.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
