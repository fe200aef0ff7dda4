//! Reads for traces: what a lost session ended last, and the states around an attempt.
//!
//! Not here: the ends that a commit reports (`commit::report`).

use std::collections::HashSet;

use exosphere_domain::failure::{FailureKind, claim_time};
use exosphere_domain::ids::{Millis, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::json::read_stored;
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::Status;

use super::views::usage;
use crate::codec::{node_list, to_json, to_status};
use crate::commit::report::{AttemptEnd, EndedAttempt};
use crate::dialect::{Cursor, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// States by their numbers, from the first to the last.
pub type StateRange = (StateId, StateId);

/// A succeeded state, with the number of the attempt that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessfulAttempt {
    /// The key of the run's row.
    pub run: RunKey,
    /// The path of the state.
    pub path: Path,
    /// The number of the attempt.
    pub number: u32,
}

/// The number of lost sessions of a host whose spans are sent again.
const MAX_LOST_SESSIONS: i64 = 8;

/// The number of states that a search for the members of a unite examines.
const MAX_EXAMINED_STATES: u32 = 1_000;

/// An ended attempt, with the number of its state. Its session is set by the caller.
type NumberedAttempt = (StateId, EndedAttempt);

impl Store {
    /// Reads the attempts at some states that a session executed, up to `limit`: those that ended
    /// within `window` before the last one that the session itself ended, and those that ended
    /// later, by the loss of the host.
    pub async fn recent_ends(
        &self,
        session: SessionId,
        ranges: &[StateRange],
        window: Millis,
        limit: u32,
    ) -> Result<Vec<EndedAttempt>, StoreError> {
        let ranges: Vec<_> = ranges.iter().map(|(from, to)| (from.0, to.0)).collect();
        let ranges = to_json(&ranges)?;
        let params = params![&ranges, session.0, limit];
        let attempts = self.reader.rows(sql::ENDED_ATTEMPTS, &params, ended_attempt).await?;
        let states = self.reader.rows(sql::ENDED_STATES, &params, ended_state).await?;
        let own = attempts.iter().chain(&states).filter(|(_, attempt)| !is_lost(attempt));
        let latest = own.map(|(_, attempt)| attempt.ended_at).max();
        let since = latest.unwrap_or_default().saturating_sub(window);
        let mut seen = HashSet::new();
        // The record of an attempt goes before the state, which may have been cancelled after it.
        let mut recent: Vec<EndedAttempt> = attempts
            .into_iter()
            .chain(states)
            .filter(|(state, attempt)| seen.insert((*state, attempt.number)))
            .map(|(_, attempt)| attempt)
            .filter(|attempt| attempt.ended_at >= since)
            .map(|attempt| EndedAttempt { session, ..attempt })
            .collect();
        recent.truncate(limit as usize);
        Ok(recent)
    }

    /// Returns the range of the newest states.
    pub async fn newest_states(&self, count: u32) -> Result<StateRange, StoreError> {
        let read = |row: &dyn Row| Ok((StateId(row.int(0)?), StateId(row.int(1)?)));
        let newest = self.reader.row(sql::NEWEST_STATES, &params![count], read).await?;
        Ok(newest.unwrap_or((StateId(0), StateId(0))))
    }

    /// Reads the latest attempts at states, by run and path. Those that no longer exist are left
    /// out.
    pub async fn attempts_at(
        &self,
        states: &[(RunKey, Path)],
    ) -> Result<Vec<SuccessfulAttempt>, StoreError> {
        let places: Vec<_> = states.iter().map(|(run, path)| (run.0, path)).collect();
        let read = |row: &dyn Row| {
            let columns = &mut Cursor::new(row, "state");
            let run = RunKey(columns.next("run")?);
            let path = read_path(columns, run.0)?;
            Ok(SuccessfulAttempt { run, path, number: columns.next("attempt")? })
        };
        self.reader.rows(sql::ATTEMPTS_AT, &params![&to_json(&places)?], read).await
    }

    /// Reads succeeded states of some nodes below the state at `source`, in path order.
    pub async fn successes_below(
        &self,
        run: RunKey,
        source: &Path,
        nodes: &[NodeIx],
        limit: u32,
    ) -> Result<Vec<(Path, u32)>, StoreError> {
        let (end, nodes) = (source.end(), node_list(nodes));
        let params = params![run.0, source.as_str(), &end, &nodes, limit, MAX_EXAMINED_STATES];
        let read = |row: &dyn Row| {
            let path = Path::decode(&row.text(0)?);
            let path = path.map_err(|_| corrupt_row("state", "path", "of a member"))?;
            let number = u32::try_from(row.int(1)?);
            Ok((path, number.map_err(|_| corrupt_row("state", "attempt", "of a member"))?))
        };
        self.reader.rows(sql::SUCCESSES_BELOW, &params, read).await
    }

    /// Returns the sessions of a host right before this one that were not stopped gracefully, the
    /// newest [`MAX_LOST_SESSIONS`]. Such a session is ended by the next one of its host; one that
    /// another host has expired is not among them.
    pub async fn lost_sessions_before(
        &self,
        session: SessionId,
    ) -> Result<Vec<SessionId>, StoreError> {
        let read = |row: &dyn Row| Ok((row.int(0)?, row.int(1)?, row.maybe_int(2)?));
        let params = params![session.0, MAX_LOST_SESSIONS + 1];
        let sessions = self.reader.rows(sql::SESSIONS_UP_TO, &params, read).await?;
        let lost = sessions.windows(2).map_while(|pair| match pair {
            [(_, started_at, _), (before, _, Some(ended_at))] if ended_at >= started_at => {
                Some(SessionId(*before))
            }
            _ => None,
        });
        Ok(lost.collect())
    }
}

fn is_lost(attempt: &EndedAttempt) -> bool {
    matches!(attempt.end, AttemptEnd::Outcome(_, Some(FailureKind::HostLost)))
}

fn read_path(columns: &mut Cursor<'_>, key: i64) -> Result<Path, StoreError> {
    let path: String = columns.next("path")?;
    Path::decode(&path).map_err(|_| corrupt_row("state", "path", key))
}

/// Reads an attempt from the columns of [`sql::ENDED_ATTEMPTS`].
fn ended_attempt(row: &dyn Row) -> Result<NumberedAttempt, StoreError> {
    ended(row, "attempt", |text, kind, id| {
        let outcome = AttemptOutcome::parse(text);
        let outcome = outcome.ok_or_else(|| corrupt_row("attempt", "outcome", id))?;
        Ok(AttemptEnd::Outcome(outcome, kind))
    })
}

/// Reads the last attempt of a state from the columns of [`sql::ENDED_STATES`].
fn ended_state(row: &dyn Row) -> Result<NumberedAttempt, StoreError> {
    let (id, attempt) = ended(row, "state", |text, kind, id| {
        Ok(match to_status(text, id)? {
            Status::Success => AttemptEnd::Outcome(AttemptOutcome::Success, kind),
            Status::Pruned => AttemptEnd::Outcome(AttemptOutcome::Pruned, kind),
            Status::Errored => AttemptEnd::Outcome(AttemptOutcome::Errored, kind),
            _ => AttemptEnd::Cancelled,
        })
    })?;
    // The usage of a cancelled attempt is written after its end.
    let usage = attempt.usage.filter(|_| attempt.end != AttemptEnd::Cancelled);
    Ok((id, EndedAttempt { usage, ..attempt }))
}

fn ended(
    row: &dyn Row,
    table: &'static str,
    end: impl Fn(&str, Option<FailureKind>, StateId) -> Result<AttemptEnd, StoreError>,
) -> Result<NumberedAttempt, StoreError> {
    let columns = &mut Cursor::new(row, table);
    let id = StateId(columns.next("id")?);
    let number = columns.next("number")?;
    let run = RunKey(columns.next("run")?);
    let node = NodeIx(columns.next("node")?);
    let path = read_path(columns, id.0)?;
    let began_at: Option<Millis> = columns.next("began_at")?;
    let ended_at = columns.next("ended_at")?;
    let text: String = columns.next("outcome")?;
    let kind: Option<String> = columns.next("kind")?;
    let kind = kind
        .map(|kind| FailureKind::parse(&kind).ok_or_else(|| corrupt_row(table, "kind", id)))
        .transpose()?;
    let details: Option<String> = columns.next("details")?;
    let details = details.as_deref().map(read_stored).transpose();
    let details = details.map_err(|_| corrupt_row(table, "details", id))?;
    let claimed_at = kind.zip(details).and_then(|(kind, details)| claim_time(kind, &details));
    let began_at = began_at.or(claimed_at);
    let end = end(&text, kind, id)?;
    let (session, usage) = (SessionId(0), usage(columns)?);
    Ok((id, EndedAttempt { run, node, path, number, session, began_at, ended_at, end, usage }))
}
