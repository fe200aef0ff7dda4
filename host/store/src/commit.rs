//! One commit, in five phases. It loads the affected rows, decides each operation in memory, and
//! writes the results with one statement per table. Then it closes the unites that have no open
//! members left, and claims due states. The domain makes the decisions; this module applies them,
//! guarded by the fence.
//!
//! Many hosts commit at once on Postgres. A transaction that writes below a run locks the run's row
//! first: new runs before all others, then in the order of their numbers. So transactions of one
//! run follow each other, and none wait for each other in a cycle. Claims need no such lock: they
//! skip locked rows, and come last.

mod claim;
mod control;
mod finish;
mod parts;
mod manual_retry;
mod unites;
#[path = "commit/staging.rs"]
mod stage;
mod start;
#[path = "commit/rows.rs"]
mod write;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, Millis, NamespaceKey, RunKey, SessionId, StateId};
use exosphere_domain::plan::{Deltas, End};
use exosphere_domain::state::{Claim, Claimed, Counter, Counts, RunStatus};

use crate::batch::{
    Answer, Batch, Committed, Finished, Member, NewRun, RunInfo, Shares, Touched, Want,
};
use crate::entries::{self, Entries};
use crate::error::StoreError;
use crate::run_row::RunRow;
use crate::sql;
use crate::text::{Cells, Rows, Tx, values};
use stage::StagedRow;
use write::Writes;

/// Applies a batch.
pub(crate) async fn commit(tx: &mut impl Tx, batch: &Batch) -> Result<Committed, StoreError> {
    let members = &batch.members[batch.range.clone()];
    let mut commit = CommitTx::new(tx.now(), batch);
    commit.begin_runs(tx, members).await?;
    commit.load(tx, members).await?;
    for (at, member) in members.iter().enumerate() {
        if let Some(answer) = commit.decide(member)? {
            commit.done.answers[at] = answer;
        }
    }
    std::mem::take(&mut commit.writes).write(tx, commit.now).await?;
    for (at, member) in members.iter().enumerate() {
        if let Some(answer) = commit.control(tx, member).await? {
            commit.done.answers[at] = answer;
        }
    }
    commit.close_unites(tx).await?;
    commit.save(tx).await?;
    if let Want::Claims(most) = batch.want {
        commit.claim(tx, most).await?;
    }
    Ok(commit.done)
}

/// A commit under way.
struct CommitTx<'b> {
    now: Millis,
    session: SessionId,
    /// The number of states that may still be born claimed.
    births: u32,
    /// The remaining claim quotas.
    shares: Shares,
    turn: usize,
    cursors: BTreeMap<NamespaceKey, RunKey>,
    runs: BTreeMap<RunKey, Touching>,
    /// Answers for new runs that were not inserted.
    known: BTreeMap<RunKey, Answer>,
    /// Executions whose claim is still valid, each once.
    held: HashSet<(StateId, Claim)>,
    /// Staged rows of the executions that this batch ends, stages or unstages.
    staged: HashMap<StateId, StagedRow>,
    writes: Writes<'b>,
    /// Count changes of unites that existed before this commit.
    counts: BTreeMap<StateId, (RunKey, Counts)>,
    /// New unites without open members.
    drained: Vec<Drained>,
    done: Committed,
}

/// A run in this transaction.
struct Touching {
    tally: RunRow,
    entries: Entries,
    info: Arc<RunInfo>,
    /// The status and pause of the run before this commit.
    before: (RunStatus, bool),
    /// Set if the run's row must be written.
    changed: bool,
}

/// A unite with no open members left.
struct Drained {
    run: RunKey,
    state: StateId,
    counts: Counts,
    branches: u32,
}

impl Member {
    /// Returns the run of this operation.
    fn run(&self) -> &Arc<RunInfo> {
        match self {
            Member::Start(new) => &new.info,
            Member::Finish(finished) => &finished.run,
            Member::Stage(stage) => &stage.run,
            Member::Unstage(leftover) => &leftover.run,
            Member::Cancel(run)
            | Member::Begin { run, .. }
            | Member::Pause { run, .. }
            | Member::Sweep { run, .. }
            | Member::Retry { run, .. }
            | Member::Redrive { run, .. } => run,
        }
    }
}

impl<'b> CommitTx<'b> {
    fn new(now: Millis, batch: &Batch) -> Self {
        let answers = vec![Answer::Missing; batch.range.len()];
        CommitTx {
            now,
            session: batch.session,
            births: if let Want::Births(most) = batch.want { most } else { 0 },
            shares: batch.shares.clone(),
            turn: batch.turn,
            cursors: batch.cursors.clone(),
            runs: BTreeMap::new(),
            known: BTreeMap::new(),
            held: HashSet::new(),
            staged: HashMap::new(),
            writes: Writes::default(),
            counts: BTreeMap::new(),
            drained: Vec::new(),
            done: Committed { now, answers, ..Committed::default() },
        }
    }

    /// Locks the runs' rows and loads all data for the decisions.
    async fn load(&mut self, tx: &mut impl Tx, members: &[Member]) -> Result<(), StoreError> {
        let infos: BTreeMap<RunKey, &Arc<RunInfo>> =
            members.iter().map(|member| (member.run().key, member.run())).collect();
        if infos.is_empty() {
            return Ok(());
        }
        for (run, tally) in RunRow::load(tx, infos.keys().copied()).await? {
            let before = (tally.status, tally.paused);
            let (entries, info) = (Entries::default(), infos[&run].clone());
            self.runs.insert(run, Touching { tally, entries, info, before, changed: false });
        }
        let finished: Vec<&Finished> = members
            .iter()
            .filter_map(|member| match member {
                Member::Finish(finished) => Some(&**finished),
                _ => None,
            })
            .filter(|finished| self.is_live(finished.run.key))
            .collect();
        let stages = members.iter().filter_map(|member| match member {
            Member::Stage(stage) => Some(&stage.state),
            _ => None,
        });
        let claimed = finished.iter().map(|finished| &finished.state).chain(stages);
        self.held = still_held(tx, claimed).await?;
        self.load_staged(tx, members).await?;
        let mut keys = BTreeSet::new();
        finished.iter().for_each(|finished| needed_keys(finished, &mut keys));
        for (run, key, entry) in entries::read(tx, &keys).await? {
            self.run(run)?.entries.know(key, entry);
        }
        Ok(())
    }

    fn is_live(&self, run: RunKey) -> bool {
        self.runs.get(&run).is_some_and(|touching| touching.tally.is_live())
    }

    /// Decides an operation in memory; returns `None` for a control operation.
    fn decide(&mut self, member: &'b Member) -> Result<Option<Answer>, StoreError> {
        match member {
            Member::Start(new) => self.start(new).map(Some),
            Member::Finish(finished) => self.finish(finished).map(Some),
            Member::Stage(stage) => self.stage(stage).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns a loaded run.
    fn run(&mut self, run: RunKey) -> Result<&mut Touching, StoreError> {
        let missing = || StoreError::Data(format!("table run has no row {}", run.0));
        self.runs.get_mut(&run).ok_or_else(missing)
    }

    /// Returns a loaded run and marks it as changed.
    fn change(&mut self, run: RunKey) -> Result<&mut Touching, StoreError> {
        let touching = self.run(run)?;
        touching.changed = true;
        Ok(touching)
    }

    fn graph(&mut self, run: RunKey) -> Result<Arc<Graph>, StoreError> {
        Ok(self.run(run)?.info.graph.clone())
    }

    /// Adds count changes to a run's row and to its unites.
    fn count(&mut self, run: RunKey, deltas: &Deltas) -> Result<(), StoreError> {
        for (counter, delta) in deltas {
            match counter {
                Counter::Run => self.change(run)?.tally.count(*delta),
                Counter::Unite(unite) => {
                    self.counts.entry(*unite).or_insert((run, Counts::default())).1 += *delta;
                }
            }
        }
        Ok(())
    }

    /// Writes the changed run rows, each with its next version.
    async fn save(&mut self, tx: &mut impl Tx) -> Result<(), StoreError> {
        self.runs.retain(|_, touching| touching.changed);
        if self.runs.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = self.runs.iter().map(|(run, t)| (*run, &t.entries)).collect();
        entries::save(tx, &entries).await?;
        let mut tallies = Vec::with_capacity(self.runs.len());
        for (run, touching) in std::mem::take(&mut self.runs) {
            let Touching { mut tally, info, before, .. } = touching;
            tally.version += 1;
            tally.settle(self.now);
            let over = matches!(tally.status, RunStatus::Success | RunStatus::Cancelled);
            if over && !info.graph.store().keep && tally.store_keys > 0 {
                tx.execute(sql::CLEAR_ENTRIES, &values![run.0]).await?;
                tally.store_keys = 0;
                tally.store_bytes = 0;
            }
            let RunRow { version, status, paused, .. } = tally;
            let turned = before != (status, paused);
            if before.0 == RunStatus::Running && status != RunStatus::Running {
                self.done.ended.push(tally.view(&info));
            }
            self.done.touched.push(Touched { run, version, status, paused, turned });
            tallies.push((run, tally));
        }
        RunRow::save(tx, &tallies).await
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
    let held = |row: &dyn Cells| {
        let claim = Claim { session: SessionId(row.int(1)?), fence: Fence(row.int(2)?) };
        Ok((StateId(row.int(0)?), claim))
    };
    Ok(tx.query_each(sql::STILL_HELD, &rows, held).await?.into_iter().collect())
}

/// Returns the claims of states, as the first columns of guarded statements.
fn claims<'a>(states: impl Iterator<Item = &'a Claimed> + Clone) -> Rows<'static> {
    Rows::default()
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
    if matches!(finished.changes.end, End::Success { .. }) {
        let graph = &finished.run.graph;
        let node = graph.node(finished.state.place.node);
        let followers = node.next.iter().chain(&node.united_by);
        let named = followers.flat_map(|node| graph.node(*node).store_keys());
        keys.extend(named.map(|key| (run, key.as_str())));
    }
}
