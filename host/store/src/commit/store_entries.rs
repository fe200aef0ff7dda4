//! A cache of the run's store within one commit: each key is read once and written once, however
//! many states wrote it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::StoreError;
use crate::run_row::RunRow;
use crate::sql;
use crate::text::{Cells, Rows, Tx};
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::RunKey;
use exosphere_domain::journal::{Entry, Journal, Write, add};
use exosphere_domain::limits::{Limit, Limits};

/// The reason why writes to the store cannot be committed.
pub(crate) enum Clash {
    /// The journal rests on a read that no longer holds.
    Conflict,
    /// The writes break a limit or a rule of the store.
    Broken(Failure),
}

/// The cached store entries of one run.
#[derive(Default)]
pub(crate) struct Entries {
    known: BTreeMap<String, Slot>,
}

struct Slot {
    entry: Option<Entry>,
    dirty: bool,
}

/// The planned effect of a journal: the new entries and the resulting sizes.
pub(crate) struct Plan {
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
    let entry = |row: &dyn Cells| {
        let entry = Entry { value: row.text(2)?, version: row.int(3)? };
        Ok((RunKey(row.int(0)?), row.text(1)?, entry))
    };
    let rows = Rows::default()
        .ints(keys.iter().map(|(run, _)| run.0))
        .texts(keys.iter().map(|(_, key)| *key));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    tx.query_each(sql::ENTRY_OF, &rows, entry).await
}

impl Entries {
    /// Caches an entry as the database has it.
    pub(crate) fn know(&mut self, key: String, entry: Entry) {
        self.known.insert(key, Slot { entry: Some(entry), dirty: false });
    }

    /// Returns the current entry of a key. The commit has read all keys that it uses before.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.known.get(key).and_then(|slot| slot.entry.as_ref())
    }

    /// Plans the writes of `journal`, or returns why they cannot be committed.
    pub(crate) fn plan(
        &self,
        tally: &RunRow,
        journal: &Journal,
        limits: &Limits,
    ) -> Result<Plan, Clash> {
        let mut plan = Plan {
            entries: Vec::new(),
            keys: tally.store_keys,
            bytes: tally.store_bytes,
            version: tally.store_version,
        };
        for (key, write) in journal.writes() {
            let current = self.get(key);
            if journal.conflicts(key, current) {
                return Err(Clash::Conflict);
            }
            let value = match write {
                Write::Set(value) => Some(value.clone()),
                Write::Remove => None,
                Write::Increment(by) => {
                    let sum = add(key, current.map(|entry| entry.value.as_str()), *by);
                    Some(sum.map_err(|error| {
                        Clash::Broken(Failure::new(FailureKind::Store, error.to_string()))
                    })?)
                }
            };
            let weight = |value: &str| (key.len() + value.len()) as i64;
            plan.keys += i64::from(value.is_some()) - i64::from(current.is_some());
            plan.bytes += value.as_deref().map_or(0, weight)
                - current.map_or(0, |entry| weight(&entry.value));
            plan.version += 1;
            let entry = value.map(|value| Entry { value, version: plan.version });
            plan.entries.push((key.to_owned(), entry));
        }
        check(&plan, tally, limits).map_err(Clash::Broken)?;
        Ok(plan)
    }

    /// Applies a plan to the cached entries and the run row.
    pub(crate) fn apply(&mut self, tally: &mut RunRow, plan: Plan) {
        tally.store_keys = plan.keys;
        tally.store_bytes = plan.bytes;
        tally.store_version = plan.version;
        for (key, entry) in plan.entries {
            self.known.insert(key, Slot { entry, dirty: true });
        }
    }

    /// Returns the changed entries: each key with its new entry, or `None` if it was removed.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&str, Option<&Entry>)> {
        let dirty = self.known.iter().filter(|(_, slot)| slot.dirty);
        dirty.map(|(key, slot)| (key.as_str(), slot.entry.as_ref()))
    }
}

/// Writes the changed entries of several runs.
pub(crate) async fn save(tx: &mut impl Tx, runs: &[(RunKey, &Entries)]) -> Result<(), StoreError> {
    let changed = runs
        .iter()
        .flat_map(|(run, entries)| entries.changed().map(move |(key, entry)| (run.0, key, entry)));
    let (set, removed): (Vec<_>, Vec<_>) = changed.partition(|(.., entry)| entry.is_some());
    if !set.is_empty() {
        let entries = || set.iter().filter_map(|(.., entry)| *entry);
        let rows = Rows::default()
            .ints(set.iter().map(|(run, ..)| *run))
            .texts(set.iter().map(|(_, key, _)| *key))
            .texts(entries().map(|entry| entry.value.as_str()))
            .ints(entries().map(|entry| entry.version));
        tx.put_off(sql::SET_ENTRY, &rows, None).await?;
    }
    if !removed.is_empty() {
        let rows = Rows::default()
            .ints(removed.iter().map(|(run, ..)| *run))
            .texts(removed.iter().map(|(_, key, _)| *key));
        tx.put_off(sql::REMOVE_ENTRY, &rows, None).await?;
    }
    Ok(())
}

/// Checks the limits of the store. It may stay over a limit that was lowered, but not grow over
/// one.
fn check(plan: &Plan, tally: &RunRow, limits: &Limits) -> Result<(), Failure> {
    let grows = [
        (plan.keys, tally.store_keys, Limit::StoreKeys),
        (plan.bytes, tally.store_bytes, Limit::StoreBytes),
    ];
    for (will_be, is, limit) in grows {
        let most = i64::try_from(limits.get(limit)).unwrap_or(i64::MAX);
        if will_be > most && will_be > is {
            return Err(Failure { kind: FailureKind::Store, ..limits.reached(limit) });
        }
    }
    Ok(())
}
