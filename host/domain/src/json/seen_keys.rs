//! Duplicate-key detection for an object that is checked but not built. Takes
//! linear time, and does not allocate for small objects. The hash is seeded at
//! random, so a hostile text cannot choose keys that collide.
//!
//! Not here: the refusal of a duplicate key, and objects that are built (`reader`).

use std::borrow::Cow;
use std::collections::HashSet;

/// The maximum number of keys that are compared one by one.
const MAX_SCANNED_KEYS: usize = 12;

/// The keys of an object seen so far.
pub(super) struct SeenKeys<'t> {
    first_keys: [&'t str; MAX_SCANNED_KEYS],
    count: usize,
    all_keys: Option<HashSet<Cow<'t, str>>>,
}

impl<'t> SeenKeys<'t> {
    pub(super) fn new() -> Self {
        SeenKeys { first_keys: [""; MAX_SCANNED_KEYS], count: 0, all_keys: None }
    }

    /// Adds a key. Returns false if it is a duplicate.
    pub(super) fn insert(&mut self, key: Cow<'t, str>) -> bool {
        if let Some(all_keys) = &mut self.all_keys {
            return all_keys.insert(key);
        }
        let first_keys = &self.first_keys[..self.count];
        match key {
            Cow::Borrowed(key) if self.count < MAX_SCANNED_KEYS => {
                if first_keys.contains(&key) {
                    return false;
                }
                self.first_keys[self.count] = key;
                self.count += 1;
                true
            }
            key => {
                let mut all_keys: HashSet<_> =
                    first_keys.iter().map(|key| Cow::Borrowed(*key)).collect();
                let is_new = all_keys.insert(key);
                self.all_keys = Some(all_keys);
                is_new
            }
        }
    }
}
