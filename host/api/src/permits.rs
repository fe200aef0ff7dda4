//! Permits for something that is bounded on the whole host and for each namespace: uploads, and
//! readers of live views. None waits for a permit: a refused caller tries again.
//!
//! Not here: turns that callers wait for (`FairSemaphore` of the sandbox).

use std::collections::HashMap;
use std::sync::Arc;

use exosphere_orchestrator::domain::ids::Name;
use parking_lot::Mutex;

/// The permits that are out, by namespace, and how many there may be.
#[derive(Clone)]
pub(crate) struct Permits {
    held: Arc<Mutex<HashMap<Name, usize>>>,
    pub max: usize,
    pub max_per_namespace: usize,
}

/// One permit, released on drop.
pub(crate) struct Permit {
    permits: Permits,
    namespace: Name,
}

impl Permits {
    pub(crate) fn new(max: usize, max_per_namespace: usize) -> Self {
        Permits { held: Arc::default(), max, max_per_namespace }
    }

    /// Acquires a permit, if one is free.
    pub(crate) fn try_acquire(&self, namespace: &Name) -> Option<Permit> {
        let mut counts = self.held.lock();
        let (all, own_count) = (counts.values().sum::<usize>(), counts.get(namespace).copied());
        let own_count = own_count.unwrap_or_default();
        if all >= self.max || own_count >= self.max_per_namespace {
            return None;
        }
        counts.insert(namespace.clone(), own_count + 1);
        Some(Permit { permits: self.clone(), namespace: namespace.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.permits.held.lock();
        if let Some(own) = counts.get_mut(&self.namespace) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn permits_are_capped_per_namespace_too() {
        let permits = Permits::new(8, 4);
        let [a, b, c]: [Name; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        let mut held: Vec<_> = (0..4).map(|_| permits.try_acquire(&a).unwrap()).collect();
        assert!(permits.try_acquire(&a).is_none());
        held.extend((0..4).map(|_| permits.try_acquire(&b).unwrap()));
        assert!(permits.try_acquire(&c).is_none(), "the host is at its limit");
        held.truncate(4);
        assert!(permits.try_acquire(&a).is_none() && permits.try_acquire(&c).is_some());
        held.clear();
        assert!(permits.held.lock().is_empty());
    }
}
