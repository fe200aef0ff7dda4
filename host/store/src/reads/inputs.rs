//! The data that executions read: outputs that their inputs name, a unite's gathered outputs, and
//! the run's store.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{NodeIx, RunKey, StateId};
use exosphere_domain::journal::Entry;
use exosphere_domain::manual_retry::failed_by_itself;
use exosphere_domain::path::Path;
use exosphere_domain::state::{RunStatus, Status};
use std::collections::HashMap;

use crate::codec::{after_path, node_list, read_int, read_text, to_status, to_u32};
use crate::dialect::{Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::types::RunUpdate;
use crate::{Store, sql};

/// A finished member of a unite's scope, as a gather sees it.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// The number of the state.
    pub id: StateId,
    /// The node of the state.
    pub node: NodeIx,
    /// The path of the state.
    pub path: Path,
    /// The final status.
    pub status: Status,
    /// The number of outputs.
    pub outputs: u32,
    /// The failure, if the state failed.
    pub failure: Option<(FailureKind, String)>,
}

/// The position and size of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputSize {
    /// The state that returned the output.
    pub state: StateId,
    /// The number of the output.
    pub number: u32,
    /// The size of the output's text, in bytes.
    pub bytes: u64,
}

pub(super) fn output_size(row: &dyn Row) -> Result<OutputSize, StoreError> {
    let state = StateId(row.int(0)?);
    let number = to_u32(row.int(1)?, "number", state)?;
    Ok(OutputSize { state, number, bytes: row.int(2)?.unsigned_abs() })
}

/// Merges outputs into ranges: a state, and the first and last number. The states of a fanout need
/// consecutive outputs of one state, and one step along the index finds all of a range.
fn ranges(outputs: &[(StateId, u32)]) -> Vec<(i64, u32, u32)> {
    let mut wanted: Vec<_> = outputs.iter().map(|(state, number)| (state.0, *number)).collect();
    wanted.sort_unstable();
    let mut ranges: Vec<(i64, u32, u32)> = Vec::new();
    for (state, number) in wanted {
        match ranges.last_mut() {
            Some((last_state, _, last))
                if *last_state == state && number <= last.saturating_add(1) =>
            {
                *last = number;
            }
            _ => ranges.push((state, number, number)),
        }
    }
    ranges
}

/// Formats outputs as ranges, the form that statements take.
pub(super) fn range_list(outputs: &[(StateId, u32)]) -> Result<String, StoreError> {
    serde_json::to_string(&ranges(outputs)).map_err(|error| StoreError::Data(error.to_string()))
}

impl Store {
    /// Reads outputs by state and number. Missing outputs, and those with more bytes than `limit`,
    /// are left out.
    pub async fn outputs_at(
        &self,
        outputs: &[(StateId, u32)],
        limit: i64,
    ) -> Result<HashMap<(StateId, u32), String>, StoreError> {
        let ranges = range_list(outputs)?;
        let read = |row: &dyn Row| {
            let state = StateId(row.int(0)?);
            Ok(((state, to_u32(row.int(1)?, "number", state)?), row.text(2)?))
        };
        let rows = self.reader.rows(sql::OUTPUTS_AT, &params![&ranges, limit], read).await?;
        Ok(rows.into_iter().collect())
    }

    /// Reads the execution that a unite joins: its state, its path and its number of outputs.
    pub async fn source_of(&self, unite: StateId) -> Result<(StateId, Path, u32), StoreError> {
        let read = |row: &dyn Row| Ok((StateId(row.int(0)?), row.text(1)?, row.int(2)?));
        let found = self.reader.row(sql::UNITE_SOURCE, &params![unite.0], read).await?;
        let (state, path, outputs) = found.ok_or_else(|| corrupt_row("unite", "state", unite))?;
        let path = Path::decode(&path).map_err(|_| corrupt_row("state", "path", unite))?;
        Ok((state, path, to_u32(outputs, "branches", unite)?))
    }

    /// Returns the bytes of all outputs of a state.
    pub async fn output_bytes(&self, state: StateId) -> Result<u64, StoreError> {
        let bytes = self.reader.row(sql::OUTPUT_BYTES, &params![state.0], read_int).await?;
        Ok(bytes.unwrap_or_default().unsigned_abs())
    }

    /// Reads all outputs of a state, in order.
    pub async fn outputs_of(&self, state: StateId) -> Result<Vec<String>, StoreError> {
        self.reader.rows(sql::OUTPUTS_OF_STATE, &params![state.0], read_text).await
    }

    /// Reads the sizes of all outputs of a state, in order.
    pub async fn output_sizes(&self, state: StateId) -> Result<Vec<OutputSize>, StoreError> {
        self.reader.rows(sql::OUTPUT_SIZES, &params![state.0], output_size).await
    }

    /// Returns the bytes of the outputs at some nodes below a path.
    pub async fn member_bytes(
        &self,
        run: RunKey,
        source_path: &Path,
        nodes: &[NodeIx],
    ) -> Result<u64, StoreError> {
        let (end, nodes) = (source_path.end(), node_list(nodes));
        let params = params![run.0, source_path.as_str(), &end, &nodes];
        let bytes = self.reader.row(sql::MEMBER_BYTES, &params, read_int).await?;
        Ok(bytes.unwrap_or_default().unsigned_abs())
    }

    /// Reads the states at some nodes below a path that succeeded or failed, in path order.
    pub async fn members(
        &self,
        run: RunKey,
        source_path: &Path,
        nodes: &[NodeIx],
    ) -> Result<Vec<MemberRow>, StoreError> {
        let (end, nodes) = (source_path.end(), node_list(nodes));
        let params = params![run.0, source_path.as_str(), &end, &nodes];
        self.reader.rows(sql::MEMBERS, &params, member).await
    }

    /// Reads the outputs at some nodes below a path, in path order.
    pub async fn member_outputs(
        &self,
        run: RunKey,
        source_path: &Path,
        nodes: &[NodeIx],
    ) -> Result<Vec<(StateId, String)>, StoreError> {
        let (end, nodes) = (source_path.end(), node_list(nodes));
        let params = params![run.0, source_path.as_str(), &end, &nodes];
        let read = |row: &dyn Row| Ok((StateId(row.int(0)?), row.text(1)?));
        self.reader.rows(sql::MEMBER_OUTPUTS, &params, read).await
    }

    /// Reads the sizes of the outputs at some nodes below a path, in path order.
    pub async fn member_sizes(
        &self,
        run: RunKey,
        source_path: &Path,
        nodes: &[NodeIx],
    ) -> Result<Vec<OutputSize>, StoreError> {
        let (end, nodes) = (source_path.end(), node_list(nodes));
        let params = params![run.0, source_path.as_str(), &end, &nodes];
        self.reader.rows(sql::MEMBER_SIZES, &params, output_size).await
    }

    /// Reads an entry of a run's store.
    pub async fn entry(&self, run: RunKey, key: &str) -> Result<Option<Entry>, StoreError> {
        let read = |row: &dyn Row| Ok(Entry { value: row.text(0)?, version: row.int(1)? });
        self.reader.row(sql::ENTRY, &params![run.0, key], read).await
    }

    /// Reads all entries of a run's store, in key order.
    pub async fn entries(&self, run: RunKey) -> Result<Vec<(String, Entry)>, StoreError> {
        let read =
            |row: &dyn Row| Ok((row.text(0)?, Entry { value: row.text(1)?, version: row.int(2)? }));
        self.reader.rows(sql::ENTRIES, &params![run.0], read).await
    }

    /// Scans up to `limit` states of a run, from a path on, for those that failed by themselves;
    /// stops at `max_states` of them. Returns them, and the path to continue from if there are more.
    pub async fn failed_states(
        &self,
        run: RunKey,
        from: &str,
        limit: u32,
        max_states: u32,
    ) -> Result<(Vec<StateId>, Option<String>), StoreError> {
        let rows =
            self.reader.rows(sql::FAILED_STATES, &params![run.0, from, limit], failed).await?;
        let is_last = rows.len() < limit as usize;
        let mut states = Vec::new();
        for (id, path, failed) in &rows {
            if *failed {
                states.push(*id);
            }
            if states.len() == max_states as usize {
                return Ok((states, Some(after_path(path))));
            }
        }
        let next = rows.last().filter(|_| !is_last).map(|(_, path, _)| after_path(path));
        Ok((states, next))
    }

    /// Reads the statuses of several runs.
    pub async fn run_statuses(&self, runs: &[RunKey]) -> Result<Vec<RunUpdate>, StoreError> {
        let runs: Vec<String> = runs.iter().map(|run| run.0.to_string()).collect();
        let runs = format!("[{}]", runs.join(","));
        let read = |row: &dyn Row| {
            let (run, status) = (row.int(0)?, RunStatus::parse(&row.text(2)?));
            let status = status.ok_or_else(|| corrupt_row("run", "status", run))?;
            let (version, paused) = (row.int(1)?, row.int(3)? != 0);
            let is_stopped = status == RunStatus::Cancelled || row.int(4)? > 0;
            let status_changed = true;
            Ok(RunUpdate { run: RunKey(run), version, status, paused, status_changed, is_stopped })
        };
        self.reader.rows(sql::RUN_STATUSES, &params![&runs], read).await
    }
}

/// Reads a state's number, its path, and whether it failed by itself.
fn failed(row: &dyn Row) -> Result<(StateId, String, bool), StoreError> {
    let id = StateId(row.int(0)?);
    let status = to_status(&row.text(2)?, id)?;
    let kind = row.maybe_text(3)?.map(|kind| kind_of(&kind, id)).transpose()?;
    Ok((id, row.text(1)?, failed_by_itself(status, kind)))
}

fn kind_of(kind: &str, id: StateId) -> Result<FailureKind, StoreError> {
    FailureKind::parse(kind).ok_or_else(|| corrupt_row("state", "kind", id))
}

fn member(row: &dyn Row) -> Result<MemberRow, StoreError> {
    let id = StateId(row.int(0)?);
    let kind = row.maybe_text(5)?;
    let kind = kind.map(|kind| kind_of(&kind, id)).transpose()?;
    let outputs = row.maybe_int(4)?.unwrap_or(0);
    let message = row.maybe_text(6)?;
    Ok(MemberRow {
        id,
        node: NodeIx(to_u32(row.int(1)?, "node", id)?),
        path: Path::decode(&row.text(2)?).map_err(|_| corrupt_row("state", "path", id))?,
        status: to_status(&row.text(3)?, id)?,
        outputs: to_u32(outputs, "outputs", id)?,
        failure: kind.map(|kind| (kind, message.unwrap_or_default())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_outputs_are_one_range() {
        let wanted = |all: &[(i64, u32)]| {
            let all: Vec<_> =
                all.iter().map(|(state, number)| (StateId(*state), *number)).collect();
            ranges(&all)
        };
        assert_eq!(wanted(&[]), []);
        assert_eq!(wanted(&[(7, 3), (7, 1), (7, 2), (7, 2), (7, 5)]), [(7, 1, 3), (7, 5, 5)]);
        assert_eq!(wanted(&[(8, 1), (7, 0), (8, 0)]), [(7, 0, 0), (8, 0, 1)]);
        assert_eq!(wanted(&[(7, u32::MAX), (7, u32::MAX)]), [(7, u32::MAX, u32::MAX)]);
    }
}
