//! The end of an execution, guarded by its fence: only an end under the current fence has effects.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::ids::{Fence, Millis, NamespaceKey, RunKey, StateId};
use exosphere_domain::limits::Limit;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Changes, NoIds, Transition, fail_permanently, plan};
use exosphere_domain::state::{AttemptCounts, Claim, Claimed, NewState, Ref, RunStatus, Status};

use super::batch::{Finished, Reply};
use super::rows::{FinishedState, NewStateRow};
use super::store_entries::{PlannedWrites, WriteConflict};
use super::{CommitTx, DrainedUnite, LoadedRun};
use crate::codec::encode_snapshot;
use crate::error::StoreError;
use crate::types::ClaimedState;

impl<'b> CommitTx<'b> {
    pub(super) fn finish(&mut self, finished: &'b Finished) -> Result<Reply, StoreError> {
        let (run, state) = (finished.run.key, &finished.state);
        if self.run(run).is_ok_and(|loaded| loaded.row.status != RunStatus::Running) {
            self.rows.cancelled.push(finished);
        }
        // If a state ends twice in one batch, only the first end counts.
        if !self.is_live(run) || !self.held.remove(&(state.id, state.claim)) {
            return Ok(Reply::Stale);
        }
        let (replanned, writes) = match self.check(finished)? {
            JournalCheck::AsPlanned(writes) => (None, writes),
            JournalCheck::Replanned(changes) => (Some(changes), None),
        };
        let loaded = self.change(run)?;
        if let Some(writes) = writes {
            loaded.entries.apply(&mut loaded.row, writes);
        }
        let held_back = loaded.row.paused;
        match &replanned {
            None => {
                self.insert_successors(finished)?;
                self.count(run, &finished.changes.counts)?;
                if let Some(staged) = finished.staged {
                    self.publish(finished, staged)?;
                }
            }
            Some(changes) => {
                self.update_counters(finished, &changes.end)?;
                self.count(run, &changes.counts)?;
            }
        }
        let began_at = finished.began_at.map(|began_at| {
            let run_ms = Millis::try_from(began_at.elapsed().as_millis()).unwrap_or(Millis::MAX);
            self.now.saturating_sub(run_ms)
        });
        let end = replanned.as_ref().map_or(&finished.changes.end, |changes| &changes.end);
        self.reporter.add_finished(finished, end, began_at, self.now);
        let is_replanned = replanned.is_some();
        self.rows.finished.push(FinishedState { finished, replanned, held_back, began_at });
        match finished.staged {
            None => Ok(Reply::Done),
            Some(_) if is_replanned => Ok(Reply::Leftover(state.claim.fence)),
            // Staged children must be held back like those that a commit creates.
            Some(_) if held_back => self.request_sweep(&finished.run),
            Some(_) => Ok(Reply::Done),
        }
    }

    /// Checks the run's limit on new states and the writes to its store; if one fails, returns the
    /// changes of the resulting failure.
    fn check(&mut self, finished: &Finished) -> Result<JournalCheck, StoreError> {
        let Finished { run, state, changes, limits, .. } = finished;
        let staged = finished.staged.map_or(0, |staged| staged.children);
        let new_states = changes.end.new_states() + staged;
        if new_states > 0 && !self.allows(run.key, new_states, limits)? {
            // Another attempt would fail in the same way.
            let failure = limits.reached(Limit::RunStates);
            return Ok(JournalCheck::Replanned(fail_permanently(&run.graph, state, failure)?));
        }
        self.check_writes(finished)
    }

    fn check_writes(&mut self, finished: &Finished) -> Result<JournalCheck, StoreError> {
        if finished.journal.is_empty() || !finished.changes.end.keeps_writes() {
            return Ok(JournalCheck::AsPlanned(None));
        }
        let loaded = self.run(finished.run.key)?;
        let outcome = match loaded.entries.plan(&loaded.row, &finished.journal, &finished.limits) {
            Ok(plan) => return Ok(JournalCheck::AsPlanned(Some(plan))),
            Err(WriteConflict::Conflict) => Outcome::Conflict,
            Err(WriteConflict::Broken(failure)) => Outcome::Failed(failure),
        };
        let Finished { run, state, jitter, .. } = finished;
        Ok(JournalCheck::Replanned(plan(&run.graph, state, outcome, *jitter, &NoIds)?))
    }

    /// Applies an end as planned: creates the children and unites, and updates the run's counters.
    fn insert_successors(&mut self, finished: &'b Finished) -> Result<(), StoreError> {
        let (run, end) = (finished.run.key, &finished.changes.end);
        self.update_counters(finished, end)?;
        let Transition::Success { outputs, children, unites } = end else { return Ok(()) };
        for unite in unites {
            self.insert_state(run, &unite.state, Status::Waiting, 0)?;
            self.rows.unites.push(unite);
            if unite.counts.open == 0 {
                let (state, counts, branches) = (unite.state.id, unite.counts, unite.branches);
                self.drained.push(DrainedUnite { run, state, counts, branches });
            }
        }
        let outputs: Vec<Arc<str>> = if children.is_empty() {
            Vec::new()
        } else {
            outputs.iter().map(|body| body.as_str().into()).collect()
        };
        for child in children {
            let known_outputs = known_output(child, finished.state.id, &outputs);
            self.create_state(run, child, 0, known_outputs.as_slice())?;
        }
        Ok(())
    }

    /// Updates the run's counters, and when the next state is due.
    fn update_counters(&mut self, finished: &Finished, end: &Transition) -> Result<(), StoreError> {
        if let Transition::Reschedule { after, .. } = end {
            self.record_due(*after);
            let free = *after == 0 && !self.run(finished.run.key)?.row.paused;
            self.done.more_due |= free;
            self.done.added |= free;
        }
        let loaded = self.change(finished.run.key)?;
        loaded.row.count_end(&finished.state, end);
        if let Some(usage) = &finished.usage {
            loaded.row.add_cost(usage);
        }
        loaded.commit_counts.add_end(end, finished.usage);
        Ok(())
    }

    /// Records that a state is due after a delay.
    fn record_due(&mut self, after: Millis) {
        let due = self.now.saturating_add(after);
        self.done.next_due = Some(self.done.next_due.map_or(due, |before| before.min(due)));
    }

    /// Creates an ordinary state, claimed at once if it is due and the shares allow.
    pub(super) fn create_state(
        &mut self,
        run: RunKey,
        new: &'b NewState,
        delay: Millis,
        known_outputs: &[(Ref, Arc<str>)],
    ) -> Result<(), StoreError> {
        if delay > 0 {
            self.insert_state(run, new, Status::Created, delay)?;
            self.record_due(delay);
            return Ok(());
        }
        let Some(namespace) = self.claim_new_state(run)? else {
            return self.insert_state(run, new, Status::Created, delay).map(drop);
        };
        let store_snapshot = self.insert_state(run, new, Status::Queued, 0)?;
        let state = Claimed {
            id: new.id,
            run,
            place: new.place.clone(),
            attempts: AttemptCounts { attempt: 1, ..AttemptCounts::default() },
            claim: Claim { session: self.session, fence: Fence(1) },
        };
        self.done.claimed.push(ClaimedState {
            state,
            namespace,
            store_snapshot,
            due_at: self.now,
            known_outputs: known_outputs.to_vec(),
        });
        Ok(())
    }

    /// Takes one new state, which is due now, from the shares. Returns the run's namespace if
    /// the state is claimed at once.
    pub(super) fn claim_new_state(
        &mut self,
        run: RunKey,
    ) -> Result<Option<NamespaceKey>, StoreError> {
        let LoadedRun { row, info, .. } = self.run(run)?;
        let (paused, namespace) = (row.paused, info.namespace_key);
        if paused {
            return Ok(None);
        }
        let saturated = self.shares.remaining(namespace) == 0;
        let saturated_run = self.shares.remaining_of_run(run) == 0;
        if saturated || saturated_run || self.new_state_share == 0 {
            self.done.added = true;
            match (saturated, saturated_run) {
                (true, _) => drop(self.done.saturated.insert(namespace)),
                (false, true) => drop(self.done.saturated_runs.insert((namespace, run))),
                (false, false) => self.done.more_due = true,
            }
            return Ok(None);
        }
        self.new_state_share -= 1;
        self.shares.take(namespace, run, 1);
        Ok(Some(namespace))
    }

    /// Adds the row of a new state. Returns the current store values that its inputs name.
    fn insert_state(
        &mut self,
        run: RunKey,
        new: &'b NewState,
        status: Status,
        delay: Millis,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let (now, session) = (self.now, self.session);
        let loaded = self.change(run)?;
        loaded.row.add_states(new.place.node, status, 1);
        let mut store_snapshot = BTreeMap::new();
        for key in loaded.info.graph.node(new.place.node).store_keys() {
            if let Some(entry) = loaded.entries.get(key) {
                store_snapshot.insert(key.clone(), entry.value.clone());
            }
        }
        let row = NewStateRow {
            run,
            namespace: loaded.info.namespace_key,
            new,
            status,
            due_at: now.saturating_add(delay.max(0)),
            session: (status == Status::Queued).then_some(session),
            store_snapshot: encode_snapshot(&store_snapshot)?,
            held_back: status == Status::Created && loaded.row.paused,
        };
        self.rows.states.push(row);
        Ok(store_snapshot)
    }
}

/// The result of checking an end against the limits.
enum JournalCheck {
    /// The end commits as planned, with these writes.
    AsPlanned(Option<PlannedWrites>),
    /// The end is replaced by these changes.
    Replanned(Changes),
}

/// Returns the output that a child comes from, so that the child need not read it.
fn known_output(
    child: &NewState,
    parent: StateId,
    outputs: &[Arc<str>],
) -> Option<(Ref, Arc<str>)> {
    let from = child.place.refs.iter().find(|reference| reference.state == parent)?;
    Some((*from, outputs.get(from.output as usize)?.clone()))
}
