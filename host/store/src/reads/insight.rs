//! Reads over all states of a run, and over the runs of a graph, for timelines, distributions,
//! groups of failures, comparisons and statistics. A read of a run examines a bounded number of
//! states: of a larger run, an even sample.
//!
//! Not here: what is computed from the rows (`insight` of the domain).

use std::collections::HashMap;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, RunKey, SessionId, StateId};
use exosphere_domain::insight::{AttemptTimes, FailedState, RunCost, StateTimes};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::RunStatus;

use crate::codec::{to_json, to_outcome, to_status};
use crate::dialect::{Cursor, Param, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// The maximum number of states of a run that one read examines.
const MAX_EXAMINED_STATES: u64 = 200_000;

/// The maximum number of rows of one read. A sample may have a few more than its share.
const MAX_ROWS: i64 = 250_000;

/// The characters of a failure's message that are read for its group.
const MAX_MESSAGE_CHARS: i64 = 512;

/// Returns the number of states of which one is examined.
fn stride(states: u64) -> i64 {
    i64::try_from(states.div_ceil(MAX_EXAMINED_STATES).max(1)).unwrap_or(i64::MAX)
}

impl Store {
    /// Reads the times of a run's states, or of an even sample if it has more than 200,000.
    pub async fn state_times(
        &self,
        run: RunKey,
        states: u64,
    ) -> Result<Vec<StateTimes>, StoreError> {
        let params = params![run.0, stride(states), MAX_ROWS];
        self.reader.rows(sql::STATE_TIMES, &params, state_times).await
    }

    /// Reads the times of the attempts before the last ones of some states.
    pub async fn attempt_times(
        &self,
        states: &[StateTimes],
    ) -> Result<Vec<AttemptTimes>, StoreError> {
        let retried: HashMap<i64, &StateTimes> = states
            .iter()
            .filter(|state| state.has_earlier_attempts())
            .map(|state| (state.id.0, state))
            .collect();
        if retried.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<i64> = retried.keys().copied().collect();
        let params = [Param::Text(&to_json(&ids)?), Param::Int(MAX_ROWS)];
        let rows = self.reader.rows(sql::ATTEMPT_TIMES, &params, attempt_row).await?;
        let earlier = rows.into_iter().filter_map(|row| {
            let state = retried.get(&row.state)?;
            let is_last = row.number == state.attempts && state.began_at.is_some();
            (!is_last).then_some(AttemptTimes {
                node: state.node,
                session: row.session,
                began_at: row.began_at,
                ended_at: row.ended_at,
                has_failed: row.has_failed,
            })
        });
        Ok(earlier.collect())
    }

    /// Reads the failed states of a run, of which there are `failed`, or an even sample; with their
    /// messages or without.
    pub async fn failures_of_run(
        &self,
        run: RunKey,
        failed: u64,
        has_messages: bool,
    ) -> Result<Vec<FailedState>, StoreError> {
        let chars = if has_messages { MAX_MESSAGE_CHARS } else { 0 };
        let params = params![run.0, stride(failed), MAX_ROWS, chars];
        self.reader.rows(sql::FAILED_STATE_TIMES, &params, failed_state).await
    }

    /// Reads the paths of some states.
    pub async fn paths_of(&self, states: &[StateId]) -> Result<HashMap<StateId, Path>, StoreError> {
        let ids: Vec<i64> = states.iter().map(|id| id.0).collect();
        let read = |row: &dyn Row| {
            let id = StateId(row.int(0)?);
            let path = Path::decode(&row.text(1)?);
            Ok((id, path.map_err(|_| corrupt_row("state", "path", id))?))
        };
        let rows = self.reader.rows(sql::STATE_PATHS, &params![&to_json(&ids)?], read).await?;
        Ok(rows.into_iter().collect())
    }

    /// Reads the numbers of the hosts of some sessions.
    pub async fn hosts_of(
        &self,
        sessions: &[SessionId],
    ) -> Result<HashMap<SessionId, i64>, StoreError> {
        let ids: Vec<i64> = sessions.iter().map(|id| id.0).collect();
        let read = |row: &dyn Row| Ok((SessionId(row.int(0)?), row.int(1)?));
        let rows = self.reader.rows(sql::SESSION_HOSTS, &params![&to_json(&ids)?], read).await?;
        Ok(rows.into_iter().collect())
    }

    /// Reads the newest runs of a graph that were started in an interval, at most `limit`, the
    /// newest first.
    pub async fn run_costs(
        &self,
        namespace: &Name,
        graph: &Name,
        (from, to): (Millis, Millis),
        limit: u32,
    ) -> Result<Vec<RunCost>, StoreError> {
        let (namespace, graph) = (namespace.as_str(), graph.as_str());
        let params = params![namespace, from, i64::MIN, to, i64::MIN, limit, graph];
        self.reader.rows(sql::RUN_COSTS, &params, run_cost).await
    }

    /// Finds the newest successful runs of the same graph that were started before a run, at most
    /// `limit`, the newest first.
    pub async fn earlier_successes(
        &self,
        run: RunKey,
        limit: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        let read = |row: &dyn Row| {
            let text = row.text(1)?;
            Ok(RunId(text.parse().map_err(|_| corrupt_row("run", "uuid", text))?))
        };
        self.reader.rows(sql::EARLIER_SUCCESSES, &params![run.0, limit], read).await
    }
}

/// Reads the columns of [`sql::STATE_TIMES`].
fn state_times(row: &dyn Row) -> Result<StateTimes, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let node = NodeIx(columns.next("node")?);
    let session: Option<i64> = columns.next("last_session")?;
    let status = to_status(&columns.next::<String>("status")?, id)?;
    let (due_at, began_at) = (columns.next("due_at")?, columns.next("began_at")?);
    let (ended_at, attempts) = (columns.next("ended_at")?, columns.next("attempt")?);
    let retries = columns.next("retries")?;
    let session = session.map(SessionId);
    Ok(StateTimes { id, node, session, status, due_at, began_at, ended_at, attempts, retries })
}

/// A row of [`sql::ATTEMPT_TIMES`].
struct AttemptTimesRow {
    state: i64,
    number: u32,
    session: Option<SessionId>,
    began_at: Option<Millis>,
    ended_at: Millis,
    has_failed: bool,
}

/// Reads the columns of [`sql::ATTEMPT_TIMES`].
fn attempt_row(row: &dyn Row) -> Result<AttemptTimesRow, StoreError> {
    let columns = &mut Cursor::new(row, "attempt");
    let (state, number) = (columns.next("state")?, columns.next("number")?);
    let session: Option<i64> = columns.next("session")?;
    let (began_at, ended_at) = (columns.next("began_at")?, columns.next("ended_at")?);
    let outcome = to_outcome(&columns.next::<String>("outcome")?, StateId(state))?;
    let has_failed = outcome == AttemptOutcome::Errored;
    let session = session.map(SessionId);
    Ok(AttemptTimesRow { state, number, session, began_at, ended_at, has_failed })
}

/// Reads the columns of [`sql::FAILED_STATE_TIMES`].
fn failed_state(row: &dyn Row) -> Result<FailedState, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let kind = FailureKind::parse(&columns.next::<String>("kind")?);
    let kind = kind.ok_or_else(|| corrupt_row("state", "kind", id))?;
    let (message, ended_at) = (columns.next("message")?, columns.next("ended_at")?);
    Ok(FailedState { id, kind, message, ended_at })
}

/// Reads the columns of [`sql::RUN_COSTS`].
fn run_cost(row: &dyn Row) -> Result<RunCost, StoreError> {
    let columns = &mut Cursor::new(row, "run");
    let status = columns.next::<RunStatus>("status")?;
    let (created_at, due_at) = (columns.next("created_at")?, columns.next("due_at")?);
    let ended_at = columns.next("ended_at")?;
    let cpu_us: i64 = columns.next("cpu_us")?;
    let memory_bytes: i64 = columns.next("memory_bytes")?;
    let (cpu_us, memory_bytes) = (cpu_us.unsigned_abs(), memory_bytes.unsigned_abs());
    Ok(RunCost { status, created_at, due_at, ended_at, cpu_us, memory_bytes })
}
