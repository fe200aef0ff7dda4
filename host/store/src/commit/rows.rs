//! The rows that the operations of a batch write, with one bulk statement per table.

use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::{Millis, NamespaceKey, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::limits::Usage;
use exosphere_domain::plan::{Again, Changes, End, NewUnite};
use exosphere_domain::state::{Claimed, NewState, Scope, Status, Tries};

use super::stage::{self, StagedChange};
use crate::batch::{Finished, Stage};
use crate::error::StoreError;
use crate::rows::{encode_refs, encode_scopes};
use crate::sql;
use crate::text::{Rows, Tx};

/// Stored attempts of a state; older ones are only counted.
const KEPT_ATTEMPTS: u32 = 100;

/// The rows to write before any unite is counted.
#[derive(Default)]
pub(super) struct Writes<'b> {
    pub ended: Vec<Ended<'b>>,
    /// Executions of cancelled runs: only their usage is kept.
    pub cancelled: Vec<&'b Finished>,
    pub states: Vec<NewRow<'b>>,
    pub unites: Vec<&'b NewUnite>,
    /// Changes of staging rows.
    pub staged: Vec<StagedChange>,
    /// Staged pieces of ends, whose children are among `states`.
    pub pieces: Vec<&'b Stage>,
    /// Store values fixed for staged children, by parent and child node.
    pub fixed: Vec<(StateId, NodeIx, String)>,
}

/// An execution that ended under a valid claim.
pub(super) struct Ended<'b> {
    pub finished: &'b Finished,
    /// The changes, if they are not the planned ones.
    pub replanned: Option<Changes>,
    /// Set if the run is paused, so that a repeated state is parked.
    pub parked: bool,
}

/// The row of a new state.
pub(super) struct NewRow<'b> {
    pub run: RunKey,
    pub namespace: NamespaceKey,
    pub new: &'b NewState,
    pub status: Status,
    pub due_at: Millis,
    pub session: Option<SessionId>,
    pub fixed: Option<String>,
    pub parked: bool,
}

impl Ended<'_> {
    fn end(&self) -> &End {
        &self.replanned.as_ref().unwrap_or(&self.finished.changes).end
    }
}

impl Writes<'_> {
    pub(super) async fn write(self, tx: &mut impl Tx, now: Millis) -> Result<(), StoreError> {
        let again = |ended: &&Ended<'_>| matches!(ended.end(), End::Again { .. });
        let (repeats, ends): (Vec<_>, Vec<_>) = self.ended.iter().partition(again);
        finish(tx, &ends, now).await?;
        repeat(tx, &repeats, now).await?;
        cancelled(tx, &self.cancelled).await?;
        outputs(tx, &ends).await?;
        stage::write(tx, &self.staged, &self.pieces, &self.fixed).await?;
        attempts(tx, &self.ended, now).await?;
        states(tx, &self.states, now).await?;
        unites(tx, &self.unites).await
    }
}

/// Returns the claims of ended executions, as the first columns of a guarded statement.
fn claims(ended: &[&Ended<'_>]) -> Rows<'static> {
    super::claims(ended.iter().map(|ended| &ended.finished.state))
}

async fn finish(tx: &mut impl Tx, ends: &[&Ended<'_>], now: Millis) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    let details: Vec<_> =
        ends.iter().map(|ended| details_of(ended.end())).collect::<Result<_, _>>()?;
    let failures = || ends.iter().map(|ended| failure_of(ended.end()));
    let usage = |get: fn(&Usage) -> i64| {
        ends.iter().map(move |ended| ended.finished.usage.as_ref().map(get))
    };
    let rows = claims(ends)
        .texts(ends.iter().map(|ended| status_of(ended.end()).as_str()))
        .all(now)
        .maybe_ints(ends.iter().map(|ended| match ended.end() {
            End::Success { outputs, .. } => {
                let staged = ended.finished.staged.map_or(0, |staged| staged.outputs);
                Some((outputs.len() + staged) as i64)
            }
            _ => None,
        }))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.kind.as_str())))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.message.as_str())))
        .maybe_texts(details.iter().map(Option::as_deref))
        .maybe_ints(usage(cpu))
        .maybe_ints(usage(memory))
        .maybe_ints(usage(calls))
        .maybe_ints(usage(input_bytes))
        .maybe_ints(usage(output_bytes));
    tx.put_off(sql::FINISH, &rows, Some(ends.len() as u64)).await
}

async fn cancelled(tx: &mut impl Tx, cancelled: &[&Finished]) -> Result<(), StoreError> {
    let used: Vec<(&Claimed, &Usage)> = cancelled
        .iter()
        .filter_map(|finished| Some((&finished.state, finished.usage.as_ref()?)))
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    let usage = |get: fn(&Usage) -> i64| used.iter().map(move |(_, usage)| get(usage));
    let rows = Rows::default()
        .ints(used.iter().map(|(state, _)| state.id.0))
        .ints(used.iter().map(|(state, _)| state.claim.fence.0))
        .ints(usage(cpu))
        .ints(usage(memory))
        .ints(usage(calls))
        .ints(usage(input_bytes))
        .ints(usage(output_bytes));
    tx.put_off(sql::USED, &rows, None).await
}

async fn repeat(tx: &mut impl Tx, repeats: &[&Ended<'_>], now: Millis) -> Result<(), StoreError> {
    if repeats.is_empty() {
        return Ok(());
    }
    let agains: Vec<(Millis, Tries)> = repeats
        .iter()
        .filter_map(|ended| match ended.end() {
            End::Again { after, tries, .. } => Some((*after, *tries)),
            _ => None,
        })
        .collect();
    let tries = |get: fn(&Tries) -> u32| agains.iter().map(move |(_, tries)| i64::from(get(tries)));
    let rows = claims(repeats)
        .ints(agains.iter().map(|(after, _)| now.saturating_add(*after)))
        .ints(tries(|tries| tries.attempt))
        .ints(tries(|tries| tries.retries))
        .ints(tries(|tries| tries.requeues))
        .ints(tries(|tries| tries.losses))
        .ints(tries(|tries| tries.conflicts))
        .ints(repeats.iter().map(|ended| i64::from(ended.parked)))
        .ints(agains.iter().map(|(after, _)| i64::from(*after > 0)));
    tx.put_off(sql::REPEAT, &rows, Some(repeats.len() as u64)).await
}

async fn outputs(tx: &mut impl Tx, ends: &[&Ended<'_>]) -> Result<(), StoreError> {
    let all = || {
        ends.iter().flat_map(|ended| {
            let outputs = match ended.end() {
                End::Success { outputs, .. } => outputs.as_slice(),
                _ => &[],
            };
            outputs.iter().enumerate().map(move |(number, body)| (ended, number, body))
        })
    };
    let rows = Rows::default()
        .ints(all().map(|(ended, ..)| ended.finished.state.id.0))
        .ints(all().map(|(_, number, _)| number as i64))
        .texts(all().map(|(.., body)| body.as_str()));
    match rows.is_empty() {
        true => Ok(()),
        false => tx.put_off(sql::NEW_OUTPUT, &rows, None).await,
    }
}

/// Stores attempts, except those that the state's own row describes completely.
async fn attempts(tx: &mut impl Tx, ended: &[Ended<'_>], now: Millis) -> Result<(), StoreError> {
    let kept: Vec<(&Ended<'_>, &str, Option<&Failure>)> = ended
        .iter()
        .filter_map(|ended| {
            let (outcome, failure) = attempt_of(ended.end())?;
            let first = ended.finished.state.tries.attempt == 1;
            let silent = first && ended.finished.logs.is_none();
            let well = matches!(ended.end(), End::Success { .. } | End::Pruned { .. });
            (!(silent && well)).then_some((ended, outcome, failure))
        })
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    let details: Vec<_> = kept
        .iter()
        .map(|(.., failure)| failure.map_or(Ok(None), details))
        .collect::<Result<_, _>>()?;
    let each = || kept.iter().map(|(ended, ..)| ended.finished);
    let failures = || kept.iter().map(|(.., failure)| *failure);
    let usage =
        |get: fn(&Usage) -> i64| each().map(move |finished| finished.usage.as_ref().map(get));
    let number = |finished: &Finished| i64::from(finished.state.tries.attempt);
    let rows = Rows::default()
        .ints(each().map(|finished| finished.state.id.0))
        .ints(each().map(number))
        .all(now)
        .texts(kept.iter().map(|(_, outcome, _)| *outcome))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.kind.as_str())))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.message.as_str())))
        .maybe_texts(details.iter().map(Option::as_deref))
        .maybe_texts(each().map(|finished| finished.logs.as_deref()))
        .maybe_ints(usage(cpu))
        .maybe_ints(usage(memory))
        .maybe_ints(usage(calls))
        .maybe_ints(usage(input_bytes))
        .maybe_ints(usage(output_bytes));
    tx.put_off(sql::NEW_ATTEMPT, &rows, None).await?;
    let many: Vec<_> = each().filter(|f| f.state.tries.attempt > KEPT_ATTEMPTS).collect();
    if many.is_empty() {
        return Ok(());
    }
    let rows = Rows::default()
        .ints(many.iter().map(|finished| finished.state.id.0))
        .ints(many.iter().map(|finished| number(finished) - i64::from(KEPT_ATTEMPTS)));
    tx.put_off(sql::OLD_ATTEMPTS, &rows, None).await
}

async fn states(tx: &mut impl Tx, new: &[NewRow<'_>], now: Millis) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let refs: Vec<String> = new.iter().map(|row| encode_refs(&row.new.place.refs)).collect();
    let scopes = all_scopes(new);
    let rows = Rows::default()
        .ints(new.iter().map(|row| row.new.id.0))
        .ints(new.iter().map(|row| row.run.0))
        .ints(new.iter().map(|row| i64::from(row.new.place.node.0)))
        .texts(new.iter().map(|row| row.new.place.path.as_str()))
        .texts(new.iter().map(|row| row.status.as_str()))
        .ints(new.iter().map(|row| row.due_at))
        .maybe_ints(new.iter().map(|row| row.session.map(|session| session.0)))
        .ints(new.iter().map(|row| i64::from(row.session.is_some())))
        .texts(refs.iter().map(String::as_str))
        .texts(scopes.iter().map(|scopes| &**scopes))
        .maybe_texts(new.iter().map(|row| row.fixed.as_deref()))
        .all(now)
        .ints(new.iter().map(|row| i64::from(row.parked)))
        .ints(new.iter().map(|row| row.namespace.0));
    tx.put_off(sql::NEW_STATE, &rows, None).await
}

/// Formats the scopes of each new state as text. All children of one fanout share their scopes, and
/// so the text.
fn all_scopes(new: &[NewRow<'_>]) -> Vec<Arc<str>> {
    let mut last: Option<(&Arc<[Scope]>, Arc<str>)> = None;
    let mut all = Vec::with_capacity(new.len());
    for row in new {
        let scopes = &row.new.place.scopes;
        let text = match &last {
            Some((known, text)) if Arc::ptr_eq(known, scopes) => text.clone(),
            _ => encode_scopes(scopes).into(),
        };
        last = Some((scopes, text.clone()));
        all.push(text);
    }
    all
}

async fn unites(tx: &mut impl Tx, new: &[&NewUnite]) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let rows = Rows::default()
        .ints(new.iter().map(|unite| unite.state.id.0))
        .ints(new.iter().map(|unite| unite.source.0))
        .ints(new.iter().map(|unite| i64::from(unite.branches)))
        .ints(new.iter().map(|unite| unite.counts.open))
        .ints(new.iter().map(|unite| unite.counts.failed))
        .ints(new.iter().map(|unite| unite.counts.arrived));
    tx.put_off(sql::NEW_UNITE, &rows, None).await
}

fn status_of(end: &End) -> Status {
    match end {
        End::Success { .. } => Status::Success,
        End::Pruned { .. } => Status::Pruned,
        End::Errored { .. } => Status::Errored,
        End::Again { .. } => Status::Created,
    }
}

fn failure_of(end: &End) -> Option<&Failure> {
    match end {
        End::Errored { failure } => Some(failure),
        _ => None,
    }
}

/// Returns the column `details` of an end: those of its failure, or the data that a pruned branch
/// left for people.
fn details_of(end: &End) -> Result<Option<String>, StoreError> {
    match end {
        End::Pruned { data } => Ok(data.clone()),
        other => failure_of(other).map_or(Ok(None), details),
    }
}

/// Returns an attempt's outcome and failure; `None` if it never ran.
fn attempt_of(end: &End) -> Option<(&'static str, Option<&Failure>)> {
    match end {
        End::Success { .. } => Some(("SUCCESS", None)),
        End::Pruned { .. } => Some(("PRUNED", None)),
        End::Again { why: Again::Requeued, .. } => Some(("REQUEUED", None)),
        End::Again { why: Again::Failed(failure), .. } | End::Errored { failure } => {
            Some(("FAILED", Some(failure)))
        }
        End::Again { why: Again::Released, .. } => None,
    }
}

/// Formats the details of a failure as JSON text.
pub(super) fn details(failure: &Failure) -> Result<Option<String>, StoreError> {
    failure.details.as_ref().map(to_json).transpose()
}

/// Formats the column `fixed`.
pub(super) fn fixed_json(
    fixed: &std::collections::BTreeMap<String, String>,
) -> Result<Option<String>, StoreError> {
    if fixed.is_empty() { Ok(None) } else { to_json(fixed).map(Some) }
}

/// Serializes a value of this crate as JSON text.
fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Data(error.to_string()))
}

fn cpu(usage: &Usage) -> i64 {
    usage.cpu_us as i64
}

fn memory(usage: &Usage) -> i64 {
    usage.peak_memory_bytes as i64
}

fn calls(usage: &Usage) -> i64 {
    i64::from(usage.host_calls)
}

fn input_bytes(usage: &Usage) -> i64 {
    usage.input_bytes as i64
}

fn output_bytes(usage: &Usage) -> i64 {
    usage.output_bytes as i64
}
