//! The store of a run within one commit: what is asked for is read once, what
//! is written goes out once, however many states wrote it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::StoreError;
use crate::run_row::RunRow;
use crate::sql;
use crate::text::{Cells, Rows, Tx};
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::RunKey;
use exosphere_domain::journal::{Entry, Journal, Write, add};
use exosphere_domain::limits::{Limit, Limits};

/// Why writes cannot be committed.
pub(crate) enum Clash {
    /// They rest on a read that no longer holds.
    Conflict,
    /// They break a rule of the store.
    Broken(Failure),
}

/// The entries of one run that a commit has looked at.
#[derive(Default)]
pub(crate) struct Entries {
    known: BTreeMap<String, Slot>,
}

struct Slot {
    entry: Option<Entry>,
    dirty: bool,
}

/// What a journal's writes come to: the new entries, and the sizes then.
pub(crate) struct Plan {
    entries: Vec<(String, Option<Entry>)>,
    keys: i64,
    bytes: i64,
    version: i64,
}

/// Reads keys of runs, those that there are.
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
    /// Takes note of a key as it stands in the database.
    pub(crate) fn know(&mut self, key: String, entry: Entry) {
        self.known.insert(key, Slot { entry: Some(entry), dirty: false });
    }

    /// A key as it is now. What a commit asks for was read before.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.known.get(key).and_then(|slot| slot.entry.as_ref())
    }

    /// What the writes of `journal` come to, or why they cannot be.
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

    /// Does what was planned.
    pub(crate) fn apply(&mut self, tally: &mut RunRow, plan: Plan) {
        tally.store_keys = plan.keys;
        tally.store_bytes = plan.bytes;
        tally.store_version = plan.version;
        for (key, entry) in plan.entries {
            self.known.insert(key, Slot { entry, dirty: true });
        }
    }

    /// What has changed: each key with its new entry, or none.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&str, Option<&Entry>)> {
        let dirty = self.known.iter().filter(|(_, slot)| slot.dirty);
        dirty.map(|(key, slot)| (key.as_str(), slot.entry.as_ref()))
    }
}

/// Writes what has changed in some runs.
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

/// A store may stay over a limit that was lowered, but not grow over one.
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
