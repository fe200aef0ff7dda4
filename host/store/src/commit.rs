//! One transaction of the street: every member in its turn, then what their
//! counts bring about, then the claim. Nothing is decided here that the domain
//! decides; this applies it, guarded by the fence.

mod claim;
mod finish;
mod retry;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Ids, Millis, RunKey, SessionId, StateId};
use exosphere_domain::plan::Deltas;
use exosphere_domain::state::{Claim, Claimed};
use exosphere_domain::state::{Counter, Counts, NewState, RunStatus, Tries};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::batch::{Answer, Batch, Committed, Leased, Member, NewRun, RunInfo, Touched, Want};
use crate::entries::{Entries, StoreLimits};
use crate::error::StoreError;
use crate::rows::{encode_refs, encode_scopes};
use crate::sql;
use crate::tally::Tally;

/// Applies a batch.
pub(crate) fn commit(
    connection: &mut Connection,
    ids: &impl Ids,
    batch: Batch,
) -> Result<Committed, StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut street = Street {
        tx: &tx,
        ids,
        now: batch.now,
        session: batch.session,
        births: if let Want::Births(most) = batch.want { most } else { 0 },
        limits: StoreLimits { keys: batch.store_limits.0, bytes: batch.store_limits.1 },
        runs: BTreeMap::new(),
        counts: BTreeMap::new(),
        drained: Vec::new(),
        done: Committed::default(),
    };
    for member in &batch.members[batch.range] {
        let answer = street.member(member)?;
        street.done.answers.push(answer);
    }
    street.settle()?;
    street.save()?;
    if let Want::Claims(most) = batch.want {
        street.claim(most)?;
    }
    let done = street.done;
    tx.commit()?;
    Ok(done)
}

/// A transaction under way.
struct Street<'a, I> {
    tx: &'a Transaction<'a>,
    ids: &'a I,
    now: Millis,
    session: SessionId,
    /// So many states may still be born claimed.
    births: u32,
    limits: StoreLimits,
    runs: BTreeMap<RunKey, Touching>,
    /// What is to be counted in unites that were there before.
    counts: BTreeMap<StateId, (RunKey, Counts)>,
    /// Unites that began with nothing open.
    drained: Vec<Drained>,
    done: Committed,
}

/// A run in this transaction.
struct Touching {
    tally: Tally,
    entries: Entries,
    /// Known once a member brought it along.
    info: Option<Arc<RunInfo>>,
}

/// A unite with nothing open below it.
struct Drained {
    run: RunKey,
    state: StateId,
    counts: Counts,
    branches: u32,
}

impl<'a, I: Ids> Street<'a, I> {
    fn member(&mut self, member: &Member) -> Result<Answer, StoreError> {
        match member {
            Member::Start(new) => self.start(new),
            Member::Finish(finished) => self.finish(finished),
            Member::Cancel(run) => self.cancel(run),
            Member::Sweep { run, after, most } => self.sweep(run, after.as_deref(), *most),
            Member::Retry { run, state } => self.retry(run, *state),
        }
    }

    /// The run in this transaction; nothing if there is no such run.
    fn touch(
        &mut self,
        run: RunKey,
        info: Option<&Arc<RunInfo>>,
    ) -> Result<Option<&mut Touching>, StoreError> {
        if !self.runs.contains_key(&run) {
            let Some(tally) = Tally::load(self.tx, run)? else { return Ok(None) };
            self.runs.insert(run, Touching { tally, entries: Entries::default(), info: None });
        }
        let mut touching = self.runs.get_mut(&run);
        if let Some(touching) = &mut touching
            && touching.info.is_none()
        {
            touching.info = info.cloned();
        }
        Ok(touching)
    }

    /// A run that [`Self::touch`] has found before.
    fn run(&mut self, run: RunKey) -> Result<&mut Touching, StoreError> {
        let missing = || StoreError::Data(format!("table run has no row {}", run.0));
        self.runs.get_mut(&run).ok_or_else(missing)
    }

    /// The graph of a run that a member brought along.
    fn graph(&mut self, run: RunKey) -> Result<Arc<Graph>, StoreError> {
        let info = self.run(run)?.info.as_ref();
        let missing = || StoreError::Data(format!("run {} came without its graph", run.0));
        info.map(|info| info.graph.clone()).ok_or_else(missing)
    }

    fn start(&mut self, new: &NewRun) -> Result<Answer, StoreError> {
        let info = &new.info;
        self.tx.prepare_cached(sql::NEW_RUN)?.execute(params![
            info.key.0,
            info.id.to_string(),
            info.namespace.as_str(),
            new.revision,
            &*info.inputs,
            self.now,
        ])?;
        let Some(_) = self.touch(info.key, Some(info))? else {
            return Ok(Answer::Refused("the revision of this graph is gone".into()));
        };
        let mut journal = exosphere_domain::journal::Journal::default();
        for (key, value) in &new.store {
            if let Err(error) = journal.set(key, value.clone()) {
                return Err(StoreError::Data(error.to_string()));
            }
        }
        let (tx, limits) = (self.tx, self.limits);
        let run = self.run(info.key)?;
        match run.entries.plan(tx, info.key, &run.tally, &journal, limits) {
            Ok(plan) => run.entries.apply(&mut run.tally, plan),
            Err(crate::entries::Clash::Error(error)) => return Err(error),
            Err(_) => return Err(StoreError::Data("the store values break its limits".into())),
        }
        // The row began with one open state, so that its CHECK held.
        run.tally.open = new.counts.open;
        self.create(info.key, &new.root, Vec::new())?;
        Ok(Answer::Done)
    }

    /// Creates an ordinary state that is due now: claimed at once while there
    /// is room for births.
    fn create(
        &mut self,
        run: RunKey,
        new: &NewState,
        known: Vec<(exosphere_domain::state::Ref, Arc<str>)>,
    ) -> Result<(), StoreError> {
        let born = self.births > 0;
        self.births -= u32::from(born);
        let fixed = self.insert(run, new, if born { "QUEUED" } else { "CREATED" })?;
        if !born {
            self.done.more = true;
            return Ok(());
        }
        let state = Claimed {
            id: new.id,
            run,
            place: new.place.clone(),
            tries: Tries { attempt: 1, ..Tries::default() },
            claim: Claim { session: self.session, fence: exosphere_domain::ids::Fence(1) },
        };
        self.done.leased.push(Leased { state, fixed, known });
        Ok(())
    }

    /// Writes the row of a new state. Returns the store values that its inputs
    /// name, as they are now.
    fn insert(
        &mut self,
        run: RunKey,
        new: &NewState,
        status: &str,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let fixed = self.fix(run, new)?;
        let text = match fixed.is_empty() {
            true => None,
            false => Some(to_json(&fixed)?),
        };
        let held = status == "QUEUED";
        self.tx.prepare_cached(sql::NEW_STATE)?.execute(params![
            new.id.0,
            run.0,
            new.place.node.0,
            new.place.path.as_str(),
            status,
            self.now,
            held.then_some(self.session.0),
            i64::from(held),
            encode_refs(&new.place.refs),
            encode_scopes(&new.place.scopes),
            text,
        ])?;
        self.run(run)?.tally.states += 1;
        Ok(fixed)
    }

    /// The values of the store keys that a new state's inputs name.
    fn fix(&mut self, run: RunKey, new: &NewState) -> Result<BTreeMap<String, String>, StoreError> {
        let graph = self.graph(run)?;
        let tx = self.tx;
        let mut fixed = BTreeMap::new();
        for key in graph.node(new.place.node).store_keys() {
            if let Some(entry) = self.run(run)?.entries.get(tx, run, key)? {
                fixed.insert(key.clone(), entry.value.clone());
            }
        }
        Ok(fixed)
    }

    /// Notes what is to be counted in a run and the unites of it.
    fn count(&mut self, run: RunKey, deltas: &Deltas) -> Result<(), StoreError> {
        for (counter, delta) in deltas {
            match counter {
                Counter::Run => self.run(run)?.tally.count(*delta),
                Counter::Unite(unite) => {
                    self.counts.entry(*unite).or_insert((run, Counts::default())).1 += *delta;
                }
            }
        }
        Ok(())
    }

    fn cancel(&mut self, run: &Arc<RunInfo>) -> Result<Answer, StoreError> {
        let now = self.now;
        let Some(touching) = self.touch(run.key, Some(run))? else { return Ok(Answer::Missing) };
        let tally = &mut touching.tally;
        if !tally.is_live() {
            let words = format!("the run is over already: it is {}", tally.status);
            return Ok(Answer::Refused(words));
        }
        tally.status = RunStatus::Cancelled;
        tally.ended_at = Some(now);
        Ok(Answer::Done)
    }

    /// Ends some of the states of a cancelled run. Bounded, so that a run of
    /// any size holds up nobody.
    fn sweep(
        &mut self,
        run: &Arc<RunInfo>,
        after: Option<&str>,
        most: u32,
    ) -> Result<Answer, StoreError> {
        let now = self.now;
        let from = after.unwrap_or_default().to_owned();
        let rows: Vec<(i64, String, String)> = self
            .tx
            .prepare_cached(sql::CANCEL_SOME)?
            .query_map(params![run.key.0, from, most], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut cancelled = 0;
        for (id, _, status) in &rows {
            if !crate::rows::status(status, StateId(*id))?.is_terminal() {
                self.tx.prepare_cached(sql::CANCEL_STATE)?.execute([*id, now])?;
                cancelled += 1;
            }
        }
        let Some(touching) = self.touch(run.key, Some(run))? else { return Ok(Answer::Missing) };
        touching.tally.cancelled += cancelled;
        match rows.last() {
            Some((_, path, _)) if rows.len() as u32 == most && most > 1 => {
                Ok(Answer::More(path.clone()))
            }
            _ => {
                touching.tally.open = 0;
                Ok(Answer::Done)
            }
        }
    }

    /// Writes the rows of the runs, each with its next version.
    fn save(&mut self) -> Result<(), StoreError> {
        for (key, mut touching) in std::mem::take(&mut self.runs) {
            touching.tally.version += 1;
            touching.tally.settle(self.now);
            let over = matches!(touching.tally.status, RunStatus::Success | RunStatus::Cancelled);
            let keeps = match &touching.info {
                Some(info) => info.graph.store().keep,
                None => false,
            };
            touching.entries.save(self.tx, key)?;
            if over && !keeps && touching.tally.store_keys > 0 {
                self.tx.prepare_cached(sql::CLEAR_ENTRIES)?.execute([key.0])?;
                touching.tally.store_keys = 0;
                touching.tally.store_bytes = 0;
            }
            touching.tally.save(self.tx, key)?;
            let (version, status) = (touching.tally.version, touching.tally.status);
            self.done.touched.push(Touched { run: key, version, status });
        }
        Ok(())
    }
}

/// JSON text of a value of ours.
fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Data(error.to_string()))
}
