//! Namespaces as their operators set them up, kept at hand: limits, shares of
//! this host, and what plugins are granted.
//!
//! What an operator changes counts within [`FRESH`] on every host, for
//! executions that begin then.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;
use exosphere_store::{Store, StoreError};
use tokio::time::Instant;

/// For so long what was read is taken to be so.
const FRESH: Duration = Duration::from_secs(1);

/// Namespaces that are kept; all are forgotten when one more comes, since each
/// can be read again.
const MOST: usize = 4096;

/// What is at hand.
#[derive(Default)]
pub(crate) struct Tenants {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Name, Seen>,
    /// Namespaces with a number of slots of their own.
    slots: HashMap<NamespaceKey, u32>,
}

struct Seen {
    at: Instant,
    tenant: Arc<Tenant>,
}

/// A namespace.
#[derive(Default)]
pub(crate) struct Tenant {
    pub limits: LimitValues,
    grants: BTreeMap<Name, Arc<Grants>>,
}

impl Tenant {
    /// What the plugins of a name are granted.
    pub(crate) fn grants(&self, plugin: &Name) -> Arc<Grants> {
        self.grants.get(plugin).cloned().unwrap_or_default()
    }
}

impl Tenants {
    /// A namespace as it is now, or was a moment ago.
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

    /// What was read not long ago. Who comes first after that is sent to read
    /// it again, while the others go on with what there is.
    fn at_hand(&self, name: &Name) -> Option<Arc<Tenant>> {
        let mut known = self.lock();
        let seen = known.by_name.get_mut(name)?;
        if seen.at.elapsed() >= FRESH {
            seen.at = Instant::now();
            return None;
        }
        Some(seen.tenant.clone())
    }

    /// Forgets a namespace that has been changed here.
    pub(crate) fn forget(&self, name: &Name) {
        self.lock().by_name.remove(name);
    }

    /// So many nodes of a namespace run at a time, if it has a number of its
    /// own.
    pub(crate) fn slots(&self, namespace: NamespaceKey) -> Option<u32> {
        self.lock().slots.get(&namespace).copied()
    }

    /// All those.
    pub(crate) fn all_slots(&self) -> HashMap<NamespaceKey, u32> {
        self.lock().slots.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
