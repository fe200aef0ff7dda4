//! A cache of the run's store within one commit: each key is read once and written once, however
//! many states wrote it.

use std::collections::{BTreeMap, BTreeSet};

use super::run_row::RunRow;
use crate::dialect::{ParamRows, PendingWrites, Row, Tx};
use crate::error::StoreError;
use crate::sql;
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::RunKey;
use exosphere_domain::journal::{Entry, Journal, Write, add};
use exosphere_domain::limits::{Limit, Limits};

/// The reason why writes to the store cannot be committed.
pub(crate) enum WriteConflict {
    /// The journal rests on a read that no longer holds.
    Conflict,
    /// The writes break a limit or a rule of the store.
    Broken(Failure),
}

/// The cached store entries of one run.
#[derive(Default)]
pub(crate) struct Entries {
    cached: BTreeMap<String, CachedEntry>,
}

struct CachedEntry {
    entry: Option<Entry>,
    dirty: bool,
}

/// The planned effect of a journal: the new entries and the resulting sizes.
pub(crate) struct PlannedWrites {
    entries: Vec<(String, Option<Entry>)>,
    keys: i64,
    bytes: i64,
    version: i64,
}

/// Reads the existing entries among these keys.
pub(crate) async fn read(
    tx: &mut impl Tx,
    keys: &BTreeSet<(RunKey, &str)>,
) -> Result<Vec<(RunKey, String, Entry)>, StoreError> {
    let entry = |row: &dyn Row| {
        let entry = Entry { value: row.text(2)?, version: row.int(3)? };
        Ok((RunKey(row.int(0)?), row.text(1)?, entry))
    };
    let rows = ParamRows::default()
        .ints(keys.iter().map(|(run, _)| run.0))
        .texts(keys.iter().map(|(_, key)| *key));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    tx.query_each(sql::ENTRY_OF, &rows, entry).await
}

impl Entries {
    /// Caches an entry as the database has it.
    pub(crate) fn remember(&mut self, key: String, entry: Entry) {
        self.cached.insert(key, CachedEntry { entry: Some(entry), dirty: false });
    }

    /// Returns the current entry of a key. The commit has already read every key that it uses.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.cached.get(key).and_then(|cached| cached.entry.as_ref())
    }

    /// Plans the writes of `journal`, or returns why they cannot be committed.
    pub(crate) fn plan(
        &self,
        row: &RunRow,
        journal: &Journal,
        limits: &Limits,
    ) -> Result<PlannedWrites, WriteConflict> {
        let mut plan = PlannedWrites {
            entries: Vec::new(),
            keys: row.store_keys,
            bytes: row.store_bytes,
            version: row.store_version,
        };
        for (key, write) in journal.writes() {
            let current = self.get(key);
            if journal.conflicts(key, current) {
                return Err(WriteConflict::Conflict);
            }
            let value = match write {
                Write::Set(value) => Some(value.clone()),
                Write::Remove => None,
                Write::Increment(delta) => {
                    let sum = add(key, current.map(|entry| entry.value.as_str()), *delta);
                    Some(sum.map_err(|error| {
                        WriteConflict::Broken(Failure::new(FailureKind::Store, error.to_string()))
                    })?)
                }
            };
            let entry_bytes = |value: &str| (key.len() + value.len()) as i64;
            plan.keys += i64::from(value.is_some()) - i64::from(current.is_some());
            plan.bytes += value.as_deref().map_or(0, entry_bytes)
                - current.map_or(0, |entry| entry_bytes(&entry.value));
            plan.version += 1;
            let entry = value.map(|value| Entry { value, version: plan.version });
            plan.entries.push((key.to_owned(), entry));
        }
        check_limits(&plan, row, limits).map_err(WriteConflict::Broken)?;
        Ok(plan)
    }

    /// Applies a plan to the cached entries and the run row.
    pub(crate) fn apply(&mut self, row: &mut RunRow, plan: PlannedWrites) {
        row.store_keys = plan.keys;
        row.store_bytes = plan.bytes;
        row.store_version = plan.version;
        for (key, entry) in plan.entries {
            self.cached.insert(key, CachedEntry { entry, dirty: true });
        }
    }

    /// Returns the changed entries: each key with its new entry, or `None` if it was removed.
    fn into_changed(self) -> impl Iterator<Item = (String, Option<Entry>)> {
        let dirty = self.cached.into_iter().filter(|(_, cached)| cached.dirty);
        dirty.map(|(key, cached)| (key, cached.entry))
    }
}

/// Adds the changed entries of several runs to the pending writes.
pub(crate) fn save(pending: &mut PendingWrites<'_>, runs: Vec<(RunKey, Entries)>) {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (run, entries) in runs {
        for (key, entry) in entries.into_changed() {
            match entry {
                Some(entry) => set.push((run.0, key, entry)),
                None => removed.push((run.0, key)),
            }
        }
    }
    let removed_runs: Vec<_> = removed.iter().map(|(run, _)| *run).collect();
    let removed_keys = removed.into_iter().map(|(_, key)| key);
    let (runs, versions): (Vec<_>, Vec<_>) =
        set.iter().map(|(run, _, entry)| (*run, entry.version)).unzip();
    let (keys, values): (Vec<_>, Vec<_>) =
        set.into_iter().map(|(_, key, entry)| (key, entry.value)).unzip();
    let set = ParamRows::default().ints(runs).texts(keys).texts(values).ints(versions);
    pending.add(sql::SET_ENTRY, set);
    pending.add(sql::REMOVE_ENTRY, ParamRows::default().ints(removed_runs).texts(removed_keys));
}

/// Checks the limits of the store. It may stay over a limit that was lowered, but not grow over
/// one.
fn check_limits(plan: &PlannedWrites, row: &RunRow, limits: &Limits) -> Result<(), Failure> {
    let growth = [
        (plan.keys, row.store_keys, Limit::StoreKeys),
        (plan.bytes, row.store_bytes, Limit::StoreBytes),
    ];
    for (will_be, is, limit) in growth {
        let max = i64::try_from(limits.get(limit)).unwrap_or(i64::MAX);
        if will_be > max && will_be > is {
            return Err(Failure { kind: FailureKind::Store, ..limits.reached(limit) });
        }
    }
    Ok(())
}
