//! What people read of runs and states, a page at a time.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, RunKey, StateId};
use exosphere_domain::limits::Usage;
use exosphere_domain::path::Path;
use exosphere_domain::state::{RunStatus, Status};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::catalog::name;
use crate::error::StoreError;
use crate::rows::{corrupt, small};
use crate::{Store, sql};

/// A run, for people.
#[derive(Debug, Clone)]
pub struct RunView {
    /// Its number.
    pub key: RunKey,
    /// Its id.
    pub id: RunId,
    /// Its graph.
    pub graph: Name,
    /// The number of the revision.
    pub revision: i64,
    /// How it stands.
    pub status: RunStatus,
    /// The number of its latest event.
    pub version: i64,
    /// When it began.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// All its states so far.
    pub states: i64,
    /// Those that succeeded.
    pub succeeded: i64,
    /// Those that were pruned.
    pub pruned: i64,
    /// Those that failed.
    pub errored: i64,
    /// Those that were cancelled.
    pub cancelled: i64,
    /// Failed attempts that were followed by another.
    pub retries: i64,
    /// Attempts that asked to run again.
    pub requeues: i64,
}

/// A state, for people.
#[derive(Debug, Clone)]
pub struct StateView {
    /// Its number.
    pub id: StateId,
    /// Its node.
    pub node: NodeIx,
    /// Its path.
    pub path: Path,
    /// How it stands.
    pub status: Status,
    /// The number of its latest attempt.
    pub attempt: u32,
    /// Retries used up.
    pub retries: u32,
    /// How often it asked to run again.
    pub requeues: u32,
    /// When it was created.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// How many outputs it has, once it has succeeded.
    pub outputs: Option<u32>,
    /// Why it failed for good.
    pub failure: Option<Failure>,
    /// What a pruned branch left for people: JSON text.
    pub data: Option<String>,
    /// What its last attempt used.
    pub usage: Option<Usage>,
}

/// An attempt, for people.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its number.
    pub number: u32,
    /// When it ended.
    pub ended_at: Millis,
    /// SUCCESS, PRUNED, REQUEUED or FAILED.
    pub outcome: String,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Its log: JSON text.
    pub logs: Option<String>,
    /// What it used.
    pub usage: Option<Usage>,
}

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this graph.
    pub graph: Option<Name>,
    /// That stand so.
    pub status: Option<RunStatus>,
    /// Older than this one.
    pub before: Option<i64>,
    /// At most so many.
    pub most: u32,
}

/// Which states of a run.
#[derive(Debug, Clone, Default)]
pub struct StateFilter {
    /// At these nodes.
    pub nodes: Option<Vec<NodeIx>>,
    /// That stand so.
    pub status: Option<Status>,
    /// Behind this path.
    pub after: Option<String>,
    /// At most so many.
    pub most: u32,
}

/// Some of many, and where the rest begins.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// These.
    pub items: Vec<T>,
    /// What to ask for next, if there may be more.
    pub next: Option<String>,
}

impl Store {
    /// Runs of a namespace, the newest first.
    pub async fn runs(
        &self,
        namespace: &Name,
        filter: &RunFilter,
    ) -> Result<Page<RunView>, StoreError> {
        let rows = sqlx::query(sql::RUNS)
            .bind(namespace.as_str())
            .bind(filter.graph.as_ref().map(Name::as_str))
            .bind(filter.status.map(RunStatus::as_str))
            .bind(filter.before)
            .bind(filter.most)
            .fetch_all(&self.readers)
            .await?;
        let items = rows.iter().map(run).collect::<Result<Vec<_>, _>>()?;
        let full = items.len() as u32 == filter.most;
        let next = items.last().filter(|_| full).map(|run| run.key.0.to_string());
        Ok(Page { items, next })
    }

    /// A run.
    pub async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunView>, StoreError> {
        let query = sqlx::query(sql::RUN).bind(namespace.as_str()).bind(id.to_string());
        query.fetch_optional(&self.readers).await?.as_ref().map(run).transpose()
    }

    /// States of a run, in path order.
    pub async fn states(
        &self,
        run: RunKey,
        filter: &StateFilter,
    ) -> Result<Page<StateView>, StoreError> {
        let nodes = filter.nodes.as_ref().map(|nodes| {
            let nodes: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
            format!("[{}]", nodes.join(","))
        });
        // Every path lies behind '', but for the root's, which is ''.
        let after = filter.after.as_deref();
        let rows = sqlx::query(match after {
            Some(_) => sql::STATES,
            None => sql::FIRST_STATES,
        })
        .bind(run.0)
        .bind(nodes)
        .bind(filter.status.map(Status::as_str))
        .bind(after.unwrap_or_default())
        .bind(filter.most)
        .fetch_all(&self.readers)
        .await?;
        let items = rows.iter().map(state).collect::<Result<Vec<_>, _>>()?;
        let full = items.len() as u32 == filter.most;
        let next = items.last().filter(|_| full).map(|state| state.path.as_str().to_owned());
        Ok(Page { items, next })
    }

    /// A state of a run.
    pub async fn state(&self, run: RunKey, id: StateId) -> Result<Option<StateView>, StoreError> {
        let query = sqlx::query(sql::STATE).bind(run.0).bind(id.0);
        query.fetch_optional(&self.readers).await?.as_ref().map(state).transpose()
    }

    /// Some outputs of a state, in order.
    pub async fn outputs_page(
        &self,
        state: StateId,
        from: u32,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        let query = sqlx::query(sql::OUTPUTS_PAGE).bind(state.0).bind(from).bind(most);
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The attempts of a state that have rows, in order.
    pub async fn attempts(&self, state: StateId) -> Result<Vec<AttemptRow>, StoreError> {
        let rows = sqlx::query(sql::ATTEMPTS).bind(state.0).fetch_all(&self.readers).await?;
        rows.iter().map(|row| attempt(row, state)).collect()
    }
}

fn run(row: &SqliteRow) -> Result<RunView, StoreError> {
    let key: i64 = row.try_get(0)?;
    let id: String = row.try_get(1)?;
    let status: String = row.try_get(4)?;
    Ok(RunView {
        key: RunKey(key),
        id: RunId(id.parse().map_err(|_| corrupt("run", "uuid", key))?),
        graph: name(row.try_get(2)?, "graph", "name")?,
        revision: row.try_get(3)?,
        status: RunStatus::parse(&status).ok_or_else(|| corrupt("run", "status", key))?,
        version: row.try_get(5)?,
        created_at: row.try_get(6)?,
        ended_at: row.try_get(7)?,
        states: row.try_get(8)?,
        succeeded: row.try_get(9)?,
        pruned: row.try_get(10)?,
        errored: row.try_get(11)?,
        cancelled: row.try_get(12)?,
        retries: row.try_get(13)?,
        requeues: row.try_get(14)?,
    })
}

fn state(row: &SqliteRow) -> Result<StateView, StoreError> {
    let id = StateId(row.try_get(0)?);
    let path: String = row.try_get(2)?;
    let status = crate::rows::status(&row.try_get::<String, _>(3)?, id)?;
    let details: Option<String> = row.try_get(12)?;
    let count = |i: usize, column| small(row.try_get(i)?, column, id);
    Ok(StateView {
        id,
        node: NodeIx(count(1, "node")?),
        path: Path::decode(&path).map_err(|_| corrupt("state", "path", id))?,
        status,
        attempt: count(4, "attempt")?,
        retries: count(5, "retries")?,
        requeues: count(6, "requeues")?,
        created_at: row.try_get(7)?,
        ended_at: row.try_get(8)?,
        outputs: row.try_get(9)?,
        failure: failure(row.try_get(10)?, row.try_get(11)?, details.as_deref(), "state", id)?,
        data: details.filter(|_| status == Status::Pruned),
        usage: usage(row, 13)?,
    })
}

fn attempt(row: &SqliteRow, state: StateId) -> Result<AttemptRow, StoreError> {
    let details: Option<String> = row.try_get(5)?;
    Ok(AttemptRow {
        number: row.try_get(0)?,
        ended_at: row.try_get(1)?,
        outcome: row.try_get(2)?,
        failure: failure(row.try_get(3)?, row.try_get(4)?, details.as_deref(), "attempt", state)?,
        logs: row.try_get(6)?,
        usage: usage(row, 7)?,
    })
}

fn failure(
    kind: Option<String>,
    message: Option<String>,
    details: Option<&str>,
    table: &str,
    id: StateId,
) -> Result<Option<Failure>, StoreError> {
    let Some(kind) = kind else { return Ok(None) };
    let kind = FailureKind::parse(&kind).ok_or_else(|| corrupt(table, "kind", id))?;
    let details = details.map(serde_json::from_str).transpose();
    let details = details.map_err(|_| corrupt(table, "details", id))?;
    Ok(Some(Failure { kind, message: message.unwrap_or_default(), details }))
}

/// What an attempt used, in columns `cpu_us, memory_bytes, host_calls,
/// output_bytes`.
fn usage(row: &SqliteRow, at: usize) -> Result<Option<Usage>, StoreError> {
    let Some(cpu_us) = row.try_get::<Option<i64>, _>(at)? else { return Ok(None) };
    Ok(Some(Usage {
        cpu_us: cpu_us.unsigned_abs(),
        peak_memory_bytes: row.try_get::<i64, _>(at + 1)?.unsigned_abs(),
        host_calls: row.try_get(at + 2)?,
        output_bytes: row.try_get::<i64, _>(at + 3)?.unsigned_abs(),
    }))
}
