//! Figures of the whole database, read when metrics are asked for. On Postgres they have a
//! connection of their own, with a timeout, so that no other read waits for them.
//!
//! Not here: how often they are read (`exosphere_orchestrator`, `metrics`).

use std::time::Duration;

use exosphere_domain::ids::Millis;
use sqlx::postgres::PgConnectOptions;

use crate::backend::arguments::bind;
use crate::backend::postgres::ConnectionSlot;
use crate::dialect::{Row, params};
use crate::error::StoreError;
use crate::{Store, sql};

/// Maximum number of due states that are counted, ready and delayed ones each.
pub const MAX_COUNTED_STATES: u32 = 100_000;

/// The timeout of the statement.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Figures of the whole database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseGauges {
    /// The number of states that are due and not claimed.
    pub states_due: i64,
    /// The time for which the oldest of them has been due, in milliseconds.
    pub oldest_due_ms: Millis,
    /// The number of hosts that are alive.
    pub hosts_alive: i64,
    /// The size of the database, in bytes.
    pub bytes: i64,
}

/// Returns the connection of the figures. The server ends their statement after its timeout.
pub(crate) fn connection(options: PgConnectOptions) -> ConnectionSlot {
    let timeout_ms = TIMEOUT.as_millis().to_string();
    ConnectionSlot::new(options.options([("statement_timeout", timeout_ms)]))
}

impl Store {
    /// Reads the figures of the whole database.
    pub async fn database_gauges(&self, now: Millis) -> Result<DatabaseGauges, StoreError> {
        let Some(connection) = &self.gauges else {
            let params = params![now, MAX_COUNTED_STATES];
            let row = self.reader.row(sql::DATABASE_GAUGES, &params, gauges).await?;
            return row.ok_or_else(|| StoreError::Data("an aggregate has no row".into()));
        };
        let params = params![0i64, MAX_COUNTED_STATES];
        let query = bind(sqlx::query(sql::DATABASE_GAUGES.postgres), &params);
        gauges(&connection.row(query, TIMEOUT).await?)
    }
}

fn gauges(row: &dyn Row) -> Result<DatabaseGauges, StoreError> {
    let now = row.int(2)?;
    let oldest_due_ms = row.maybe_int(1)?.map_or(0, |due_at| now.saturating_sub(due_at).max(0));
    let (hosts_alive, bytes) = (row.int(3)?, row.int(4)?);
    Ok(DatabaseGauges { states_due: row.int(0)?, oldest_due_ms, hosts_alive, bytes })
}
