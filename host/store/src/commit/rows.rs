//! The rows that the operations of a batch write, with one bulk statement per table.
//!
//! Not here: the runs' rows (`run_row`), and unites that close (`unites`).

use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::{Millis, NamespaceKey, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::plan::{Changes, NewUnite, Transition};
use exosphere_domain::state::{AttemptCounts, Claimed, NewState, Scope, Status};

use super::batch::{Finished, NewRun, Stage};
use super::staging::{self, StagedChange};
use crate::codec::{encode_refs, encode_scopes, to_json};
use crate::dialect::{ParamRows, PendingWrites, Tx};
use crate::error::StoreError;
use crate::sql;

/// Maximum number of stored attempts of a state; older ones are only counted.
const MAX_STORED_ATTEMPTS: u32 = 100;

/// The rows to write before any unite is counted.
#[derive(Default)]
pub(super) struct BatchRows<'b> {
    pub finished: Vec<FinishedState<'b>>,
    /// Executions of cancelled runs: only their usage is kept.
    pub cancelled: Vec<&'b Finished>,
    pub states: Vec<NewStateRow<'b>>,
    pub unites: Vec<&'b NewUnite>,
    /// Changes of staging rows.
    pub staged: Vec<StagedChange>,
    /// Staged pieces of ends, whose children are among `states`.
    pub pieces: Vec<&'b Stage>,
    /// New runs with labels.
    pub labelled: Vec<&'b NewRun>,
    /// Store values fixed for staged children, by parent and child node.
    pub snapshots: Vec<(StateId, NodeIx, String)>,
}

/// An execution that ended under a valid claim.
pub(super) struct FinishedState<'b> {
    pub finished: &'b Finished,
    /// The changes, if they are not the planned ones.
    pub replanned: Option<Changes>,
    /// Set if the run is paused, so that a repeated state is held back.
    pub held_back: bool,
    /// The time at which the attempt began, by the clock of the commits; `None` if it never began,
    /// or its host was lost.
    pub began_at: Option<Millis>,
}

/// The row of a new state.
pub(super) struct NewStateRow<'b> {
    pub run: RunKey,
    pub namespace: NamespaceKey,
    pub new: &'b NewState,
    pub status: Status,
    pub due_at: Millis,
    pub session: Option<SessionId>,
    pub store_snapshot: Option<String>,
    pub held_back: bool,
}

impl FinishedState<'_> {
    fn end(&self) -> &Transition {
        &self.replanned.as_ref().unwrap_or(&self.finished.changes).end
    }
}

impl BatchRows<'_> {
    /// Adds all rows to the pending writes; those of staging that need an order are written
    /// immediately.
    pub(super) async fn write<'r>(
        &'r self,
        tx: &mut impl Tx,
        pending: &mut PendingWrites<'r>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let is_repeated =
            |state: &&FinishedState<'_>| matches!(state.end(), Transition::Reschedule { .. });
        let (repeats, ends): (Vec<_>, Vec<_>) = self.finished.iter().partition(is_repeated);
        finish(pending, &ends, now)?;
        reschedule(pending, &repeats, now);
        save_usage(pending, &self.cancelled);
        new_outputs(pending, &ends);
        staging::write(tx, pending, &self.staged, &self.pieces, &self.snapshots).await?;
        new_attempts(pending, &self.finished, now)?;
        new_states(pending, &self.states, now);
        new_unites(pending, &self.unites);
        new_labels(pending, &self.labelled, now);
        Ok(())
    }
}

/// Returns the claims of ended executions, as the first columns of a guarded statement.
fn claims(ended: &[&FinishedState<'_>]) -> ParamRows<'static> {
    super::claims(ended.iter().map(|ended| &ended.finished.state))
}

fn finish<'r>(
    pending: &mut PendingWrites<'r>,
    ends: &[&'r FinishedState<'_>],
    now: Millis,
) -> Result<(), StoreError> {
    let details: Vec<_> =
        ends.iter().map(|ended| details_of(ended.end())).collect::<Result<_, _>>()?;
    let failures = || ends.iter().map(|ended| failure_of(ended.end()));
    let rows = claims(ends)
        .texts(ends.iter().map(|ended| status_of(ended.end()).as_str()))
        .all(now)
        .maybe_ints(ends.iter().map(|ended| match ended.end() {
            Transition::Success { outputs, .. } => {
                let staged = ended.finished.staged.map_or(0, |staged| staged.outputs);
                Some((outputs.len() + staged) as i64)
            }
            _ => None,
        }))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.kind.as_str())))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.message.as_str())))
        .maybe_texts(details)
        .maybe_ints(ends.iter().map(|ended| ended.began_at));
    let rows = with_usage(rows, ends.iter().map(|ended| ended.finished.usage.as_ref()));
    pending.add_guarded(sql::FINISH, rows);
    Ok(())
}

fn save_usage(pending: &mut PendingWrites<'_>, cancelled: &[&Finished]) {
    let used: Vec<(&Claimed, &Usage)> = cancelled
        .iter()
        .filter_map(|finished| Some((&finished.state, finished.usage.as_ref()?)))
        .collect();
    let rows = ParamRows::default()
        .ints(used.iter().map(|(state, _)| state.id.0))
        .ints(used.iter().map(|(state, _)| state.claim.fence.0));
    pending.add(sql::SAVE_USAGE, with_usage(rows, used.iter().map(|(_, usage)| Some(*usage))));
}

fn reschedule(pending: &mut PendingWrites<'_>, repeats: &[&FinishedState<'_>], now: Millis) {
    let rescheduled: Vec<(Millis, AttemptCounts)> = repeats
        .iter()
        .filter_map(|ended| match ended.end() {
            Transition::Reschedule { after, attempts, .. } => Some((*after, *attempts)),
            _ => None,
        })
        .collect();
    let attempts = |get: fn(&AttemptCounts) -> u32| {
        rescheduled.iter().map(move |(_, attempts)| i64::from(get(attempts)))
    };
    let rows = claims(repeats)
        .ints(rescheduled.iter().map(|(after, _)| now.saturating_add(*after)))
        .ints(attempts(|attempts| attempts.attempt))
        .ints(attempts(|attempts| attempts.retries))
        .ints(attempts(|attempts| attempts.requeues))
        .ints(attempts(|attempts| attempts.host_losses))
        .ints(attempts(|attempts| attempts.conflicts))
        .ints(repeats.iter().map(|ended| i64::from(ended.held_back)))
        .ints(rescheduled.iter().map(|(after, _)| i64::from(*after > 0)));
    pending.add_guarded(sql::RESCHEDULE, rows);
}

fn new_outputs<'r>(pending: &mut PendingWrites<'r>, ends: &[&'r FinishedState<'_>]) {
    let all = || {
        ends.iter().flat_map(|ended| {
            let outputs = match ended.end() {
                Transition::Success { outputs, .. } => outputs.as_slice(),
                _ => &[],
            };
            outputs.iter().enumerate().map(move |(number, body)| (ended, number, body))
        })
    };
    let rows = ParamRows::default()
        .ints(all().map(|(ended, ..)| ended.finished.state.id.0))
        .ints(all().map(|(_, number, _)| number as i64))
        .texts(all().map(|(.., body)| body));
    pending.add(sql::NEW_OUTPUT, rows);
}

/// Stores attempts, except those that the state's own row describes completely.
fn new_attempts<'r>(
    pending: &mut PendingWrites<'r>,
    ended: &'r [FinishedState<'_>],
    now: Millis,
) -> Result<(), StoreError> {
    let stored: Vec<(&FinishedState<'_>, AttemptOutcome, Option<&Failure>)> = ended
        .iter()
        .filter_map(|ended| {
            let (outcome, failure) = ended.end().attempt()?;
            let is_first = ended.finished.state.attempts.attempt == 1;
            let has_logs = ended.finished.logs.is_some();
            let has_succeeded =
                matches!(ended.end(), Transition::Success { .. } | Transition::Pruned { .. });
            (!(is_first && has_succeeded) || has_logs).then_some((ended, outcome, failure))
        })
        .collect();
    let details: Vec<_> = stored
        .iter()
        .map(|(.., failure)| failure.map_or(Ok(None), details))
        .collect::<Result<_, _>>()?;
    let finished_states = || stored.iter().map(|(ended, ..)| ended.finished);
    let failures = || stored.iter().map(|(.., failure)| *failure);
    let number = |finished: &Finished| i64::from(finished.state.attempts.attempt);
    let rows = ParamRows::default()
        .ints(finished_states().map(|finished| finished.state.id.0))
        .ints(finished_states().map(number))
        .ints(finished_states().map(|finished| finished.state.claim.session.0))
        .maybe_ints(stored.iter().map(|(ended, ..)| ended.began_at))
        .all(now)
        .texts(stored.iter().map(|(_, outcome, _)| outcome.as_str()))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.kind.as_str())))
        .maybe_texts(failures().map(|failure| failure.map(|failure| failure.message.as_str())))
        .maybe_texts(details)
        .maybe_texts(finished_states().map(|finished| finished.logs.as_deref()))
        .maybe_ints(finished_states().map(|f| f.logs.is_some().then_some(f.run.key.0)));
    let rows = with_usage(rows, finished_states().map(|finished| finished.usage.as_ref()));
    pending.add(sql::NEW_ATTEMPT, rows);
    let over_limit: Vec<_> =
        finished_states().filter(|f| f.state.attempts.attempt > MAX_STORED_ATTEMPTS).collect();
    let rows = ParamRows::default()
        .ints(over_limit.iter().map(|finished| finished.state.id.0))
        .ints(over_limit.iter().map(|finished| number(finished) - i64::from(MAX_STORED_ATTEMPTS)));
    pending.add(sql::DELETE_OLD_ATTEMPTS, rows);
    Ok(())
}

fn new_states<'r>(pending: &mut PendingWrites<'r>, new: &'r [NewStateRow<'_>], now: Millis) {
    let rows = ParamRows::default()
        .ints(new.iter().map(|row| row.new.id.0))
        .ints(new.iter().map(|row| row.run.0))
        .ints(new.iter().map(|row| i64::from(row.new.place.node.0)))
        .texts(new.iter().map(|row| row.new.place.path.as_str()))
        .texts(new.iter().map(|row| row.status.as_str()))
        .ints(new.iter().map(|row| row.due_at))
        .maybe_ints(new.iter().map(|row| row.session.map(|session| session.0)))
        .ints(new.iter().map(|row| i64::from(row.session.is_some())))
        .texts(new.iter().map(|row| encode_refs(&row.new.place.refs)))
        .shared_texts(all_scopes(new))
        .maybe_texts(new.iter().map(|row| row.store_snapshot.as_deref()))
        .all(now)
        .ints(new.iter().map(|row| i64::from(row.held_back)))
        .ints(new.iter().map(|row| row.namespace.0));
    pending.add(sql::NEW_STATE, rows);
}

/// Formats the scopes of each new state as text. All children of one fanout share their scopes, so
/// the text is made once.
fn all_scopes(new: &[NewStateRow<'_>]) -> Vec<Arc<str>> {
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

fn new_unites(pending: &mut PendingWrites<'_>, new: &[&NewUnite]) {
    let rows = ParamRows::default()
        .ints(new.iter().map(|unite| unite.state.id.0))
        .ints(new.iter().map(|unite| unite.source.0))
        .ints(new.iter().map(|unite| i64::from(unite.branches)))
        .ints(new.iter().map(|unite| unite.counts.open))
        .ints(new.iter().map(|unite| unite.counts.failed))
        .ints(new.iter().map(|unite| unite.counts.arrived));
    pending.add(sql::NEW_UNITE, rows);
}

fn new_labels<'r>(pending: &mut PendingWrites<'r>, new: &'r [&NewRun], now: Millis) {
    let all = || {
        let infos = new.iter().map(|new| &*new.info);
        infos.flat_map(|info| info.labels.iter().map(move |(key, value)| (info, key, value)))
    };
    let rows = ParamRows::default()
        .ints(all().map(|(info, ..)| info.key.0))
        .texts(all().map(|(_, key, _)| key))
        .texts(all().map(|(.., value)| value))
        .texts(all().map(|(info, ..)| info.namespace.as_str()))
        .all(now);
    pending.add(sql::NEW_LABEL, rows);
}

/// Adds the columns of `usage_columns!`.
fn with_usage<'r, 'u>(
    rows: ParamRows<'r>,
    all: impl Iterator<Item = Option<&'u Usage>> + Clone,
) -> ParamRows<'r> {
    let each = |get: fn(&Usage) -> i64| all.clone().map(move |usage| usage.map(get));
    rows.maybe_ints(each(|usage| usage.cpu_us as i64))
        .maybe_ints(each(|usage| usage.peak_memory_bytes as i64))
        .maybe_ints(each(|usage| i64::from(usage.host_calls)))
        .maybe_ints(each(|usage| usage.input_bytes as i64))
        .maybe_ints(each(|usage| usage.output_bytes as i64))
}

fn status_of(end: &Transition) -> Status {
    match end {
        Transition::Success { .. } => Status::Success,
        Transition::Pruned { .. } => Status::Pruned,
        Transition::Errored { .. } => Status::Errored,
        Transition::Reschedule { .. } => Status::Created,
    }
}

fn failure_of(end: &Transition) -> Option<&Failure> {
    match end {
        Transition::Errored { failure } => Some(failure),
        _ => None,
    }
}

/// Returns the column `details` of an end: those of its failure, or the data that a pruned branch
/// left for people.
fn details_of(end: &Transition) -> Result<Option<String>, StoreError> {
    match end {
        Transition::Pruned { data } => Ok(data.clone()),
        other => failure_of(other).map_or(Ok(None), details),
    }
}

/// Formats the details of a failure as JSON text.
pub(super) fn details(failure: &Failure) -> Result<Option<String>, StoreError> {
    failure.details.as_ref().map(to_json).transpose()
}
