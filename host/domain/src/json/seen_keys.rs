//! Duplicate-key detection for an object that is checked but not built. Takes
//! linear time, and does not allocate for small objects. The hash is seeded at
//! random, so a hostile text cannot choose keys that collide.

use std::borrow::Cow;
use std::collections::HashSet;

/// The maximum number of keys that are compared one by one.
const MAX_SCANNED_KEYS: usize = 12;

/// The keys of an object seen so far.
pub(super) struct SeenKeys<'t> {
    few: [&'t str; MAX_SCANNED_KEYS],
    count: usize,
    many: Option<HashSet<Cow<'t, str>>>,
}

impl<'t> SeenKeys<'t> {
    pub(super) fn new() -> Self {
        SeenKeys { few: [""; MAX_SCANNED_KEYS], count: 0, many: None }
    }

    /// Adds a key. Returns false if it is a duplicate.
    pub(super) fn insert(&mut self, key: Cow<'t, str>) -> bool {
        if let Some(many) = &mut self.many {
            return many.insert(key);
        }
        let few = &self.few[..self.count];
        match key {
            Cow::Borrowed(key) if self.count < MAX_SCANNED_KEYS => {
                if few.contains(&key) {
                    return false;
                }
                self.few[self.count] = key;
                self.count += 1;
                true
            }
            key => {
                let mut many: HashSet<_> = few.iter().map(|key| Cow::Borrowed(*key)).collect();
                let is_new = many.insert(key);
                self.many = Some(many);
                is_new
            }
        }
    }
}
