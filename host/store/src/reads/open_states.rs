//! Reads of states that have not ended, for the reasons why they have not. Each is bounded, whatever
//! the size of the run.
//!
//! Not here: the reasons (the orchestrator).

use std::sync::Arc;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Millis, NamespaceKey, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::{Counts, Scope, Status};

use crate::codec::{decode_scopes, read_int, to_json, to_outcome, to_status};
use crate::dialect::{Cursor, Param, Row, Statement, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// A state, and what tells why it has not ended.
#[derive(Debug, Clone)]
pub struct OpenState {
    /// The number of the state.
    pub id: StateId,
    /// The node that the state executes.
    pub node: NodeIx,
    /// The path of the state.
    pub path: Path,
    /// The status of the state. One that was read alone may have ended.
    pub status: Status,
    /// The time at which the state was created.
    pub created_at: Millis,
    /// The time from which it may run.
    pub due_at: Millis,
    /// The number of retries used up.
    pub retries: u32,
    /// Set if it waits for its time.
    pub is_delayed: bool,
    /// Set if it is held back by a pause.
    pub is_held_back: bool,
    /// The unites around it.
    pub scopes: Arc<[Scope]>,
    /// The claim, if a host has claimed it.
    pub holder: Option<Holder>,
    /// The outcome of its last attempt, and the kind of the failure, if an attempt has ended.
    pub last: Option<(AttemptOutcome, Option<FailureKind>)>,
}

/// The claim of a state.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The session that claimed it.
    pub session: SessionId,
    /// The name of the session's host.
    pub host: String,
    /// Set if the session is alive.
    pub is_alive: bool,
    /// The time at which the session ended.
    pub ended_at: Option<Millis>,
    /// The time of the claim.
    pub claimed_at: Option<Millis>,
}

/// A kind of leaves that are not ready. A leaf is a state that is CREATED or QUEUED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// A host has claimed it.
    Claimed,
    /// It waits for a time.
    Delayed,
    /// The run is paused; the leaf would be ready otherwise.
    HeldBack,
}

impl Store {
    /// Reads states, which may have ended.
    pub async fn open_states(&self, states: &[StateId]) -> Result<Vec<OpenState>, StoreError> {
        self.reader.rows(sql::OPEN_STATES, &params![&id_list(states)?], open_state).await
    }

    /// Reads the first leaves of a kind in a run, up to `limit`.
    pub async fn leaves(
        &self,
        run: RunKey,
        kind: LeafKind,
        limit: u32,
    ) -> Result<Vec<OpenState>, StoreError> {
        let statement = match kind {
            LeafKind::Claimed => sql::QUEUED_STATES,
            LeafKind::Delayed => sql::DELAYED_STATES,
            LeafKind::HeldBack => sql::HELD_BACK_STATES,
        };
        self.reader.rows(statement, &params![run.0, limit], open_state).await
    }

    /// Counts the states of a run that wait for a time.
    pub async fn delayed_count(&self, run: RunKey) -> Result<u64, StoreError> {
        self.count(sql::DELAYED_COUNT, &params![run.0]).await
    }

    /// Reads the first ready states of a run, up to `limit`. Those in the queue of a wide end are
    /// not among them.
    pub async fn ready_states(
        &self,
        namespace: NamespaceKey,
        run: RunKey,
        limit: u32,
    ) -> Result<Vec<OpenState>, StoreError> {
        self.reader.rows(sql::READY_STATES, &params![run.0, limit, namespace.0], open_state).await
    }

    /// Counts the ready states of a namespace, up to `limit`.
    pub async fn ready_count(
        &self,
        namespace: NamespaceKey,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.count(sql::READY_COUNT, &params![namespace.0, limit]).await
    }

    async fn count(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> Result<u64, StoreError> {
        let count = self.reader.row(statement, params, read_int).await?;
        Ok(count.unwrap_or_default().unsigned_abs())
    }

    /// Reads the counters of unites.
    pub async fn unite_counts(
        &self,
        unites: &[StateId],
    ) -> Result<Vec<(StateId, Counts)>, StoreError> {
        let read = |row: &dyn Row| {
            let columns = &mut Cursor::new(row, "unite");
            let unite = StateId(columns.next("state")?);
            let (open, failed) = (columns.next("open")?, columns.next("failed")?);
            Ok((unite, Counts { open, failed, arrived: columns.next("arrived")? }))
        };
        self.reader.rows(sql::UNITE_COUNTS, &params![&id_list(unites)?], read).await
    }
}

/// Formats states as a JSON list.
fn id_list(states: &[StateId]) -> Result<String, StoreError> {
    to_json(&states.iter().map(|state| state.0).collect::<Vec<_>>())
}

/// Reads a state from the columns of `open_states!` in `sql::open_states`.
fn open_state(row: &dyn Row) -> Result<OpenState, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let node = NodeIx(columns.next("node")?);
    let path: String = columns.next("path")?;
    let path = Path::decode(&path).map_err(|_| corrupt_row("state", "path", id))?;
    let status = to_status(&columns.next::<String>("status")?, id)?;
    let (created_at, due_at) = (columns.next("created_at")?, columns.next("due_at")?);
    let (retries, delayed) = (columns.next("retries")?, columns.next::<i64>("delayed")?);
    let held_back: i64 = columns.next("held_back")?;
    let scopes: String = columns.next("scopes")?;
    let scopes = decode_scopes(&scopes, id)?;
    let session: Option<i64> = columns.next("session")?;
    let (claimed_at, host) = (columns.next("began_at")?, columns.next::<Option<String>>("name")?);
    let (ended_at, alive) = (columns.next("ended_at")?, columns.next::<i64>("alive")?);
    let outcome: Option<String> = columns.next("outcome")?;
    let outcome = outcome.map(|outcome| to_outcome(&outcome, id)).transpose()?;
    let kind: Option<String> = columns.next("kind")?;
    let kind = kind
        .map(|kind| FailureKind::parse(&kind).ok_or_else(|| corrupt_row("attempt", "kind", id)));
    let kind = kind.transpose()?;
    let holder = session.map(|session| Holder {
        session: SessionId(session),
        host: host.unwrap_or_else(|| "a host".to_owned()),
        is_alive: alive == 1,
        ended_at,
        claimed_at,
    });
    Ok(OpenState {
        id,
        node,
        path,
        status,
        created_at,
        due_at,
        retries,
        is_delayed: delayed == 1,
        is_held_back: held_back == 1,
        scopes,
        holder,
        last: outcome.map(|outcome| (outcome, kind)),
    })
}
