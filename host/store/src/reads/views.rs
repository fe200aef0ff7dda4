//! Views of runs, states and attempts for the API. Not here: lists (`run_list`, `state_list`).

use exosphere_domain::deadline::DeadlineKind;
use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Millis, Name, NodeIx, RunId, RunKey, StateId};
use exosphere_domain::json::check_stored;
use exosphere_domain::limits::Usage;
use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::{RunStatus, Status};

use crate::codec::{read_int, read_text, to_name, to_outcome, to_status};
use crate::commit::deadlines::to_kind;
use crate::dialect::{Cursor, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::sql::{RunRow, run_counters};
use crate::types::RunInfo;
use crate::{Store, sql};

/// Declares [`RunCounters`] and its readers from the list of counters.
macro_rules! counters {
    ($($(#[$doc:meta])* $counter:ident: $sql:ident $type:ty),* $(,)?) => {
        /// The counters of a run, as the API shows them.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct RunCounters {
            $($(#[$doc])* pub $counter: $type,)*
        }

        impl RunCounters {
            fn read(columns: &mut Cursor<'_>) -> Result<Self, StoreError> {
                Ok(RunCounters { $($counter: columns.next(stringify!($counter))?,)* })
            }

            fn from_row(run: &RunRow) -> Self {
                RunCounters { $($counter: run.$counter,)* }
            }
        }
    };
}
run_counters!(counters);

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
    /// The time at which its root was due first; `None` for runs of before.
    pub due_at: Option<Millis>,
    /// The time at which the run ended.
    pub ended_at: Option<Millis>,
    /// The deadline that the run has missed, which is why it FAILED.
    pub missed: Option<DeadlineKind>,
    /// The time by which the run must have ended, while it has not.
    pub deadline_at: Option<Millis>,
    /// The time by which it must have begun, while it has not ended.
    pub start_by_at: Option<Millis>,
    /// The counters of the run.
    pub counters: RunCounters,
    /// The states of each node; nothing in a list.
    pub node_counts: NodeCounts,
}

/// Reads a run from the columns of `run_view!` in `sql::runs`.
pub(super) fn run(row: &dyn Row) -> Result<RunView, StoreError> {
    let columns = &mut Cursor::new(row, "run");
    let key: i64 = columns.next("id")?;
    let id: String = columns.next("uuid")?;
    let view = RunView {
        key: RunKey(key),
        id: RunId(id.parse().map_err(|_| corrupt_row("run", "uuid", key))?),
        graph: to_name(columns.next("name")?, "graph", "name")?,
        revision: columns.next("revision")?,
        status: columns.next("status")?,
        paused: columns.next("paused")?,
        version: columns.next("version")?,
        created_at: columns.next("created_at")?,
        due_at: columns.next("due_at")?,
        ended_at: columns.next("ended_at")?,
        missed: columns
            .next::<Option<String>>("missed")?
            .map(|kind| to_kind(&kind, key))
            .transpose()?,
        deadline_at: columns.next("deadline_at")?,
        start_by_at: columns.next("start_by_at")?,
        node_counts: columns.next("node_counts")?,
        counters: RunCounters::read(columns)?,
    };
    // A deadline that was met stays in its table until it is due.
    let matters = view.status == RunStatus::Running || view.missed.is_some();
    let at = |time: Option<Millis>| time.filter(|_| matters);
    let (deadline_at, start_by_at) = (at(view.deadline_at), at(view.start_by_at));
    Ok(RunView { deadline_at, start_by_at, ..view })
}

impl RunRow {
    /// Returns the run as the API shows it.
    pub(crate) fn view(&self, run: &RunInfo, missed: Option<DeadlineKind>) -> RunView {
        RunView {
            key: run.key,
            id: run.id,
            graph: run.graph_name.clone(),
            revision: run.revision,
            status: self.status,
            paused: self.paused,
            version: self.version,
            created_at: self.created_at,
            due_at: self.due_at,
            ended_at: self.ended_at,
            missed,
            deadline_at: None,
            start_by_at: None,
            counters: RunCounters::from_row(self),
            node_counts: self.node_counts.clone(),
        }
    }
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
    /// The time from which the next attempt may begin, or could have begun.
    pub due_at: Millis,
    /// The time at which its last attempt began, or was claimed if it has not ended; `None` before
    /// that, and if its host was lost.
    pub began_at: Option<Millis>,
    /// The number of the host of its last attempt.
    pub host: Option<i64>,
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
    /// The bytes of the failure's details, or of `data`.
    pub details_bytes: Option<i64>,
}

/// An attempt, as the API shows it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// The number of the attempt.
    pub number: u32,
    /// The time at which the attempt began; `None` if its host was lost.
    pub began_at: Option<Millis>,
    /// The number of the host that executed it.
    pub host: Option<i64>,
    /// The time at which the attempt ended.
    pub ended_at: Millis,
    /// The outcome.
    pub outcome: AttemptOutcome,
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
    /// The message, for people.
    pub message: String,
    /// The details: JSON text.
    pub details: Option<String>,
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
    /// Reads a run by its public id.
    pub async fn run(&self, namespace: &Name, id: RunId) -> Result<Option<RunView>, StoreError> {
        self.reader.row(sql::RUN, &params![namespace.as_str(), &id.to_string()], run).await
    }

    /// Reads a state of a run.
    pub async fn state(&self, run: RunKey, id: StateId) -> Result<Option<StateView>, StoreError> {
        self.reader.row(sql::STATE, &params![run.0, id.0], state).await
    }

    /// Reads a page of a state's outputs, in order.
    pub async fn outputs_page(
        &self,
        state: StateId,
        from: u32,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.reader.rows(sql::OUTPUTS_PAGE, &params![state.0, from, limit], read_text).await
    }

    /// Returns the bytes of the first `outputs` outputs of a state, of its details and of its
    /// attempts.
    pub async fn state_size(&self, state: StateId, outputs: u32) -> Result<i64, StoreError> {
        let size = self.reader.row(sql::STATE_SIZE, &params![state.0, outputs], read_int).await?;
        Ok(size.unwrap_or_default())
    }

    /// Returns the size of a run's store, in bytes.
    pub async fn store_size(&self, run: RunKey) -> Result<i64, StoreError> {
        let size = self.reader.row(sql::STORE_SIZE, &params![run.0], read_int).await?;
        Ok(size.unwrap_or_default())
    }

    /// Reads the stored attempts of a state, in order.
    pub async fn attempts(&self, state: StateId) -> Result<Vec<AttemptRow>, StoreError> {
        self.reader.rows(sql::ATTEMPTS, &params![state.0], attempt).await
    }
}

/// Reads a state from the columns of `state_view!` in `sql::states`.
pub(super) fn state(row: &dyn Row) -> Result<StateView, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let node = NodeIx(columns.next("node")?);
    let path: String = columns.next("path")?;
    let path = Path::decode(&path).map_err(|_| corrupt_row("state", "path", id))?;
    let status = to_status(&columns.next::<String>("status")?, id)?;
    let (attempt, retries) = (columns.next("attempt")?, columns.next("retries")?);
    let (requeues, created_at) = (columns.next("requeues")?, columns.next("created_at")?);
    let due_at = columns.next("due_at")?;
    let (began_at, host) = (columns.next("began_at")?, columns.next("host")?);
    let (ended_at, outputs) = (columns.next("ended_at")?, columns.next("outputs")?);
    let kind: Option<String> = columns.next("kind")?;
    let message: Option<String> = columns.next("message")?;
    let details: Option<String> = columns.next("details")?;
    let is_pruned = status == Status::Pruned;
    let (data, details) = if is_pruned { (details, None) } else { (None, details) };
    let failure = failure(kind, message, details, "state", id)?;
    let details_bytes = columns.next("details")?;
    let usage = usage(columns)?;
    Ok(StateView {
        id,
        node,
        path,
        status,
        attempt,
        retries,
        requeues,
        created_at,
        due_at,
        began_at,
        host,
        ended_at,
        outputs,
        failure,
        data,
        usage,
        details_bytes,
    })
}

/// Reads an attempt from the columns of [`sql::ATTEMPTS`]. They do not name its state, so an error
/// names the attempt's number instead.
fn attempt(row: &dyn Row) -> Result<AttemptRow, StoreError> {
    let columns = &mut Cursor::new(row, "attempt");
    let number = columns.next("number")?;
    let (began_at, host) = (columns.next("began_at")?, columns.next("host")?);
    let (ended_at, outcome) = (columns.next("ended_at")?, columns.next::<String>("outcome")?);
    let outcome = to_outcome(&outcome, StateId(i64::from(number)))?;
    let (kind, message) = (columns.next("kind")?, columns.next("message")?);
    let details = columns.next("details")?;
    let failure = failure(kind, message, details, "attempt", StateId(i64::from(number)))?;
    let logs = columns.next("logs")?;
    let usage = usage(columns)?;
    Ok(AttemptRow { number, began_at, host, ended_at, outcome, failure, logs, usage })
}

/// Creates a failure from its columns.
fn failure(
    kind: Option<String>,
    message: Option<String>,
    details: Option<String>,
    table: &str,
    id: StateId,
) -> Result<Option<FailureView>, StoreError> {
    let Some(kind) = kind else { return Ok(None) };
    let kind = FailureKind::parse(&kind).ok_or_else(|| corrupt_row(table, "kind", id))?;
    let checked = details.as_deref().map(check_stored).transpose();
    checked.map_err(|_| corrupt_row(table, "details", id))?;
    Ok(Some(FailureView { kind, message: message.unwrap_or_default(), details }))
}

impl FailureView {
    /// Returns the bytes of the message and details.
    pub(super) fn bytes(&self) -> usize {
        self.message.len() + self.details.as_ref().map_or(0, String::len)
    }
}

/// Reads an attempt's usage from the columns of `usage_columns!` in `sql::states`.
pub(super) fn usage(columns: &mut Cursor<'_>) -> Result<Option<Usage>, StoreError> {
    let Some(cpu_us) = columns.next::<Option<i64>>("cpu_us")? else { return Ok(None) };
    let peak_memory_bytes: i64 = columns.next("memory_bytes")?;
    let host_calls = columns.next("host_calls")?;
    // Recorded since version 3 of the tables.
    let input_bytes: Option<i64> = columns.next("input_bytes")?;
    let output_bytes: i64 = columns.next("output_bytes")?;
    Ok(Some(Usage {
        cpu_us: cpu_us.unsigned_abs(),
        peak_memory_bytes: peak_memory_bytes.unsigned_abs(),
        host_calls,
        input_bytes: input_bytes.unwrap_or_default().unsigned_abs(),
        output_bytes: output_bytes.unsigned_abs(),
    }))
}
