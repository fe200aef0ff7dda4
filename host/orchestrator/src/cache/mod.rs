//! The one cache of the host, bounded by weight, which evicts the least recently used
//! values first. The modules below have its uses, apart from secrets
//! (`execution/secrets.rs`).

pub(crate) mod runs;
pub(crate) mod descriptions;
pub(crate) mod namespaces;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cache of values by key, up to `max_weight` bytes.
pub(crate) struct Cache<K, V> {
    entries: Mutex<Entries<K, V>>,
    max_weight: u64,
}

struct Entries<K, V> {
    by_key: HashMap<K, Entry<V>>,
    weight: u64,
    /// The number of uses, which serves as a clock for eviction.
    clock: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Eq + Hash + Clone, V> Entries<K, V> {
    /// Evicts the least recently used values, down to a weight. It evicts several at
    /// once, so that not every new value scans all of them.
    fn forget_oldest(&mut self, weight: u64) -> Vec<Entry<V>> {
        let mut keys: Vec<_> =
            self.by_key.iter().map(|(key, entry)| (entry.used, key.clone())).collect();
        keys.sort_unstable_by_key(|(used, _)| *used);
        // The newest stays, since it was just put there.
        keys.pop();
        let mut gone = Vec::new();
        for (_, key) in keys {
            if self.weight <= weight {
                break;
            }
            if let Some(entry) = self.by_key.remove(&key) {
                self.weight -= entry.weight;
                gone.push(entry);
            }
        }
        gone
    }
}

/// Bytes that an entry weighs without its value.
const ENTRY_WEIGHT: u64 = 256;

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(max_weight: u64) -> Self {
        let entries = Entries { by_key: HashMap::new(), weight: 0, clock: 0 };
        Cache { entries: Mutex::new(entries), max_weight }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.by_key.get_mut(key)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// Caches a value, unless it is heavier than the whole cache may be.
    pub(crate) fn put(&self, key: K, value: V, weight: u64) {
        let weight = weight.saturating_add(ENTRY_WEIGHT);
        if weight > self.max_weight {
            return;
        }
        let mut gone = Vec::new();
        {
            let mut entries = self.lock();
            entries.clock += 1;
            let used = entries.clock;
            gone.extend(entries.by_key.insert(key, Entry { value, weight, used }));
            entries.weight += weight;
            entries.weight -= gone.iter().map(|entry| entry.weight).sum::<u64>();
            if entries.weight > self.max_weight {
                gone.extend(entries.forget_oldest(self.max_weight - self.max_weight / 8));
            }
        }
        // Large values are dropped without the lock.
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(100 * (ENTRY_WEIGHT + 100));
        for key in 0..100 {
            cache.put(key, key, 100);
        }
        assert_eq!(cache.get(&0), Some(0));
        cache.put(100, 100, 100);
        assert_eq!([0, 1, 50, 100].map(|key| cache.get(&key).is_some()), [true, false, true, true]);
        cache.put(101, 101, 100 * (ENTRY_WEIGHT + 100));
        assert_eq!(cache.get(&101), None, "heavier than everything");
        assert_eq!(cache.get(&100), Some(100));
        cache.put(102, 102, 99 * (ENTRY_WEIGHT + 100));
        assert_eq!(
            [0, 50, 100, 102].map(|key| cache.get(&key).is_some()),
            [false, false, false, true]
        );
    }
}
