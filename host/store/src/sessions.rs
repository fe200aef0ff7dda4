//! Sessions: one start of one host each. On a shared database a session lives by a lease, which its
//! host renews with a heartbeat. States that an ended session holds are reclaimed.

use std::time::Duration;

use exosphere_domain::ids::{Fence, Millis, RunKey, SessionId, StateId};
use exosphere_domain::state::Claimed;
use sqlx::Row as _;

use crate::codec::{HeldState, read_held, read_int};
use crate::dialect::{Cursor, Row, Tx, params};
use crate::error::StoreError;
use crate::id_blocks::reserve;
use crate::{Store, in_transaction, sql};

/// The lease: how long a session counts as alive after its last heartbeat, by the database's clock.
pub const LEASE: Duration = Duration::from_secs(10);

/// The timeout of a heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum number of hosts in a list.
pub const MAX_HOSTS: i64 = 1_000;

/// A host, as it introduces itself when a session begins.
#[derive(Debug, Clone)]
pub struct HostIdentity {
    /// The id of its data folder, by which it is known.
    pub folder: String,
    /// The name of the host, for people.
    pub name: String,
    /// The version of its program.
    pub version: String,
}

impl HostIdentity {
    /// Returns the identity of a host of this version, by the id of its folder and its name.
    pub fn new(folder: &str, name: &str) -> Self {
        let (folder, name) = (folder.to_owned(), name.to_owned());
        HostIdentity { folder, name, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// A host, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// The number of the host, which stays with its data folder.
    pub number: i64,
    /// The name of the host, for people.
    pub name: String,
    /// The version of its program; empty for one that has not run since names were stored.
    pub version: String,
    /// The begin of its first session.
    pub first_seen_at: Millis,
    /// The begin of its newest session.
    pub started_at: Millis,
    /// The end of its newest session, if that has ended.
    pub ended_at: Option<Millis>,
    /// Set if its newest session has not ended, nor is its heartbeat overdue.
    pub alive: bool,
}

/// The result of a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The current time, by the database's clock.
    pub now: Millis,
    /// Set if the session is alive. Otherwise another host has expired it, and reclaims or has
    /// reclaimed its states.
    pub alive: bool,
    /// The due time of the next claimable state.
    pub next_due: Option<Millis>,
    /// Ended sessions that still hold states.
    pub lost: Vec<SessionId>,
    /// Sessions that this heartbeat expired.
    pub ended: Vec<SessionId>,
}

/// A state that a session held when it ended.
#[derive(Debug)]
pub struct LostClaim {
    /// The state, with its claim.
    pub state: Claimed,
    /// Set if the host recorded that the execution began.
    pub has_begun: bool,
    /// The time of the claim.
    pub claimed_at: Option<Millis>,
}

/// A run whose states are still to be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PendingSweep {
    /// The key of the run's row.
    pub run: RunKey,
    /// The event that asked for the sweep; 0 if none did.
    pub event: i64,
    /// The event by which a redrive in parts began; 0 if none is under way.
    pub redrive: i64,
}

impl Store {
    /// Begins a session of a host. That ends the older sessions of its data folder, and on SQLite
    /// all others.
    pub async fn begin_session(
        &self,
        host: &HostIdentity,
        now: Millis,
    ) -> Result<SessionId, StoreError> {
        let (host, alone) = (host.clone(), !self.is_shared());
        in_transaction!(self, now, |tx| begin(tx, &host, alone))
    }

    /// Lists the hosts that have had sessions, the first [`MAX_HOSTS`].
    pub async fn hosts(&self) -> Result<Vec<HostView>, StoreError> {
        self.reader.rows(sql::HOSTS, &params![MAX_HOSTS], host).await
    }

    /// Ends a session after a graceful stop, when it holds no states; or the session of a host that
    /// is known to be gone.
    pub async fn end_session(&self, session: SessionId, now: Millis) -> Result<(), StoreError> {
        in_transaction!(self, now, |tx| end(tx, session))
    }

    /// Sends a heartbeat: renews the session and expires overdue ones. On SQLite there are no other
    /// sessions, and no query is made.
    pub async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, StoreError> {
        let Some(side) = &self.side else {
            return Ok(Heartbeat { alive: true, ..Heartbeat::default() });
        };
        let lease = LEASE.as_millis() as i64;
        let heartbeat = sqlx::query(sql::HEARTBEAT).bind(session.0).bind(lease);
        let row = side.row(heartbeat, HEARTBEAT_TIMEOUT).await?;
        let sessions = |at| -> Result<Vec<SessionId>, StoreError> {
            Ok(row.try_get::<Vec<i64>, _>(at)?.into_iter().map(SessionId).collect())
        };
        Ok(Heartbeat {
            now: row.try_get(0)?,
            alive: row.try_get::<i64, _>(1)? == 1,
            next_due: row.try_get(2)?,
            lost: sessions(3)?,
            ended: sessions(4)?,
        })
    }

    /// Checks that the database answers within a time. Does nothing on SQLite, where a failing
    /// commit shows an outage.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] without an answer.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        match &self.side {
            Some(side) => side.row(sqlx::query(sql::PING), within).await.map(drop),
            None => Ok(()),
        }
    }

    /// Rewrites this session's row unchanged, to learn whether the database accepts writes. On a
    /// full disk a commit without writes would succeed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it does not.
    pub async fn prove_writable(&self, session: SessionId, now: Millis) -> Result<(), StoreError> {
        in_transaction!(self, now, |tx| tx.execute(sql::TOUCH_SESSION, &params![session.0]))
            .map(drop)
    }

    /// Returns the latest commit time in the database, by its newest rows: sessions, states, failed
    /// attempts and outputs.
    pub async fn latest_time(&self) -> Result<Millis, StoreError> {
        let latest = self.reader.row(sql::LATEST_TIME, &[], read_int).await?;
        Ok(latest.unwrap_or_default())
    }

    /// Returns ended sessions that hold states of live runs.
    pub async fn lost_sessions(&self, now: Millis) -> Result<Vec<SessionId>, StoreError> {
        let lost = in_transaction!(self, now, |tx| tx.query(sql::LOST_SESSIONS, &[], read_int))?;
        Ok(lost.into_iter().map(SessionId).collect())
    }

    /// Returns a page of the states of live runs that a session holds, after a state number.
    pub async fn held_by(
        &self,
        session: SessionId,
        after: StateId,
        limit: u32,
        now: Millis,
    ) -> Result<Vec<LostClaim>, StoreError> {
        in_transaction!(self, now, |tx| held_by(tx, session, after, limit))
    }

    /// Returns the staging rows of ends that were never committed: state, run and fence.
    pub async fn leftovers(&self) -> Result<Vec<(StateId, RunKey, Fence)>, StoreError> {
        self.reader.rows(sql::LEFTOVERS, &[], leftover).await
    }

    /// Returns the staging row of an execution, whichever end staged it: state, run and fence.
    pub async fn staged(
        &self,
        state: StateId,
    ) -> Result<Option<(StateId, RunKey, Fence)>, StoreError> {
        self.reader.row(sql::LEFTOVER_OF, &params![state.0], leftover).await
    }

    /// Returns the runs whose states are still to be swept.
    pub async fn pending_sweeps(&self) -> Result<Vec<PendingSweep>, StoreError> {
        let sweep_event = |row: &dyn Row| {
            Ok(PendingSweep { run: RunKey(row.int(0)?), event: row.int(1)?, redrive: row.int(2)? })
        };
        self.reader.rows(sql::PENDING_SWEEPS, &[], sweep_event).await
    }
}

fn leftover(row: &dyn Row) -> Result<(StateId, RunKey, Fence), StoreError> {
    Ok((StateId(row.int(0)?), RunKey(row.int(1)?), Fence(row.int(2)?)))
}

async fn begin(
    tx: &mut impl Tx,
    host: &HostIdentity,
    alone: bool,
) -> Result<SessionId, StoreError> {
    let id = reserve(tx, "session", 1).await? - 1;
    let now = tx.now();
    let HostIdentity { folder, name, version } = host;
    let number = match tx.query(sql::HOST_NUMBER, &params![folder], read_int).await?.pop() {
        Some(number) => number,
        None => reserve(tx, "host", 1).await? - 1,
    };
    tx.execute(sql::NAME_HOST, &params![number, folder, name, version, now]).await?;
    let expires_at = now.saturating_add(LEASE.as_millis() as i64);
    tx.execute(sql::BEGIN_SESSION, &params![id, now, expires_at, folder]).await?;
    if alone {
        tx.execute(sql::END_OTHERS, &params![id, now]).await?;
    } else {
        tx.execute(sql::END_OLDER, &params![id, now, folder]).await?;
    }
    Ok(SessionId(id))
}

fn host(row: &dyn Row) -> Result<HostView, StoreError> {
    let columns = &mut Cursor::new(row, "host");
    Ok(HostView {
        number: columns.next("id")?,
        name: columns.next("name")?,
        version: columns.next("version")?,
        first_seen_at: columns.next("first_seen_at")?,
        started_at: columns.next("started_at")?,
        ended_at: columns.next("ended_at")?,
        alive: columns.next("alive")?,
    })
}

async fn end(tx: &mut impl Tx, session: SessionId) -> Result<(), StoreError> {
    let now = tx.now();
    tx.execute(sql::END_SESSION, &params![session.0, now]).await.map(drop)
}

async fn held_by(
    tx: &mut impl Tx,
    session: SessionId,
    after: StateId,
    limit: u32,
) -> Result<Vec<LostClaim>, StoreError> {
    let held = tx.query(sql::HELD_BY, &params![session.0, after.0, limit], read_held).await?;
    let lost = |(held, claimed_at): (HeldState, _)| LostClaim {
        state: held.claimed.state,
        has_begun: held.has_begun,
        claimed_at,
    };
    Ok(held.into_iter().map(lost).collect())
}
