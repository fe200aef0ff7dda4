//! The journal: an attempt's reads and writes of the run's store, kept back until the attempt
//! ends. It holds the version of each key that was read, and one net operation for each key
//! that was written.
//!
//! Not here: the store itself. The caller fetches a key's first read and passes it to
//! [`Journal::record_read`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A value as it was read, with the version that a later commit compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value as it was read.
    pub value: String,
    /// The version; changes with every committed write of the key.
    pub version: i64,
}

/// A net operation on a key, applied at commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// The key is set to this value.
    Set(String),
    /// The key is removed.
    Remove,
    /// An increment: the commit adds this number to the value of the key.
    Increment(i64),
}

/// The reason why a store operation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The text is not a valid store key.
    #[error(
        "{0:?} is not a store key: use 1 to {MAX_KEY_BYTES} bytes with neither '.' nor NUL among them"
    )]
    BadKey(String),
    /// The value to increment is not a whole number.
    #[error("store key {key:?} cannot be incremented: {value:?} is not a whole number of 64 bits")]
    NotANumber {
        /// The key whose value is not a number.
        key: String,
        /// The key's value, cut.
        value: String,
    },
    /// The sum does not fit in 64 bits.
    #[error("store key {0:?} cannot be incremented: the sum does not fit in 64 bits")]
    Overflow(String),
}

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// Checks that a text is a valid store key.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let fits = !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.contains(['.', '\0']);
    if fits { Ok(()) } else { Err(StoreError::BadKey(key.chars().take(64).collect())) }
}

/// Adds `by` to a store value: decimal text, where a missing key counts as 0.
pub fn add(key: &str, value: Option<&str>, delta: i64) -> Result<String, StoreError> {
    let number: i64 = value.map_or(Ok(0), str::parse).map_err(|_| StoreError::NotANumber {
        key: key.to_owned(),
        value: value.unwrap_or_default().chars().take(64).collect(),
    })?;
    let sum = number.checked_add(delta).ok_or_else(|| StoreError::Overflow(key.to_owned()))?;
    Ok(sum.to_string())
}

/// The reads and writes of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    reads: BTreeMap<String, Option<Entry>>,
    writes: BTreeMap<String, Write>,
    read_all: bool,
}

impl Journal {
    /// Returns whether a read of this key must be fetched and recorded first.
    pub fn needs_read(&self, key: &str) -> bool {
        let decided = matches!(self.writes.get(key), Some(Write::Set(_) | Write::Remove));
        !decided && !self.reads.contains_key(key) && !self.read_all
    }

    /// Returns whether all keys must be fetched and recorded before they are
    /// listed.
    pub fn needs_snapshot(&self) -> bool {
        !self.read_all
    }

    /// Records the first read of a key. A later call for the same key changes
    /// nothing.
    pub fn record_read(&mut self, key: &str, found: Option<Entry>) {
        self.reads.entry(key.to_owned()).or_insert(found);
    }

    /// Records the first read of all keys. Keys that were recorded before keep
    /// their value.
    pub fn record_snapshot(&mut self, found: impl IntoIterator<Item = (String, Entry)>) {
        for (key, entry) in found {
            self.reads.entry(key).or_insert(Some(entry));
        }
        self.read_all = true;
    }

    /// Returns the value that this attempt sees under a key. The key has been
    /// recorded if [`Journal::needs_read`] says so.
    pub fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let read =
            || self.reads.get(key).and_then(Option::as_ref).map(|entry| entry.value.as_str());
        match self.writes.get(key) {
            Some(Write::Set(value)) => Ok(Some(value.clone())),
            Some(Write::Remove) => Ok(None),
            Some(Write::Increment(delta)) => add(key, read(), *delta).map(Some),
            None => Ok(read().map(str::to_owned)),
        }
    }

    /// Returns all keys that this attempt sees, in order. All keys have been
    /// recorded.
    pub fn keys(&self) -> Vec<String> {
        let read = self.reads.iter().filter(|(_, entry)| entry.is_some()).map(|(key, _)| key);
        let written = self.writes.iter().filter(|(_, write)| **write != Write::Remove);
        let mut keys: Vec<_> = read
            .chain(written.map(|(key, _)| key))
            .filter(|key| self.writes.get(*key) != Some(&Write::Remove))
            .cloned()
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Records that a key is set.
    pub fn set(&mut self, key: &str, value: String) -> Result<(), StoreError> {
        check_key(key)?;
        self.writes.insert(key.to_owned(), Write::Set(value));
        Ok(())
    }

    /// Records that a key is removed.
    pub fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        self.writes.insert(key.to_owned(), Write::Remove);
        Ok(())
    }

    /// Records an increment of a key.
    pub fn increment(&mut self, key: &str, delta: i64) -> Result<(), StoreError> {
        check_key(key)?;
        let write = match self.writes.get(key) {
            None => Write::Increment(delta),
            Some(Write::Increment(before)) => Write::Increment(
                before.checked_add(delta).ok_or_else(|| StoreError::Overflow(key.to_owned()))?,
            ),
            Some(Write::Set(value)) => Write::Set(add(key, Some(value), delta)?),
            Some(Write::Remove) => Write::Set(add(key, None, delta)?),
        };
        self.writes.insert(key.to_owned(), write);
        Ok(())
    }

    /// Returns the bytes that the writes set, keys and values.
    pub fn written_bytes(&self) -> u64 {
        let bytes = |(key, write): (&String, &Write)| {
            key.len() + if let Write::Set(value) = write { value.len() } else { 0 }
        };
        self.writes.iter().map(bytes).sum::<usize>() as u64
    }

    /// Returns the number of keys that are written.
    pub fn written_keys(&self) -> usize {
        self.writes.len()
    }

    /// Iterates over the net operations, one per key, in the order of the keys.
    pub fn writes(&self) -> impl Iterator<Item = (&str, &Write)> {
        self.writes.iter().map(|(key, write)| (key.as_str(), write))
    }

    /// Returns the bytes of all keys and values that are written.
    pub fn bytes(&self) -> usize {
        let value = |write: &Write| match write {
            Write::Set(value) => value.len(),
            Write::Remove | Write::Increment(_) => 0,
        };
        self.writes.iter().map(|(key, write)| key.len() + value(write)).sum()
    }

    /// Returns whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Returns whether a write of `key` depends on an outdated read, given the
    /// `current` value of the key. Increments depend on no read.
    pub fn conflicts(&self, key: &str, current: Option<&Entry>) -> bool {
        if matches!(self.writes.get(key), None | Some(Write::Increment(_))) {
            return false;
        }
        match self.reads.get(key) {
            Some(read) => read.as_ref().map(|e| e.version) != current.map(|e| e.version),
            None => self.read_all && current.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str, version: i64) -> Option<Entry> {
        Some(Entry { value: value.into(), version })
    }

    #[test]
    fn a_state_reads_its_own_writes() {
        let mut journal = Journal::default();
        assert!(journal.needs_read("a"));
        journal.record_read("a", entry("5", 1));
        journal.increment("a", 2).unwrap();
        assert_eq!(journal.get("a"), Ok(Some("7".into())));
        journal.remove("a").unwrap();
        assert_eq!(journal.get("a"), Ok(None));
        journal.increment("a", 1).unwrap();
        assert_eq!(journal.writes().collect::<Vec<_>>(), [("a", &Write::Set("1".into()))]);
    }

    #[test]
    fn the_first_read_holds() {
        let mut journal = Journal::default();
        journal.record_read("a", None);
        journal.record_snapshot([("a".to_owned(), Entry { value: "late".into(), version: 9 })]);
        assert_eq!(journal.get("a"), Ok(None));
        assert_eq!(journal.keys(), Vec::<String>::new());
    }

    #[test]
    fn only_writes_of_read_keys_conflict() {
        let now = entry("x", 2);
        let mut unread = Journal::default();
        unread.set("a", "1".into()).unwrap();
        assert!(!unread.conflicts("a", now.as_ref()));
        let mut read = Journal::default();
        read.record_read("a", entry("x", 1));
        assert!(!read.conflicts("a", now.as_ref()), "it writes nothing");
        read.increment("a", 1).unwrap();
        assert!(!read.conflicts("a", now.as_ref()), "increments merge");
        read.set("a", "1".into()).unwrap();
        assert!(read.conflicts("a", now.as_ref()));
        assert!(!read.conflicts("a", entry("y", 1).as_ref()));
        let mut listed = Journal::default();
        listed.record_snapshot([]);
        listed.set("a", "1".into()).unwrap();
        assert!(listed.conflicts("a", now.as_ref()), "its absence was read");
    }

    #[test]
    fn bad_keys_and_numbers_are_refused() {
        let mut journal = Journal::default();
        for key in ["", "a.b", "a\0", &"k".repeat(MAX_KEY_BYTES + 1)] {
            assert!(matches!(journal.set(key, "1".into()), Err(StoreError::BadKey(_))), "{key:?}");
        }
        journal.set("word", "one".into()).unwrap();
        assert!(matches!(journal.increment("word", 1), Err(StoreError::NotANumber { .. })));
        journal.increment("big", i64::MAX).unwrap();
        assert!(matches!(journal.increment("big", 1), Err(StoreError::Overflow(_))));
        assert_eq!(
            add("big", Some("9223372036854775807"), 1),
            Err(StoreError::Overflow("big".into()))
        );
    }
}
