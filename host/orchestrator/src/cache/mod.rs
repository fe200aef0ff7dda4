//! The one cache of the host, bounded by weight, which evicts the least recently used values
//! first. The modules below use it, as does the cache of secrets (`execution/secrets.rs`).

pub(crate) mod runs;
pub(crate) mod graphs;
pub(crate) mod descriptions;
pub(crate) mod namespaces;

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// Maximum number of entries of a cache of small values, such as settings and current
/// revisions.
pub(crate) const MAX_CACHE_ENTRIES: usize = 4096;

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
    last_used: u64,
}

impl<K: Eq + Hash + Clone, V> Entries<K, V> {
    /// Evicts the least recently used values, down to a weight. It evicts several at a time, so
    /// that not every new value scans all of them.
    fn evict_oldest(&mut self, weight: u64) -> Vec<Entry<V>> {
        let mut keys: Vec<_> =
            self.by_key.iter().map(|(key, entry)| (entry.last_used, key.clone())).collect();
        keys.sort_unstable_by_key(|(last_used, _)| *last_used);
        // The newest entry stays: the caller has just inserted it.
        keys.pop();
        let mut removed = Vec::new();
        for (_, key) in keys {
            if self.weight <= weight {
                break;
            }
            if let Some(entry) = self.by_key.remove(&key) {
                self.weight -= entry.weight;
                removed.push(entry);
            }
        }
        removed
    }
}

/// The weight of an entry without its value, in bytes.
const ENTRY_BYTES: u64 = 256;

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// Creates a cache of up to `max_weight` bytes.
    pub(crate) fn new(max_weight: u64) -> Self {
        let entries = Entries { by_key: HashMap::new(), weight: 0, clock: 0 };
        Cache { entries: Mutex::new(entries), max_weight }
    }

    /// Creates a cache of up to `count` values that are inserted with a weight of 0.
    pub(crate) fn from_entry_count(count: usize) -> Self {
        Cache::new(ENTRY_BYTES.saturating_mul(count as u64))
    }

    /// Changes a cached value in place, and returns the result of the change.
    pub(crate) fn update<T>(&self, key: &K, change: impl FnOnce(&mut V) -> T) -> Option<T> {
        let mut entries = self.entries.lock();
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.by_key.get_mut(key)?;
        entry.last_used = now;
        Some(change(&mut entry.value))
    }

    /// Returns a cached value.
    pub(crate) fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.update(key, |value| value.clone())
    }

    /// Caches a value of `weight` bytes, unless it is heavier than the whole cache may be.
    pub(crate) fn insert(&self, key: K, value: V, weight: u64) {
        let weight = weight.saturating_add(ENTRY_BYTES);
        if weight > self.max_weight {
            return;
        }
        let mut evicted = Vec::new();
        {
            let mut entries = self.entries.lock();
            entries.clock += 1;
            let last_used = entries.clock;
            evicted.extend(entries.by_key.insert(key, Entry { value, weight, last_used }));
            entries.weight += weight;
            entries.weight -= evicted.iter().map(|entry| entry.weight).sum::<u64>();
            if entries.weight > self.max_weight {
                evicted.extend(entries.evict_oldest(self.max_weight - self.max_weight / 8));
            }
        }
        // Large values are dropped without the lock.
        drop(evicted);
    }

    /// Drops a cached value, if there is one.
    pub(crate) fn remove(&self, key: &K) {
        let removed = {
            let mut entries = self.entries.lock();
            let removed = entries.by_key.remove(key);
            entries.weight -= removed.as_ref().map_or(0, |entry| entry.weight);
            removed
        };
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_is_evicted_first() {
        let cache = Cache::new(100 * (ENTRY_BYTES + 100));
        for key in 0..100 {
            cache.insert(key, key, 100);
        }
        assert_eq!(cache.get(&0), Some(0));
        cache.insert(100, 100, 100);
        assert_eq!([0, 1, 50, 100].map(|key| cache.get(&key).is_some()), [true, false, true, true]);
        cache.insert(101, 101, 100 * (ENTRY_BYTES + 100));
        assert_eq!(cache.get(&101), None, "heavier than everything");
        assert_eq!(cache.get(&100), Some(100));
        cache.insert(102, 102, 99 * (ENTRY_BYTES + 100));
        assert_eq!(
            [0, 50, 100, 102].map(|key| cache.get(&key).is_some()),
            [false, false, false, true]
        );
    }

    #[test]
    fn a_removed_value_makes_room() {
        let cache = Cache::from_entry_count(2);
        for key in [1, 2] {
            cache.insert(key, key, 0);
        }
        cache.remove(&1);
        cache.remove(&1);
        cache.insert(3, 3, 0);
        assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [None, Some(2), Some(3)]);
    }

    #[test]
    fn an_updated_value_stays_cached() {
        let cache = Cache::from_entry_count(2);
        cache.insert("key", 1, 0);
        assert_eq!(cache.update(&"key", |value| std::mem::replace(value, 5)), Some(1));
        assert_eq!(cache.get(&"key"), Some(5));
        assert_eq!(cache.update(&"other", |value: &mut i32| *value), None);
    }
}
