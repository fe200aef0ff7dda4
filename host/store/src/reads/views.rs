//! Views of runs, states and attempts for the API, in pages.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, RunKey, StateId};
use exosphere_domain::json::check_stored;
use exosphere_domain::limits::Usage;
use exosphere_domain::path::Path;
use exosphere_domain::state::{RunStatus, Status};

use crate::catalog::name;
use crate::error::StoreError;
use crate::inputs::list;
use crate::rows::{corrupt, number, small, text};
use crate::text::{Cells, values};
use crate::{Store, sql};

/// A run, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunView {
    /// The key of the run's row.
    pub key: RunKey,
    /// The public id of the run.
    pub id: RunId,
    /// The graph of the run.
    pub graph: Name,
    /// The number of the graph's revision.
    pub revision: i64,
    /// The status of the run.
    pub status: RunStatus,
    /// Set if the run is paused: none of its states is claimed.
    pub paused: bool,
    /// The number of the run's latest event.
    pub version: i64,
    /// The time at which the run began.
    pub created_at: Millis,
    /// The time at which the run ended.
    pub ended_at: Option<Millis>,
    /// The number of states so far.
    pub states: i64,
    /// The number of states that succeeded.
    pub succeeded: i64,
    /// The number of states that were pruned.
    pub pruned: i64,
    /// The number of states that failed.
    pub errored: i64,
    /// The number of states that were cancelled.
    pub cancelled: i64,
    /// The number of failed attempts that another attempt followed.
    pub retries: i64,
    /// The number of attempts that requeued their state.
    pub requeues: i64,
    /// The number of keys in the run's store.
    pub store_keys: i64,
}

/// A state, as the API shows it.
#[derive(Debug, Clone)]
pub struct StateView {
    /// The number of the state.
    pub id: StateId,
    /// The node that the state executes.
    pub node: NodeIx,
    /// The path of the state.
    pub path: Path,
    /// The status of the state.
    pub status: Status,
    /// The number of the latest attempt.
    pub attempt: u32,
    /// The number of retries used up.
    pub retries: u32,
    /// The number of requeues.
    pub requeues: u32,
    /// The time at which the state was created.
    pub created_at: Millis,
    /// The time at which the state ended.
    pub ended_at: Option<Millis>,
    /// The number of outputs, once the state has succeeded.
    pub outputs: Option<u32>,
    /// The failure that ended the state for good.
    pub failure: Option<FailureView>,
    /// The data that a pruned branch left for people: JSON text.
    pub data: Option<String>,
    /// The resource usage of the last attempt.
    pub usage: Option<Usage>,
}

/// An attempt, as the API shows it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// The number of the attempt.
    pub number: u32,
    /// The time at which the attempt ended.
    pub ended_at: Millis,
    /// The outcome: SUCCESS, PRUNED, REQUEUED or FAILED.
    pub outcome: String,
    /// The failure, if the attempt failed.
    pub failure: Option<FailureView>,
    /// The log of the attempt: JSON text.
    pub logs: Option<String>,
    /// The resource usage of the attempt.
    pub usage: Option<Usage>,
}

/// A failure, as the API shows it. The details stay unparsed: a JSON value takes a hundred times
/// the memory of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureView {
    /// The kind of the failure.
    pub kind: FailureKind,
    /// The message.
    pub message: String,
    /// The details: JSON text.
    pub details: Option<String>,
}

/// Bytes of failure messages and details at which a page ends, because any number of callers may
/// read a page slowly.
const PAGE_BYTES: i64 = 256 * 1024;

/// A filter for a list of runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// The graph of the runs.
    pub graph: Option<Name>,
    /// The status of the runs.
    pub status: Option<RunStatus>,
    /// The cursor: the page begins after the run with this key.
    pub before: Option<i64>,
    /// The maximum page size.
    pub most: u32,
}

/// A filter for a list of a run's states.
#[derive(Debug, Clone, Default)]
pub struct StateFilter {
    /// The nodes of the states.
    pub nodes: Option<Vec<NodeIx>>,
    /// The status of the states.
    pub status: Option<Status>,
    /// The cursor: the page begins after this path.
    pub after: Option<String>,
    /// The maximum page size.
    pub most: u32,
}

/// A page of a list, with the cursor of the next page.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The cursor of the next page, if there may be one.
    pub next: Option<String>,
}

impl Store {
    /// Reads a page of a namespace's runs, the newest first.
    pub async fn runs(
        &self,
        namespace: &Name,
        filter: &RunFilter,
    ) -> Result<Page<RunView>, StoreError> {
        let wanted = values![
            namespace.as_str(),
            filter.graph.as_ref().map(Name::as_str),
            filter.status.map(RunStatus::as_str),
            filter.before,
            filter.most,
        ];
        let items = self.reader.rows(sql::RUNS, &wanted, run).await?;
        let full = items.len() as u32 == filter.most;
        let next = items.last().filter(|_| full).map(|run| run.key.0.to_string());
        Ok(Page { items, next })
    }

    /// Reads a run by its public id.
    pub async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunView>, StoreError> {
        self.reader.row(sql::RUN, &values![namespace.as_str(), &id.to_string()], run).await
    }

    /// Reads a page of a run's states, in path order.
    pub async fn states(
        &self,
        run: RunKey,
        filter: &StateFilter,
    ) -> Result<Page<StateView>, StoreError> {
        let nodes = filter.nodes.as_deref().map(list);
        // Every path sorts after '', except the root's, which is ''.
        let after = filter.after.as_deref();
        let wanted = values![
            run.0,
            nodes.as_deref(),
            filter.status.map(Status::as_str),
            after.unwrap_or_default(),
            after,
            filter.most,
            PAGE_BYTES,
        ];
        let items = self.reader.rows(sql::STATES, &wanted, state).await?;
        let bytes: usize =
            items.iter().filter_map(|state| Some(state.failure.as_ref()?.bytes())).sum();
        let full = items.len() as u32 == filter.most || bytes as i64 >= PAGE_BYTES;
        let next = items.last().filter(|_| full).map(|state| state.path.as_str().to_owned());
        Ok(Page { items, next })
    }

    /// Reads a state of a run.
    pub async fn state(&self, run: RunKey, id: StateId) -> Result<Option<StateView>, StoreError> {
        self.reader.row(sql::STATE, &values![run.0, id.0], state).await
    }

    /// Reads a page of a state's outputs, in order.
    pub async fn outputs_page(
        &self,
        state: StateId,
        from: u32,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.reader.rows(sql::OUTPUTS_PAGE, &values![state.0, from, most], text).await
    }

    /// Returns the bytes of the first `outputs` outputs of a state, of its details and of its
    /// attempts.
    pub async fn state_size(&self, state: StateId, outputs: u32) -> Result<i64, StoreError> {
        let size = self.reader.row(sql::STATE_SIZE, &values![state.0, outputs], number).await?;
        Ok(size.unwrap_or_default())
    }

    /// Returns the bytes of a run's store.
    pub async fn store_size(&self, run: RunKey) -> Result<i64, StoreError> {
        let size = self.reader.row(sql::STORE_SIZE, &values![run.0], number).await?;
        Ok(size.unwrap_or_default())
    }

    /// Reads the stored attempts of a state, in order.
    pub async fn attempts(&self, state: StateId) -> Result<Vec<AttemptRow>, StoreError> {
        self.reader.rows(sql::ATTEMPTS, &values![state.0], attempt).await
    }
}

fn run(row: &dyn Cells) -> Result<RunView, StoreError> {
    let key = row.int(0)?;
    let status = RunStatus::parse(&row.text(4)?);
    Ok(RunView {
        key: RunKey(key),
        id: RunId(row.text(1)?.parse().map_err(|_| corrupt("run", "uuid", key))?),
        graph: name(row.text(2)?, "graph", "name")?,
        revision: row.int(3)?,
        status: status.ok_or_else(|| corrupt("run", "status", key))?,
        paused: row.int(5)? != 0,
        version: row.int(6)?,
        created_at: row.int(7)?,
        ended_at: row.maybe_int(8)?,
        states: row.int(9)?,
        succeeded: row.int(10)?,
        pruned: row.int(11)?,
        errored: row.int(12)?,
        cancelled: row.int(13)?,
        retries: row.int(14)?,
        requeues: row.int(15)?,
        store_keys: row.int(16)?,
    })
}

fn state(row: &dyn Cells) -> Result<StateView, StoreError> {
    let id = StateId(row.int(0)?);
    let status = crate::rows::status(&row.text(3)?, id)?;
    let details = row.maybe_text(12)?;
    let count = |i: usize, column| small(row.int(i)?, column, id);
    let outputs = row.maybe_int(9)?.map(|outputs| small(outputs, "outputs", id)).transpose()?;
    Ok(StateView {
        id,
        node: NodeIx(count(1, "node")?),
        path: Path::decode(&row.text(2)?).map_err(|_| corrupt("state", "path", id))?,
        status,
        attempt: count(4, "attempt")?,
        retries: count(5, "retries")?,
        requeues: count(6, "requeues")?,
        created_at: row.int(7)?,
        ended_at: row.maybe_int(8)?,
        outputs,
        failure: failure(row, 10, "state", id)?,
        data: details.filter(|_| status == Status::Pruned),
        usage: usage(row, 13, id)?,
    })
}

/// Reads an attempt from its row. The row does not name its state, so an error names the attempt's
/// number instead.
fn attempt(row: &dyn Cells) -> Result<AttemptRow, StoreError> {
    let id = StateId(row.int(0)?);
    Ok(AttemptRow {
        number: small(row.int(0)?, "number", id)?,
        ended_at: row.int(1)?,
        outcome: row.text(2)?,
        failure: failure(row, 3, "attempt", id)?,
        logs: row.maybe_text(6)?,
        usage: usage(row, 7, id)?,
    })
}

/// Reads a failure from the columns `kind, message, details`, the first at `at`.
fn failure(
    row: &dyn Cells,
    at: usize,
    table: &str,
    id: StateId,
) -> Result<Option<FailureView>, StoreError> {
    let Some(kind) = row.maybe_text(at)? else { return Ok(None) };
    let kind = FailureKind::parse(&kind).ok_or_else(|| corrupt(table, "kind", id))?;
    let details = row.maybe_text(at + 2)?;
    let checked = details.as_deref().map(check_stored).transpose();
    checked.map_err(|_| corrupt(table, "details", id))?;
    let message = row.maybe_text(at + 1)?.unwrap_or_default();
    Ok(Some(FailureView { kind, message, details }))
}

impl FailureView {
    /// Returns the bytes of the message and details.
    fn bytes(&self) -> usize {
        self.message.len() + self.details.as_ref().map_or(0, String::len)
    }
}

/// Reads an attempt's usage from the columns `cpu_us, memory_bytes, host_calls, input_bytes,
/// output_bytes`.
fn usage(row: &dyn Cells, at: usize, id: StateId) -> Result<Option<Usage>, StoreError> {
    let Some(cpu_us) = row.maybe_int(at)? else { return Ok(None) };
    Ok(Some(Usage {
        cpu_us: cpu_us.unsigned_abs(),
        peak_memory_bytes: row.int(at + 1)?.unsigned_abs(),
        host_calls: small(row.int(at + 2)?, "host_calls", id)?,
        // Recorded since version 3 of the tables.
        input_bytes: row.maybe_int(at + 3)?.unwrap_or_default().unsigned_abs(),
        output_bytes: row.int(at + 4)?.unsigned_abs(),
    }))
}
