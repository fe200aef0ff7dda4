//! The end of an execution, under the guard of its fence: what the guard lets
//! through, and only that, has effects.

use std::sync::Arc;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::{Ids, RunKey, StateId};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Again, Changes, End, NewUnite, plan};
use exosphere_domain::state::{NewState, Ref};
use rusqlite::params;

use super::{Drained, Street, to_json};
use crate::batch::{Answer, Finished};
use crate::entries::{Clash, Plan};
use crate::error::StoreError;
use crate::sql;

/// Attempts that are kept of a state; older ones are only counted.
const KEPT_ATTEMPTS: u32 = 100;

impl<I: Ids> Street<'_, I> {
    pub(super) fn finish(&mut self, finished: &Finished) -> Result<Answer, StoreError> {
        let run = finished.run.key;
        match self.touch(run, Some(&finished.run))? {
            Some(touching) if touching.tally.is_live() => {}
            _ => return Ok(Answer::Stale),
        }
        let replanned;
        let (changes, writes) = match self.check_writes(finished)? {
            Checked::Fine(plan) => (&finished.changes, plan),
            Checked::Otherwise(changes) => {
                replanned = changes;
                (&replanned, None)
            }
        };
        if !self.end(finished, changes)? {
            return Ok(Answer::Stale);
        }
        if let Some(writes) = writes {
            let touching = self.run(run)?;
            touching.entries.apply(&mut touching.tally, writes);
        }
        if let End::Again { due, .. } = changes.end {
            self.done.next_due = Some(self.done.next_due.map_or(due, |before| before.min(due)));
        }
        self.keep_attempt(finished, &changes.end)?;
        self.follow(finished, &changes.end)?;
        self.count(run, &changes.counts)?;
        Ok(Answer::Done)
    }

    /// Whether the store writes can be committed; if not, what the outcome
    /// changes then.
    fn check_writes(&mut self, finished: &Finished) -> Result<Checked, StoreError> {
        if finished.journal.is_empty() || !finished.changes.end.keeps_writes() {
            return Ok(Checked::Fine(None));
        }
        let (tx, limits, run) = (self.tx, self.limits, finished.run.key);
        let touching = self.run(run)?;
        let plan = touching.entries.plan(tx, run, &touching.tally, &finished.journal, limits);
        let outcome = match plan {
            Ok(plan) => return Ok(Checked::Fine(Some(plan))),
            Err(Clash::Error(error)) => return Err(error),
            Err(Clash::Conflict) => Outcome::Conflict,
            Err(Clash::Broken(words)) => Outcome::Failed(Failure::new(FailureKind::Store, words)),
        };
        let Finished { run, state, jitter, .. } = finished;
        Ok(Checked::Otherwise(self::plan(&run.graph, state, outcome, self.now, *jitter, self.ids)?))
    }

    /// Moves the state's row on. False if the claim is no longer ours.
    fn end(&mut self, finished: &Finished, changes: &Changes) -> Result<bool, StoreError> {
        let state = &finished.state;
        let (id, session, fence) = (state.id.0, state.claim.session.0, state.claim.fence.0);
        if let End::Again { due, tries, .. } = &changes.end {
            let rows = self.tx.prepare_cached(sql::REPEAT)?.execute(params![
                id,
                session,
                fence,
                due,
                tries.attempt,
                tries.retries,
                tries.requeues,
                tries.losses,
                tries.conflicts,
            ])?;
            return Ok(rows == 1);
        }
        let (status, outputs, failure, data) = match &changes.end {
            End::Success { outputs, .. } => ("SUCCESS", Some(outputs.len() as i64), None, None),
            End::Pruned { data } => ("PRUNED", None, None, data.clone()),
            End::Errored { failure } => ("ERRORED", None, Some(failure), details(failure)?),
            End::Again { .. } => return Ok(false),
        };
        let rows = self.tx.prepare_cached(sql::FINISH)?.execute(params![
            id,
            session,
            fence,
            status,
            self.now,
            outputs,
            failure.map(|failure| failure.kind.as_str()),
            failure.map(|failure| &failure.message),
            data,
            finished.usage.map(|usage| usage.cpu_us as i64),
            finished.usage.map(|usage| usage.peak_memory_bytes as i64),
            finished.usage.map(|usage| usage.host_calls),
            finished.usage.map(|usage| usage.output_bytes as i64),
        ])?;
        Ok(rows == 1)
    }

    /// Keeps the attempt, unless the state's row says all there is to say.
    fn keep_attempt(&mut self, finished: &Finished, end: &End) -> Result<(), StoreError> {
        let (outcome, failure) = match end {
            End::Success { .. } => ("SUCCESS", None),
            End::Pruned { .. } => ("PRUNED", None),
            End::Again { why: Again::Requeued, .. } => ("REQUEUED", None),
            End::Again { why: Again::Failed(failure), .. } | End::Errored { failure } => {
                ("FAILED", Some(failure))
            }
            End::Again { why: Again::Released, .. } => return Ok(()),
        };
        let number = finished.state.tries.attempt;
        let silent = number == 1 && finished.logs.is_none();
        if silent && matches!(end, End::Success { .. } | End::Pruned { .. }) {
            return Ok(());
        }
        let id = finished.state.id.0;
        self.tx.prepare_cached(sql::NEW_ATTEMPT)?.execute(params![
            id,
            number,
            self.now,
            outcome,
            failure.map(|failure| failure.kind.as_str()),
            failure.map(|failure| &failure.message),
            failure.map(details).transpose()?.flatten(),
            finished.logs,
            finished.usage.map(|usage| usage.cpu_us as i64),
            finished.usage.map(|usage| usage.peak_memory_bytes as i64),
            finished.usage.map(|usage| usage.host_calls),
            finished.usage.map(|usage| usage.output_bytes as i64),
        ])?;
        if number > KEPT_ATTEMPTS {
            let old = i64::from(number - KEPT_ATTEMPTS);
            self.tx.prepare_cached(sql::OLD_ATTEMPTS)?.execute([id, old])?;
        }
        Ok(())
    }

    /// What follows from the end of a state: its outputs and their children,
    /// and the numbers that people read.
    fn follow(&mut self, finished: &Finished, end: &End) -> Result<(), StoreError> {
        let (run, state) = (finished.run.key, finished.state.id);
        let tally = &mut self.run(run)?.tally;
        match end {
            End::Pruned { .. } => tally.pruned += 1,
            End::Errored { .. } => tally.errored += 1,
            End::Again { why: Again::Requeued, .. } => tally.requeues += 1,
            // A lost host or a conflict uses up no retry.
            End::Again { tries, why: Again::Failed(_), .. } => {
                tally.retries += i64::from(tries.retries > finished.state.tries.retries);
            }
            End::Again { why: Again::Released, .. } => {}
            End::Success { outputs, children, unites } => {
                tally.succeeded += 1;
                let outputs: Vec<Arc<str>> =
                    outputs.iter().map(|body| body.as_str().into()).collect();
                for (number, body) in outputs.iter().enumerate() {
                    let row = params![state.0, number as i64, &**body];
                    self.tx.prepare_cached(sql::NEW_OUTPUT)?.execute(row)?;
                }
                for unite in unites {
                    self.begin_unite(run, unite)?;
                }
                for child in children {
                    self.create(run, child, known(child, state, &outputs))?;
                }
            }
        }
        Ok(())
    }

    fn begin_unite(&mut self, run: RunKey, unite: &NewUnite) -> Result<(), StoreError> {
        let NewUnite { state, source, branches, counts } = unite;
        self.insert(run, state, "WAITING")?;
        self.tx.prepare_cached(sql::NEW_UNITE)?.execute(params![
            state.id.0,
            source.0,
            branches,
            counts.open,
            counts.failed,
            counts.arrived,
        ])?;
        if counts.open == 0 {
            let (state, counts, branches) = (state.id, *counts, *branches);
            self.drained.push(Drained { run, state, counts, branches });
        }
        Ok(())
    }
}

/// Whether a journal can be committed.
enum Checked {
    /// As planned, with these writes.
    Fine(Option<Plan>),
    /// Not: the outcome changes this instead.
    Otherwise(Changes),
}

/// The details of a failure as JSON text.
pub(super) fn details(failure: &Failure) -> Result<Option<String>, StoreError> {
    failure.details.as_ref().map(to_json).transpose()
}

/// The output that a child comes from, which need not be read again.
fn known(child: &NewState, parent: StateId, outputs: &[Arc<str>]) -> Vec<(Ref, Arc<str>)> {
    let from = child.place.refs.iter().find(|known| known.state == parent);
    from.and_then(|from| Some((*from, outputs.get(from.output as usize)?.clone())))
        .into_iter()
        .collect()
}
