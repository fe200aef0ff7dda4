//! One commit, in phases. It *loads* the affected rows, *decides* each operation in memory, and
//! *writes* the results with one statement per table. Then it executes the *control* operations,
//! *closes* the unites that have no open members left, *saves* the runs' rows, and *claims* due
//! states. The domain makes the decisions; this module applies them, guarded by the fence.
//!
//! Writes are collected in [`PendingWrites`]. A phase flushes them before it reads or changes
//! what they may touch.
//!
//! Many hosts commit concurrently on Postgres. A transaction that writes below a run locks the
//! run's row first: new runs before all others, then in the order of their numbers. So
//! transactions of one run follow each other, and none wait for each other in a cycle. Claims
//! need no such lock: they skip locked rows, and come last.

pub(crate) mod batch;
pub(crate) mod run_row;
pub(crate) mod report;
pub(crate) mod commit_counts;
mod store_entries;
mod rows;
mod start;
mod finish;
mod staging;
mod control;
pub(crate) mod deadlines;
mod sweeps;
mod manual_retry;
pub(crate) mod bulk;
mod unites;
mod claim;
mod claim_shares;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use exosphere_domain::deadline::DeadlineKind;
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, Millis, NamespaceKey, RunKey, SessionId, StateId};
use exosphere_domain::plan::{Deltas, Transition};
use exosphere_domain::state::{Claim, Claimed, Counter, Counts, RunStatus};

use crate::dialect::{ParamRows, PendingWrites, Row, Tx, params};
use crate::error::StoreError;
use crate::sql;
use crate::types::{RunInfo, RunUpdate};
use batch::{Batch, ClaimMode, ClaimShares, Committed, Finished, Operation, Reply, StagedQueues};
use commit_counts::CommitCounts;
use report::Reporter;
use rows::BatchRows;
use run_row::{LifeCycle, RunRow};
use staging::StagedRow;
use store_entries::Entries;

/// Applies a batch, phase by phase.
pub(crate) async fn commit(tx: &mut impl Tx, batch: &Batch) -> Result<Committed, StoreError> {
    let operations = &batch.operations[batch.range.clone()];
    let mut commit = CommitTx::new(tx.now(), batch);
    commit.insert_runs(tx, operations).await?;
    commit.load(tx, operations).await?;
    commit.decide_all(operations)?;
    let (rows, mut pending) = (std::mem::take(&mut commit.rows), PendingWrites::default());
    rows.write(tx, &mut pending, commit.now).await?;
    commit.add_deadlines(&mut pending, operations);
    commit.add_paused_runs(&mut pending, operations);
    commit.control_all(tx, &mut pending, operations).await?;
    commit.close_unites(tx, &mut pending).await?;
    commit.save(tx, &mut pending).await?;
    if let ClaimMode::AllDue(max_claims) = batch.claim_mode {
        commit.claim(tx, max_claims).await?;
    }
    commit.done.staged_queues = commit.staged_queues;
    commit.done.report = commit.reporter.into_report();
    Ok(commit.done)
}

/// A commit under way.
struct CommitTx<'b> {
    now: Millis,
    session: SessionId,
    /// The number of new states that this commit may still claim as it creates them.
    new_state_share: u32,
    /// The remaining claim shares.
    shares: ClaimShares,
    /// Number of the claim, which selects the namespace that is served first.
    rotation: usize,
    cursors: BTreeMap<NamespaceKey, RunKey>,
    /// The known queues of staged children.
    staged_queues: StagedQueues,
    runs: BTreeMap<RunKey, LoadedRun>,
    /// Answers for new runs that were not inserted.
    existing_runs: BTreeMap<RunKey, Reply>,
    /// Executions whose claim is still valid, each once.
    held: HashSet<(StateId, Claim)>,
    /// Staged rows of the executions that this batch ends, stages or unstages.
    staged: HashMap<StateId, StagedRow>,
    rows: BatchRows<'b>,
    /// Count changes of unites that existed before this commit.
    counts: BTreeMap<StateId, (RunKey, Counts)>,
    /// New unites without open members.
    drained: Vec<DrainedUnite>,
    reporter: Reporter,
    done: Committed,
}

/// A run in this transaction.
struct LoadedRun {
    row: RunRow,
    entries: Entries,
    info: Arc<RunInfo>,
    /// The life cycle of the run before this commit.
    before: LifeCycle,
    /// Set if the run's row must be written.
    changed: bool,
    /// The deadline that the run misses in this commit.
    missed: Option<DeadlineKind>,
    commit_counts: CommitCounts,
}

/// A unite with no open members left.
struct DrainedUnite {
    run: RunKey,
    state: StateId,
    counts: Counts,
    branches: u32,
}

impl Operation {
    /// Returns the run of this operation.
    fn run(&self) -> &Arc<RunInfo> {
        match self {
            Operation::Start(new) => &new.info,
            Operation::Finish(finished) => &finished.run,
            Operation::Stage(stage) => &stage.run,
            Operation::Control(run, _) => run,
        }
    }
}

impl<'b> CommitTx<'b> {
    fn new(now: Millis, batch: &Batch) -> Self {
        let replies = vec![Reply::Missing; batch.range.len()];
        let mut operations = batch.operations[batch.range.clone()].iter();
        // A resumed run has its queues again.
        let staged_queues =
            if operations.any(|operation| matches!(operation, Operation::Control(..))) {
                StagedQueues::default()
            } else {
                batch.staged_queues.clone()
            };
        CommitTx {
            now,
            session: batch.session,
            new_state_share: if let ClaimMode::NewOnly(max_claims) = batch.claim_mode {
                max_claims
            } else {
                0
            },
            shares: batch.shares.clone(),
            rotation: batch.rotation,
            cursors: batch.cursors.clone(),
            staged_queues,
            runs: BTreeMap::new(),
            existing_runs: BTreeMap::new(),
            held: HashSet::new(),
            staged: HashMap::new(),
            rows: BatchRows::default(),
            counts: BTreeMap::new(),
            drained: Vec::new(),
            reporter: Reporter::new(batch.traces),
            done: Committed { now, replies, ..Committed::default() },
        }
    }

    /// Locks the runs' rows and loads all data for the decisions.
    async fn load(&mut self, tx: &mut impl Tx, operations: &[Operation]) -> Result<(), StoreError> {
        let infos: BTreeMap<RunKey, &Arc<RunInfo>> =
            operations.iter().map(|operation| (operation.run().key, operation.run())).collect();
        if infos.is_empty() {
            return Ok(());
        }
        for row in RunRow::load(tx, infos.keys().copied()).await? {
            let (run, before) = (row.id, row.life_cycle());
            let (entries, info) = (Entries::default(), infos[&run].clone());
            let (changed, missed, commit_counts) = (false, None, CommitCounts::default());
            self.runs.insert(
                run,
                LoadedRun { row, entries, info, before, changed, missed, commit_counts },
            );
        }
        let finished: Vec<&Finished> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Finish(finished) => Some(&**finished),
                _ => None,
            })
            .filter(|finished| self.is_live(finished.run.key))
            .collect();
        let stages = operations.iter().filter_map(|operation| match operation {
            Operation::Stage(stage) => Some(&stage.state),
            _ => None,
        });
        let claimed = finished.iter().map(|finished| &finished.state).chain(stages);
        self.held = still_held(tx, claimed).await?;
        self.load_staged(tx, operations).await?;
        let mut keys = BTreeSet::new();
        finished.iter().for_each(|finished| needed_keys(finished, &mut keys));
        for (run, key, entry) in store_entries::read(tx, &keys).await? {
            self.run(run)?.entries.remember(key, entry);
        }
        Ok(())
    }

    fn is_live(&self, run: RunKey) -> bool {
        self.runs.get(&run).is_some_and(|loaded| loaded.row.is_live())
    }

    /// Decides the starts, ends and pieces of ends in memory.
    fn decide_all(&mut self, operations: &'b [Operation]) -> Result<(), StoreError> {
        for (at, operation) in operations.iter().enumerate() {
            self.done.replies[at] = match operation {
                Operation::Start(new) => self.start(new)?,
                Operation::Finish(finished) => self.finish(finished)?,
                Operation::Stage(stage) => self.stage(stage)?,
                Operation::Control(..) => continue,
            };
        }
        Ok(())
    }

    /// Executes the control operations, after all writes of the others.
    async fn control_all(
        &mut self,
        tx: &mut impl Tx,
        pending: &mut PendingWrites<'_>,
        operations: &[Operation],
    ) -> Result<(), StoreError> {
        for (at, operation) in operations.iter().enumerate() {
            if let Operation::Control(run, control) = operation {
                tx.flush(pending).await?;
                self.done.replies[at] = self.control(tx, run, control).await?;
            }
        }
        Ok(())
    }

    /// Returns a loaded run.
    fn run(&mut self, run: RunKey) -> Result<&mut LoadedRun, StoreError> {
        let missing = || StoreError::Data(format!("table run has no row {}", run.0));
        self.runs.get_mut(&run).ok_or_else(missing)
    }

    /// Returns a loaded run and marks it as changed.
    fn change(&mut self, run: RunKey) -> Result<&mut LoadedRun, StoreError> {
        let loaded = self.run(run)?;
        loaded.changed = true;
        Ok(loaded)
    }

    fn graph(&mut self, run: RunKey) -> Result<Arc<Graph>, StoreError> {
        Ok(self.run(run)?.info.graph.clone())
    }

    /// Adds count changes to a run's row and to its unites.
    fn count(&mut self, run: RunKey, deltas: &Deltas) -> Result<(), StoreError> {
        for (counter, delta) in deltas {
            match counter {
                Counter::Run => self.change(run)?.row.count(*delta),
                Counter::Unite(unite) => {
                    self.counts.entry(*unite).or_insert((run, Counts::default())).1 += *delta;
                }
            }
        }
        Ok(())
    }

    /// Writes the changed run rows, each with its next version, and all pending writes.
    async fn save(
        &mut self,
        tx: &mut impl Tx,
        pending: &mut PendingWrites<'_>,
    ) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.runs).into_values().filter(|run| run.changed);
        // Rows whose life cycle changes, and the others.
        let (mut rows, mut progress, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut cleared = Vec::new();
        for mut run in changed {
            run.row.version += 1;
            run.row.update_status(self.now);
            // A pause does not outlive its run.
            run.row.paused &= run.row.is_live();
            let has_ended =
                run.before.status == RunStatus::Running && run.row.status != RunStatus::Running;
            if has_ended {
                self.reporter.add_run(&run);
            }
            let LoadedRun {
                mut row, entries: of_run, info, before, missed, mut commit_counts, ..
            } = run;
            let is_over = matches!(row.status, RunStatus::Success | RunStatus::Cancelled);
            if is_over && !info.graph.store().keep && row.store_keys > 0 {
                cleared.push(row.id);
                row.store_keys = 0;
                row.store_bytes = 0;
            }
            let RunRow { id: run, version, status, paused, .. } = row;
            let status_changed = (before.status, before.paused) != (status, paused);
            if has_ended {
                self.done.ended.push(row.view(&info, missed));
            }
            commit_counts.add_run(before.status, status, (row.created_at, row.ended_at));
            if !commit_counts.is_empty() {
                self.done.commit_counts.push((info, commit_counts));
            }
            let is_stopped = status == RunStatus::Cancelled || missed.is_some();
            let update = RunUpdate { run, version, status, paused, status_changed, is_stopped };
            self.done.run_updates.push(update);
            entries.push((run, of_run));
            if row.life_cycle() == before { progress.push(row) } else { rows.push(row) }
        }
        store_entries::save(pending, entries);
        if !cleared.is_empty() {
            tx.flush(pending).await?;
        }
        for run in cleared {
            tx.execute(sql::CLEAR_ENTRIES, &params![run.0]).await?;
        }
        pending.add(sql::SAVE_RUN, RunRow::params(&rows));
        pending.add(sql::SAVE_RUN_PROGRESS, RunRow::progress_params(&progress));
        tx.flush(pending).await
    }
}

/// Returns which of these claims are still valid.
async fn still_held<'a>(
    tx: &mut impl Tx,
    states: impl Iterator<Item = &'a Claimed> + Clone,
) -> Result<HashSet<(StateId, Claim)>, StoreError> {
    let rows = claims(states);
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let held = |row: &dyn Row| {
        let claim = Claim { session: SessionId(row.int(1)?), fence: Fence(row.int(2)?) };
        Ok((StateId(row.int(0)?), claim))
    };
    Ok(tx.query_each(sql::STILL_HELD, &rows, held).await?.into_iter().collect())
}

/// Returns the claims of states, as the first columns of guarded statements.
fn claims<'a>(states: impl Iterator<Item = &'a Claimed> + Clone) -> ParamRows<'static> {
    ParamRows::default()
        .ints(states.clone().map(|state| state.id.0))
        .ints(states.clone().map(|state| state.claim.session.0))
        .ints(states.map(|state| state.claim.fence.0))
}

/// Collects the store keys that the end of an execution needs: those that it writes, and those that
/// its followers' inputs name.
fn needed_keys<'a>(finished: &'a Finished, keys: &mut BTreeSet<(RunKey, &'a str)>) {
    let run = finished.run.key;
    if finished.changes.end.keeps_writes() {
        keys.extend(finished.journal.writes().map(|(key, _)| (run, key)));
    }
    if matches!(finished.changes.end, Transition::Success { .. }) {
        let graph = &finished.run.graph;
        let node = graph.node(finished.state.place.node);
        let followers = node.next.iter().chain(&node.united_by);
        let named = followers.flat_map(|node| graph.node(*node).store_keys());
        keys.extend(named.map(|key| (run, key.as_str())));
    }
}
