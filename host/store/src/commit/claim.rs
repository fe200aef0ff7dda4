//! Claims: ready states become this session's, by guarded updates. Namespaces are served
//! round-robin, and so are the runs of a namespace. Each gets an equal part of the claim, and
//! the rest of its part goes to the others. Delayed states that are due are made ready first,
//! in bounded numbers. Staged children of an execution with many outputs have a queue of their
//! own; each run is claimed from one queue at a time. The host remembers those queues from one
//! claim to the next, because a search for others passes the index entries of all queues that were
//! exhausted since the last vacuum.
//!
//! Not here: how claims are divided among namespaces and runs (`claim_shares`).

use std::collections::{BTreeMap, BTreeSet};

use exosphere_domain::ids::{Millis, NamespaceKey, RunKey, StateId};

use super::CommitTx;
use super::batch::StagedQueues;
use super::claim_shares::{ReadyRun, ReadyRuns, in_order};
use crate::codec::{read_claimed, to_json};
use crate::dialect::{ParamRows, Row, Tx, params};
use crate::error::StoreError;
use crate::sql;

/// Maximum number of delayed states of a namespace that one claim makes ready: more than a
/// claim takes, few enough to delay no commit.
const MAX_PROMOTED: u32 = 512;

/// A row of [`sql::CLAIMABLE`].
enum Claimable {
    /// A queue with ready states.
    Ready {
        /// The first ready state and its run; `None` while the queue may not be claimed from.
        first: Option<ReadyRun>,
        /// The next run with ready states.
        next_run: Option<RunKey>,
    },
    /// A namespace with delayed states.
    Delayed {
        namespace: NamespaceKey,
        first_due: Millis,
        /// The due time of the first state that is due after now.
        next_due: Option<Millis>,
    },
}

impl CommitTx<'_> {
    /// Claims up to `max_claims` due states. If no more are due, also records when the next one is.
    pub(super) async fn claim(
        &mut self,
        tx: &mut impl Tx,
        max_claims: u32,
    ) -> Result<(), StoreError> {
        if max_claims == 0 {
            self.done.more_due = true;
            return Ok(());
        }
        let others_may_exist = !self.staged_queues.queues.is_empty();
        if let Some(left) = self.claim_ready(tx, max_claims).await?
            && others_may_exist
        {
            self.staged_queues = StagedQueues::default();
            self.cursors.extend(self.done.cursors.clone());
            self.claim_ready(tx, left).await?;
        }
        Ok(())
    }

    /// Claims up to `max_claims` states of the known queues, or of all queues if none of staged
    /// children is known. Returns the number of states that it could not claim because no state is ready.
    async fn claim_ready(
        &mut self,
        tx: &mut impl Tx,
        max_claims: u32,
    ) -> Result<Option<u32>, StoreError> {
        let mut claimable = self.claimable(tx).await?;
        if self.promote(tx, &claimable).await? {
            claimable = self.claimable(tx).await?;
        }
        let (mut ready, other_queues) = self.ready_runs(tx, &claimable, max_claims).await?;
        let mut left = max_claims;
        while left > 0 {
            let parts = ready.parts(left, &self.shares, self.rotation);
            if parts.is_empty() {
                break;
            }
            let counts = self.claim_parts(tx, &parts).await?;
            left = left.saturating_sub(counts.values().sum());
            for (ready_run, part) in parts {
                let count = counts.get(&ready_run.run).copied().unwrap_or(0);
                self.shares.take(ready_run.namespace, ready_run.run, count);
                if count < part {
                    ready.close(&ready_run);
                    self.done.more_due |= other_queues.contains(&ready_run.run);
                }
            }
        }
        let is_exhausted = left > 0 && ready.is_exhausted();
        self.done.more_due |= ready.record_saturated(&self.shares, &mut self.done);
        self.done.cursors = ready.cursors();
        if !self.done.more_due {
            let next = claimable.iter().filter_map(Claimable::next_due);
            self.done.next_due = next.min();
        }
        Ok(is_exhausted.then_some(left))
    }

    /// Reads the heads of the known queues, or of all queues if none of staged children is known.
    /// Those of staged children that it finds are known from then on.
    async fn claimable(&mut self, tx: &mut impl Tx) -> Result<Vec<Claimable>, StoreError> {
        let known = &mut self.staged_queues;
        let mut from = 0;
        if known.queues.is_empty() {
            (from, known.read_at) = (i64::MIN, self.now);
        }
        let queues: Vec<i64> = known.queues.iter().map(|queue| queue.0).collect();
        let queues = to_json(&queues)?;
        let heads = params![self.now, from, &queues];
        let claimable = tx.query(sql::CLAIMABLE, &heads, claimable).await?;
        let queues = claimable.iter().filter_map(Claimable::first).map(|first| first.queue);
        known.queues = queues.filter(|queue| *queue < 0).map(NamespaceKey).collect();
        Ok(claimable)
    }

    /// Makes ready the delayed states that are now due. Returns whether there were any.
    async fn promote(
        &mut self,
        tx: &mut impl Tx,
        claimable: &[Claimable],
    ) -> Result<bool, StoreError> {
        let due = claimable.iter().filter_map(|row| match row {
            Claimable::Delayed { namespace, first_due, .. } if *first_due <= self.now => {
                Some(namespace.0)
            }
            _ => None,
        });
        let rows = ParamRows::default().ints(due).all(self.now).all(i64::from(MAX_PROMOTED));
        if rows.is_empty() {
            return Ok(false);
        }
        let namespace = |row: &dyn Row| row.int(0);
        let mut promoted = BTreeMap::<i64, u32>::new();
        for namespace in tx.query_each(sql::PROMOTE, &rows, namespace).await? {
            *promoted.entry(namespace).or_default() += 1;
        }
        // The other hosts may claim the promoted states that this claim leaves.
        self.done.added = true;
        self.done.more_due |= promoted.values().any(|count| *count >= MAX_PROMOTED);
        Ok(!promoted.is_empty())
    }

    /// Finds the runs to claim from: of each namespace, first the one after its cursor. Also
    /// returns the runs that have ready states in another queue as well.
    async fn ready_runs(
        &self,
        tx: &mut impl Tx,
        claimable: &[Claimable],
        max_claims: u32,
    ) -> Result<(ReadyRuns, BTreeSet<RunKey>), StoreError> {
        // Runs of which the session holds states may have used up their share.
        let limit = (max_claims as usize).saturating_add(self.shares.runs.len());
        let mut ranges = Vec::new();
        for row in claimable {
            let Claimable::Ready { first: Some(first), next_run: Some(_) } = row else {
                continue;
            };
            let cursor = self.cursors.get(&first.namespace).copied().unwrap_or(RunKey(0));
            ranges.push((first.namespace, first.run.max(cursor), RunKey(i64::MAX)));
            if cursor > first.run {
                ranges.push((first.namespace, first.run, cursor));
            }
        }
        let rows = ParamRows::default()
            .ints(ranges.iter().map(|(namespace, ..)| namespace.0))
            .ints(ranges.iter().map(|(_, after, _)| after.0))
            .ints(ranges.iter().map(|(.., up_to)| up_to.0))
            .all(i64::try_from(limit).unwrap_or(i64::MAX));
        let found = if rows.is_empty() {
            Vec::new()
        } else {
            tx.query_each(sql::READY_RUNS, &rows, ready_run).await?
        };
        let mut namespaces = BTreeMap::<NamespaceKey, BTreeMap<RunKey, ReadyRun>>::new();
        let mut other_queues = BTreeSet::new();
        for ready_run in claimable.iter().filter_map(Claimable::first).chain(found) {
            let runs = namespaces.entry(ready_run.namespace).or_default();
            let of_run = runs.entry(ready_run.run).or_insert(ready_run);
            if of_run.queue != ready_run.queue {
                other_queues.insert(ready_run.run);
                if ready_run.first < of_run.first {
                    *of_run = ready_run;
                }
            }
        }
        let mut ready = ReadyRuns::new(&self.cursors);
        for (namespace, runs) in namespaces {
            let runs = in_order(runs.into_values().collect(), self.cursors.get(&namespace));
            ready.add(namespace, runs, limit);
        }
        Ok((ready, other_queues))
    }

    /// Claims each run's part, from its first ready state on. Returns the number of claimed states
    /// per run.
    async fn claim_parts(
        &mut self,
        tx: &mut impl Tx,
        parts: &[(ReadyRun, u32)],
    ) -> Result<BTreeMap<RunKey, u32>, StoreError> {
        let claim_rows =
            |get: fn(&ReadyRun) -> i64| parts.iter().map(move |(ready_run, _)| get(ready_run));
        let rows = ParamRows::default()
            .ints(claim_rows(|ready_run| ready_run.queue))
            .ints(claim_rows(|ready_run| ready_run.run.0))
            .ints(claim_rows(|ready_run| ready_run.first.0))
            .ints(claim_rows(|ready_run| ready_run.first.1.0))
            .ints(parts.iter().map(|(_, part)| i64::from(*part)))
            .all(self.session.0)
            .ints(claim_rows(|ready_run| ready_run.namespace.0))
            .all(self.now);
        let held = tx.query_each(sql::CLAIM, &rows, read_claimed).await?;
        let mut counts = BTreeMap::new();
        for held in held {
            *counts.entry(held.claimed.state.run).or_default() += 1;
            self.done.claimed.push(held.claimed);
        }
        Ok(counts)
    }
}

impl Claimable {
    fn first(&self) -> Option<ReadyRun> {
        match self {
            Claimable::Ready { first, .. } => *first,
            Claimable::Delayed { .. } => None,
        }
    }

    fn next_due(&self) -> Option<Millis> {
        match self {
            Claimable::Ready { .. } => None,
            Claimable::Delayed { next_due, .. } => *next_due,
        }
    }
}

fn claimable(row: &dyn Row) -> Result<Claimable, StoreError> {
    match row.maybe_int(1)? {
        Some(_) => {
            let owner = row.maybe_int(5)?.map(NamespaceKey);
            let in_queue = ready_run(row)?;
            let first = owner.map(|namespace| ReadyRun { namespace, ..in_queue });
            Ok(Claimable::Ready { first, next_run: row.maybe_int(4)?.map(RunKey) })
        }
        None => Ok(Claimable::Delayed {
            namespace: NamespaceKey(row.int(0)?),
            first_due: row.int(2)?,
            next_due: row.maybe_int(4)?,
        }),
    }
}

/// Reads a run with ready states and the number of its queue.
fn ready_run(row: &dyn Row) -> Result<ReadyRun, StoreError> {
    let queue = row.int(0)?;
    Ok(ReadyRun {
        queue,
        namespace: NamespaceKey(queue),
        run: RunKey(row.int(1)?),
        first: (row.int(2)?, StateId(row.int(3)?)),
    })
}
