//! Reads of starts and results: the start of a run, the sources of a state's inputs, and the
//! outputs of a run's last states.
//!
//! Not here: the reads of executions (`inputs`), and lists of runs and states (`views`).

use std::collections::BTreeMap;

use exosphere_domain::ids::{Millis, NodeIx, RunKey, StateId};
use exosphere_domain::label::Labels;
use exosphere_domain::path::Path;
use exosphere_domain::state::{Place, Status};

use super::inputs::{OutputSize, output_size, range_list};
use crate::codec::{node_list, read_int, read_place, store_snapshot, to_status, to_u32};
use crate::dialect::{Cursor, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// The start of a run, beside its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStart {
    /// The store of the run at its start.
    pub store: BTreeMap<String, String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// The labels of the run.
    pub labels: Labels,
    /// The time of the start.
    pub created_at: Millis,
    /// The time at which the root was due first; `None` for runs of before.
    pub due_at: Option<Millis>,
    /// The id of the API key that started the run; `None` if the host asked for none.
    pub started_by: Option<String>,
}

/// The sources of a state's inputs.
#[derive(Debug, Clone)]
pub struct StateSources {
    /// The number of the state.
    pub id: StateId,
    /// The place of the state.
    pub place: Place,
    /// The status of the state.
    pub status: Status,
    /// The number of its attempts so far.
    pub attempt: u32,
    /// Values of the run's store, fixed when the state was created.
    pub store_snapshot: BTreeMap<String, String>,
}

/// A state whose outputs are a part of its run's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultState {
    /// The number of the state.
    pub id: StateId,
    /// The path of the state.
    pub path: Path,
    /// The number of its outputs; 0 for a state that only marks where the search ended.
    pub outputs: u32,
    /// Set if the search ended at this state, since it had examined enough of them.
    pub is_end: bool,
}

/// The number of states that one search for results examines.
const MAX_EXAMINED_STATES: u32 = 20_000;

impl Store {
    /// Returns the bytes of a run's inputs and of its store at the start.
    pub async fn run_start_size(&self, run: RunKey) -> Result<i64, StoreError> {
        let size = self.reader.row(sql::RUN_START_SIZE, &params![run.0], read_int).await?;
        Ok(size.unwrap_or_default())
    }

    /// Reads what a run was started with.
    pub async fn run_start(&self, run: RunKey) -> Result<Option<RunStart>, StoreError> {
        let read = |row: &dyn Row| {
            let columns = &mut Cursor::new(row, "run");
            let store: Option<String> = columns.next("start_store")?;
            let (key, created_at) = (columns.next("start_key")?, columns.next("created_at")?);
            let (due_at, started_by) = (columns.next("due_at")?, columns.next("started_by")?);
            Ok((store, key, created_at, due_at, started_by))
        };
        let found = self.reader.row(sql::RUN_START, &params![run.0], read).await?;
        let Some((store, key, created_at, due_at, started_by)) = found else { return Ok(None) };
        let store = store.map_or_else(
            || Ok(BTreeMap::new()),
            |text| {
                exosphere_domain::json::from_text(&text)
                    .map_err(|_| corrupt_row("run", "start_store", run.0))
            },
        )?;
        let labels = self.labels_of(run).await?;
        Ok(Some(RunStart { store, key, labels, created_at, due_at, started_by }))
    }

    /// Finds the state at a path of a run.
    pub async fn state_at(&self, run: RunKey, path: &Path) -> Result<Option<StateId>, StoreError> {
        let id = self.reader.row(sql::STATE_AT, &params![run.0, path.as_str()], read_int).await?;
        Ok(id.map(StateId))
    }

    /// Reads the sources of a state's inputs.
    pub async fn state_sources(
        &self,
        run: RunKey,
        id: StateId,
    ) -> Result<Option<StateSources>, StoreError> {
        self.reader.row(sql::STATE_SOURCES, &params![run.0, id.0], state_sources).await
    }

    /// Finds states of some nodes that have outputs, in path order from a path on, at most
    /// `limit`. A search examines a bounded number of states; the last one says if more follow.
    pub async fn result_states(
        &self,
        run: RunKey,
        nodes: &[NodeIx],
        from: &Path,
        limit: u32,
    ) -> Result<Vec<ResultState>, StoreError> {
        let nodes = node_list(nodes);
        let params = params![run.0, from.as_str(), &nodes, MAX_EXAMINED_STATES, limit];
        self.reader.rows(sql::RESULT_STATES, &params, result_state).await
    }

    /// Reads the sizes of outputs by state and number; missing ones are left out.
    pub async fn output_sizes_at(
        &self,
        outputs: &[(StateId, u32)],
    ) -> Result<Vec<OutputSize>, StoreError> {
        let ranges = range_list(outputs)?;
        self.reader.rows(sql::OUTPUT_SIZES_AT, &params![&ranges], output_size).await
    }
}

/// Reads the columns of [`sql::STATE_SOURCES`].
fn state_sources(row: &dyn Row) -> Result<StateSources, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let place = read_place(columns, id)?;
    let status = to_status(&columns.next::<String>("status")?, id)?;
    let attempt = columns.next("attempt")?;
    let store_snapshot = store_snapshot(columns.next("store_snapshot")?, id)?;
    Ok(StateSources { id, place, status, attempt, store_snapshot })
}

/// Reads the columns of [`sql::RESULT_STATES`].
fn result_state(row: &dyn Row) -> Result<ResultState, StoreError> {
    let id = StateId(row.int(0)?);
    let path = Path::decode(&row.text(2)?).map_err(|_| corrupt_row("state", "path", id))?;
    let outputs = to_u32(row.int(3)?, "outputs", id)?;
    let is_end = row.int(4)? == i64::from(MAX_EXAMINED_STATES);
    Ok(ResultState { id, path, outputs, is_end })
}
