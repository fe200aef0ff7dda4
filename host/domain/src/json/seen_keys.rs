//! The keys of one object that is checked and not built: which of them come
//! twice. Linear in their number, without allocation for small objects, and no
//! key can be chosen to collide with others: the hash is seeded at random.

use std::borrow::Cow;
use std::collections::HashSet;

/// The keys up to which they are compared one by one.
const FEW: usize = 12;

/// The keys of an object so far.
pub(super) struct SeenKeys<'t> {
    few: [&'t str; FEW],
    count: usize,
    many: Option<HashSet<Cow<'t, str>>>,
}

impl<'t> SeenKeys<'t> {
    pub(super) fn new() -> Self {
        SeenKeys { few: [""; FEW], count: 0, many: None }
    }

    /// Adds a key. Returns false if it was there.
    pub(super) fn insert(&mut self, key: Cow<'t, str>) -> bool {
        if let Some(many) = &mut self.many {
            return many.insert(key);
        }
        let few = &self.few[..self.count];
        match key {
            Cow::Borrowed(key) if self.count < FEW => {
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
