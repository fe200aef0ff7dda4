//! Sessions: one start of one host each. A session that others may see lives by
//! a lease, which its host renews by a beat; what an ended one holds is taken
//! back.

use std::time::Duration;

use exosphere_domain::ids::{Fence, Millis, RunKey, SessionId, StateId};
use exosphere_domain::state::Claimed;
use sqlx::Row;

use crate::error::StoreError;
use crate::numbers::reserve;
use crate::rows::{claimed, number};
use crate::text::{Cells, Tx, values};
use crate::{Store, sql, write};

/// How long a session is taken to be alive after its host last said so. By the
/// database's clock.
pub const LEASE: Duration = Duration::from_secs(10);

/// The longest that a beat may take.
const BEAT_WITHIN: Duration = Duration::from_secs(3);

/// What a host learns by a beat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beat {
    /// What time it is, by the database's clock.
    pub now: Millis,
    /// Whether the session still lives. If not, another host has ended it, and
    /// takes or has taken what it held.
    pub alive: bool,
    /// When the next state is due, of all that may be claimed.
    pub next_due: Option<Millis>,
    /// Sessions that have ended and hold states.
    pub lost: Vec<SessionId>,
    /// Sessions that this beat ended.
    pub ended: Vec<SessionId>,
}

/// A state that a session held when it ended.
#[derive(Debug)]
pub struct Lost {
    /// The state, as it was claimed.
    pub state: Claimed,
    /// Whether its host noted that it began.
    pub noted: bool,
}

/// A run whose states are still to be brought in line with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unswept {
    /// The run.
    pub run: RunKey,
    /// The event that asked for a sweep; 0 if none did.
    pub event: i64,
    /// The event by which a redrive in parts began; 0 if none is under way.
    pub redrive: i64,
}

impl Store {
    /// Begins a session for the host of a data folder. By that the older ones
    /// of the folder have ended, and on SQLite all others.
    pub async fn begin_session(&self, host: &str, now: Millis) -> Result<SessionId, StoreError> {
        let (host, alone) = (host.to_owned(), !self.is_shared());
        write!(self, now, |tx| begin(tx, &host, alone))
    }

    /// Ends a session in good order, when it holds nothing any more; or that of
    /// a host which is known to be gone.
    pub async fn end_session(&self, session: SessionId, now: Millis) -> Result<(), StoreError> {
        write!(self, now, |tx| end(tx, session))
    }

    /// Says that a session lives, and looks after the others. On SQLite there
    /// are none, and nothing is asked.
    pub async fn beat(&self, session: SessionId) -> Result<Beat, StoreError> {
        let Some(side) = &self.side else {
            return Ok(Beat { alive: true, ..Beat::default() });
        };
        let lease = LEASE.as_millis() as i64;
        let beat = sqlx::query(sql::BEAT).bind(session.0).bind(lease);
        let row = side.row(beat, BEAT_WITHIN).await?;
        let sessions = |at| -> Result<Vec<SessionId>, StoreError> {
            Ok(row.try_get::<Vec<i64>, _>(at)?.into_iter().map(SessionId).collect())
        };
        Ok(Beat {
            now: row.try_get(0)?,
            alive: row.try_get::<i64, _>(1)? == 1,
            next_due: row.try_get(2)?,
            lost: sessions(3)?,
            ended: sessions(4)?,
        })
    }

    /// Asks the database for an answer, within a time. On SQLite there is nobody
    /// to ask: a commit that fails tells.
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

    /// Writes a row of this session as it is, to learn whether the database can
    /// be written to: on a full disk a commit that writes nothing goes through.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it cannot.
    pub async fn prove_writable(&self, session: SessionId, now: Millis) -> Result<(), StoreError> {
        write!(self, now, |tx| tx.execute(sql::TOUCH_SESSION, &values![session.0])).map(drop)
    }

    /// Returns the latest time that the database has from commits, as far as the
    /// newest rows tell: sessions, states, failed attempts and outputs.
    pub async fn latest_time(&self) -> Result<Millis, StoreError> {
        let latest = self.reader.row(sql::LATEST_TIME, &[], number).await?;
        Ok(latest.unwrap_or_default())
    }

    /// Sessions that have ended and hold states of live runs.
    pub async fn lost_sessions(&self, now: Millis) -> Result<Vec<SessionId>, StoreError> {
        let lost = write!(self, now, |tx| tx.query(sql::LOST_SESSIONS, &[], number))?;
        Ok(lost.into_iter().map(SessionId).collect())
    }

    /// States of live runs that a session holds, behind a number, some at a
    /// time.
    pub async fn held_by(
        &self,
        session: SessionId,
        after: StateId,
        most: u32,
        now: Millis,
    ) -> Result<Vec<Lost>, StoreError> {
        write!(self, now, |tx| held_by(tx, session, after, most))
    }

    /// Returns what was staged for ends that never came.
    pub async fn leftovers(&self) -> Result<Vec<(StateId, RunKey, Fence)>, StoreError> {
        self.reader.rows(sql::LEFTOVERS, &[], leftover).await
    }

    /// Returns what is staged of an execution, for whichever end.
    pub async fn staged(
        &self,
        state: StateId,
    ) -> Result<Option<(StateId, RunKey, Fence)>, StoreError> {
        self.reader.row(sql::LEFTOVER_OF, &values![state.0], leftover).await
    }

    /// Returns the runs whose states are still to be brought in line with them.
    pub async fn unswept(&self) -> Result<Vec<Unswept>, StoreError> {
        let unswept = |row: &dyn Cells| {
            Ok(Unswept { run: RunKey(row.int(0)?), event: row.int(1)?, redrive: row.int(2)? })
        };
        self.reader.rows(sql::UNSWEPT, &[], unswept).await
    }
}

fn leftover(row: &dyn Cells) -> Result<(StateId, RunKey, Fence), StoreError> {
    Ok((StateId(row.int(0)?), RunKey(row.int(1)?), Fence(row.int(2)?)))
}

async fn begin(tx: &mut impl Tx, host: &str, alone: bool) -> Result<SessionId, StoreError> {
    let id = reserve(tx, "session", 1).await? - 1;
    let now = tx.now();
    let until = now.saturating_add(LEASE.as_millis() as i64);
    tx.execute(sql::BEGIN_SESSION, &values![id, now, until, host]).await?;
    match alone {
        true => tx.execute(sql::END_OTHERS, &values![id, now]).await?,
        false => tx.execute(sql::END_OLDER, &values![id, now, host]).await?,
    };
    Ok(SessionId(id))
}

async fn end(tx: &mut impl Tx, session: SessionId) -> Result<(), StoreError> {
    let now = tx.now();
    tx.execute(sql::END_SESSION, &values![session.0, now]).await.map(drop)
}

async fn held_by(
    tx: &mut impl Tx,
    session: SessionId,
    after: StateId,
    most: u32,
) -> Result<Vec<Lost>, StoreError> {
    let held = tx.query(sql::HELD_BY, &values![session.0, after.0, most], claimed).await?;
    Ok(held.into_iter().map(|held| Lost { state: held.leased.state, noted: held.noted }).collect())
}
