//! The store of a run within one commit: what is asked for is read once, what
//! is written goes out once, however many states wrote it.

use std::collections::BTreeMap;

use exosphere_domain::ids::RunKey;
use exosphere_domain::journal::{Entry, Journal, Write, add};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::StoreError;
use crate::sql;
use crate::tally::Tally;

/// What a run's store may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreLimits {
    pub keys: u32,
    pub bytes: u64,
}

/// Why writes cannot be committed.
pub(crate) enum Clash {
    /// They rest on a read that no longer holds.
    Conflict,
    /// They break a rule of the store: words for the failure.
    Broken(String),
    /// The database.
    Error(StoreError),
}

impl<E: Into<StoreError>> From<E> for Clash {
    fn from(error: E) -> Self {
        Clash::Error(error.into())
    }
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

impl Entries {
    pub(crate) fn get(
        &mut self,
        tx: &Transaction<'_>,
        run: RunKey,
        key: &str,
    ) -> Result<Option<&Entry>, StoreError> {
        if !self.known.contains_key(key) {
            let entry = tx
                .prepare_cached(sql::ENTRY)?
                .query_row(params![run.0, key], |row| {
                    Ok(Entry { value: row.get(0)?, version: row.get(1)? })
                })
                .optional()?;
            self.known.insert(key.to_owned(), Slot { entry, dirty: false });
        }
        Ok(self.known.get(key).and_then(|slot| slot.entry.as_ref()))
    }

    /// What the writes of `journal` come to, or why they cannot be.
    pub(crate) fn plan(
        &mut self,
        tx: &Transaction<'_>,
        run: RunKey,
        tally: &Tally,
        journal: &Journal,
        limits: StoreLimits,
    ) -> Result<Plan, Clash> {
        let mut plan = Plan {
            entries: Vec::new(),
            keys: tally.store_keys,
            bytes: tally.store_bytes,
            version: tally.store_version,
        };
        for (key, write) in journal.writes() {
            let current = self.get(tx, run, key)?;
            if journal.conflicts(key, current) {
                return Err(Clash::Conflict);
            }
            let value = match write {
                Write::Set(value) => Some(value.clone()),
                Write::Remove => None,
                Write::Increment(by) => {
                    let sum = add(key, current.map(|entry| entry.value.as_str()), *by);
                    Some(sum.map_err(|error| Clash::Broken(error.to_string()))?)
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
    pub(crate) fn apply(&mut self, tally: &mut Tally, plan: Plan) {
        tally.store_keys = plan.keys;
        tally.store_bytes = plan.bytes;
        tally.store_version = plan.version;
        for (key, entry) in plan.entries {
            self.known.insert(key, Slot { entry, dirty: true });
        }
    }

    /// Writes what has changed.
    pub(crate) fn save(self, tx: &Transaction<'_>, run: RunKey) -> Result<(), StoreError> {
        for (key, slot) in self.known.into_iter().filter(|(_, slot)| slot.dirty) {
            match slot.entry {
                Some(entry) => tx.prepare_cached(sql::SET_ENTRY)?.execute(params![
                    run.0,
                    key,
                    entry.value,
                    entry.version
                ])?,
                None => tx.prepare_cached(sql::REMOVE_ENTRY)?.execute(params![run.0, key])?,
            };
        }
        Ok(())
    }
}

/// A store may stay over a limit that was lowered, but not grow over one.
fn check(plan: &Plan, tally: &Tally, limits: StoreLimits) -> Result<(), String> {
    let keys = i64::from(limits.keys);
    if plan.keys > keys && plan.keys > tally.store_keys {
        return Err(format!(
            "the store of this run would hold {} keys; its limit is {keys}",
            plan.keys
        ));
    }
    let bytes = i64::try_from(limits.bytes).unwrap_or(i64::MAX);
    if plan.bytes > bytes && plan.bytes > tally.store_bytes {
        return Err(format!(
            "the store of this run would hold {} bytes; its limit is {bytes}",
            plan.bytes
        ));
    }
    Ok(())
}
