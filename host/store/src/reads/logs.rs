//! The logs of a run, in pages, in the order in which its attempts ended.
//!
//! Not here: the logs of an attempt that is running, which its host has in memory.

use std::fmt;
use std::str::FromStr;

use exosphere_domain::ids::{Millis, NodeIx, RunKey, StateId};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;

use super::views::Page;
use crate::codec::to_outcome;
use crate::dialect::{Cursor, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// Bytes of logs at which a page ends.
const MAX_PAGE_BYTES: i64 = 1024 * 1024;

/// The log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptLog {
    /// The path of the state.
    pub path: Path,
    /// The node that the state executes.
    pub node: NodeIx,
    /// The number of the attempt.
    pub attempt: u32,
    /// The time at which the attempt ended.
    pub ended_at: Millis,
    /// The outcome.
    pub outcome: AttemptOutcome,
    /// The lines of the log: JSON text.
    pub logs: String,
}

/// The cursor of a list of logs: the attempt after which a page begins. It names the state by its
/// path: a state's number would tell how many states other namespaces have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCursor {
    ended_at: Millis,
    attempt: u32,
    path: Path,
}

/// A text that is not a cursor of a list of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor of a list of logs; give `next` of the page before")]
pub struct BadLogCursor;

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}", self.ended_at, self.attempt, self.path.as_str())
    }
}

impl FromStr for LogCursor {
    type Err = BadLogCursor;

    fn from_str(text: &str) -> Result<Self, BadLogCursor> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(BadLogCursor);
        let ended_at = i64::from_str_radix(next()?, 16).map_err(|_| BadLogCursor)?;
        let attempt = next()?.parse().map_err(|_| BadLogCursor)?;
        let path = Path::decode(next()?).map_err(|_| BadLogCursor)?;
        Ok(LogCursor { ended_at, attempt, path })
    }
}

/// A page request for a list of logs.
#[derive(Debug, Clone, Default)]
pub struct LogPageRequest {
    /// Only logs of this state.
    pub state: Option<StateId>,
    /// Only logs of attempts that ended at this time or later.
    pub since: Option<Millis>,
    /// The cursor: the page begins after this attempt.
    pub after: Option<LogCursor>,
    /// The maximum number of logs.
    pub limit: u32,
}

impl Store {
    /// Reads a page of the logs of a run.
    pub async fn run_logs(
        &self,
        run: RunKey,
        page: &LogPageRequest,
    ) -> Result<Page<AttemptLog>, StoreError> {
        let since = page.since.unwrap_or(Millis::MIN);
        let (ended_at, state, attempt) = match &page.after {
            // A state that is gone is after those which ended at the same time: none is read twice.
            Some(LogCursor { ended_at, attempt, path }) => {
                let state = self.state_at(run, path).await?;
                (*ended_at, state.map_or(i64::MAX, |state| state.0), i64::from(*attempt))
            }
            None => (since, i64::MIN, i64::MIN),
        };
        let list = params![
            run.0,
            ended_at,
            state,
            attempt,
            page.state.map(|state| state.0),
            page.limit,
            MAX_PAGE_BYTES
        ];
        let items = self.reader.rows(sql::RUN_LOGS, &list, log).await?;
        let bytes: usize = items.iter().map(|log| log.logs.len()).sum();
        let is_full = items.len() as u64 >= u64::from(page.limit) || bytes as i64 >= MAX_PAGE_BYTES;
        let next = items.last().filter(|_| is_full).map(|last| {
            let (ended_at, attempt, path) = (last.ended_at, last.attempt, last.path.clone());
            LogCursor { ended_at, attempt, path }.to_string()
        });
        Ok(Page { items, next })
    }
}

/// Reads a log from the columns of [`sql::RUN_LOGS`].
fn log(row: &dyn Row) -> Result<AttemptLog, StoreError> {
    let columns = &mut Cursor::new(row, "attempt");
    let ended_at = columns.next("ended_at")?;
    let state: i64 = columns.next("state")?;
    let attempt = columns.next("number")?;
    let path: String = columns.next("path")?;
    let path = Path::decode(&path).map_err(|_| corrupt_row("state", "path", state))?;
    let node = NodeIx(columns.next("node")?);
    let outcome = to_outcome(&columns.next::<String>("outcome")?, StateId(state))?;
    let logs = columns.next("logs")?;
    Ok(AttemptLog { path, node, attempt, ended_at, outcome, logs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_text() {
        let path = Path::root().child(3, 0).child(12, 1);
        let cursor = LogCursor { ended_at: 1_700_000_000_000, attempt: 4, path };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1", "1.2", "x.1.", "1.x.", "1.1.!", "1.-1."] {
            assert_eq!(text.parse::<LogCursor>(), Err(BadLogCursor), "{text}");
        }
    }
}
