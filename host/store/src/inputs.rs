//! What executions read: outputs that their inputs name, what a unite gathers,
//! and the run's store.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::journal::Entry;
use exosphere_domain::path::Path;
use exosphere_domain::state::{Claimed, Status};
use futures::TryStreamExt;
use sqlx::Row;
use std::collections::HashMap;

use crate::error::StoreError;
use crate::rows::{claimed, corrupt};
use crate::{Store, sql};

/// A member of a unite's scope that has ended, as the gather sees it.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// Its number.
    pub id: StateId,
    /// Its node.
    pub node: NodeIx,
    /// Its path.
    pub path: Path,
    /// How it ended.
    pub status: Status,
    /// How many outputs it has.
    pub outputs: u32,
    /// Why it failed, if it did.
    pub failure: Option<(FailureKind, String)>,
}

impl Store {
    /// Some outputs, by state and number: about as many as have `most` bytes
    /// together. What is not there is left out.
    pub async fn outputs_at(
        &self,
        wanted: &[(StateId, u32)],
        most: usize,
    ) -> Result<HashMap<(StateId, u32), String>, StoreError> {
        let pairs: Vec<(i64, u32)> = wanted.iter().map(|(state, n)| (state.0, *n)).collect();
        let pairs = serde_json::to_string(&pairs).map_err(|e| StoreError::Data(e.to_string()))?;
        let mut rows = sqlx::query(sql::OUTPUTS_AT).bind(pairs).fetch(&self.readers);
        let mut outputs = HashMap::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let body: String = row.try_get(2)?;
            bytes += body.len();
            outputs.insert((StateId(row.try_get(0)?), row.try_get(1)?), body);
            if bytes > most {
                break;
            }
        }
        Ok(outputs)
    }

    /// The execution that a unite joins: its state, its path, its outputs.
    pub async fn source_of(&self, unite: StateId) -> Result<(StateId, Path, u32), StoreError> {
        let query = sqlx::query(sql::UNITE_SOURCE).bind(unite.0);
        let row = query.fetch_optional(&self.readers).await?;
        let row = row.ok_or_else(|| corrupt("unite", "state", unite))?;
        let path: String = row.try_get(1)?;
        let path = Path::decode(&path).map_err(|_| corrupt("state", "path", unite))?;
        Ok((StateId(row.try_get(0)?), path, row.try_get(2)?))
    }

    /// Bytes of all outputs of one state.
    pub async fn output_bytes(&self, state: StateId) -> Result<u64, StoreError> {
        let row = sqlx::query(sql::OUTPUT_BYTES).bind(state.0).fetch_one(&self.readers).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    /// All outputs of one state, in order.
    pub async fn outputs_of(&self, state: StateId) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(sql::OUTPUTS).bind(state.0).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Bytes of the outputs at some nodes below a path.
    pub async fn member_bytes(
        &self,
        run: RunKey,
        above: &Path,
        nodes: &[NodeIx],
    ) -> Result<u64, StoreError> {
        let query = below(sql::MEMBER_BYTES, run, above, nodes);
        let row = query.fetch_one(&self.readers).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    /// The ends at some nodes below a path that succeeded or failed, in path
    /// order.
    pub async fn members(
        &self,
        run: RunKey,
        above: &Path,
        nodes: &[NodeIx],
    ) -> Result<Vec<MemberRow>, StoreError> {
        let rows = below(sql::MEMBERS, run, above, nodes).fetch_all(&self.readers).await?;
        rows.iter().map(member).collect()
    }

    /// The outputs at some nodes below a path, by state, in order.
    pub async fn member_outputs(
        &self,
        run: RunKey,
        above: &Path,
        nodes: &[NodeIx],
    ) -> Result<HashMap<StateId, Vec<String>>, StoreError> {
        let rows = below(sql::MEMBER_OUTPUTS, run, above, nodes).fetch_all(&self.readers).await?;
        let mut outputs: HashMap<StateId, Vec<String>> = HashMap::new();
        for row in rows {
            outputs.entry(StateId(row.try_get(0)?)).or_default().push(row.try_get(1)?);
        }
        Ok(outputs)
    }

    /// A key of a run's store.
    pub async fn entry(&self, run: RunKey, key: &str) -> Result<Option<Entry>, StoreError> {
        let query = sqlx::query(sql::ENTRY).bind(run.0).bind(key);
        let row = query.fetch_optional(&self.readers).await?;
        row.map(|row| Ok(Entry { value: row.try_get(0)?, version: row.try_get(1)? })).transpose()
    }

    /// All of a run's store, in the order of the keys.
    pub async fn entries(&self, run: RunKey) -> Result<Vec<(String, Entry)>, StoreError> {
        let rows = sqlx::query(sql::ENTRIES).bind(run.0).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok((row.try_get(0)?, Entry { value: row.try_get(1)?, version: row.try_get(2)? }))
            })
            .collect()
    }

    /// States that other sessions than this one hold, some at a time.
    pub async fn held_by_others(
        &self,
        session: SessionId,
        most: u32,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.writer
            .call(move |connection| {
                let mut statement = connection.prepare(sql::HELD)?;
                let mut rows = statement.query([session.0, i64::from(most)])?;
                let mut held = Vec::new();
                while let Some(row) = rows.next()? {
                    held.push(claimed(row)?);
                }
                Ok(held)
            })
            .await
    }

    /// Cancelled runs whose states are still to be swept.
    pub async fn unswept(&self) -> Result<Vec<RunKey>, StoreError> {
        let rows = sqlx::query(sql::UNSWEPT).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(RunKey(row.try_get(0)?))).collect()
    }
}

/// A statement over what lies below a path at some nodes.
fn below(
    text: &'static str,
    run: RunKey,
    above: &Path,
    nodes: &[NodeIx],
) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let nodes: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    let nodes = format!("[{}]", nodes.join(","));
    sqlx::query(text).bind(run.0).bind(above.as_str().to_owned()).bind(above.end()).bind(nodes)
}

fn member(row: &sqlx::sqlite::SqliteRow) -> Result<MemberRow, StoreError> {
    let id = StateId(row.try_get(0)?);
    let path: String = row.try_get(2)?;
    let status: String = row.try_get(3)?;
    let kind: Option<String> = row.try_get(5)?;
    let kind = kind
        .map(|kind| FailureKind::parse(&kind).ok_or_else(|| corrupt("state", "kind", id)))
        .transpose()?;
    let message: Option<String> = row.try_get(6)?;
    Ok(MemberRow {
        id,
        node: NodeIx(row.try_get(1)?),
        path: Path::decode(&path).map_err(|_| corrupt("state", "path", id))?,
        status: crate::rows::status(&status, id)?,
        outputs: row.try_get::<Option<u32>, _>(4)?.unwrap_or(0),
        failure: kind.map(|kind| (kind, message.unwrap_or_default())),
    })
}
