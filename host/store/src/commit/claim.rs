//! Claims: states that are due become this session's, each by one guarded
//! update.

use std::collections::BTreeMap;

use exosphere_domain::ids::{Ids, StateId};
use rusqlite::{OptionalExtension, Row, params};

use super::Street;
use crate::batch::Leased;
use crate::error::StoreError;
use crate::rows::{claimed, corrupt};
use crate::sql;

impl<I: Ids> Street<'_, I> {
    /// Claims what is due, and looks when the next is if that was all.
    pub(super) fn claim(&mut self, most: u32) -> Result<(), StoreError> {
        let due = self.due(most)?;
        for id in &due {
            let leased = self.take(*id)?;
            self.done.leased.extend(leased);
        }
        self.done.more = due.len() as u32 == most;
        if !self.done.more {
            let mut next = self.tx.prepare_cached(sql::NEXT_DUE)?;
            self.done.next_due = next.query_row([self.now], |row| row.get(0))?;
        }
        Ok(())
    }

    fn due(&self, most: u32) -> Result<Vec<StateId>, StoreError> {
        let mut statement = self.tx.prepare_cached(sql::DUE)?;
        let rows = statement.query_map(params![self.now, most], |row| row.get(0).map(StateId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Claims one state; nothing if it is no longer there to be claimed.
    pub(super) fn take(&self, id: StateId) -> Result<Option<Leased>, StoreError> {
        let read = |row: &Row<'_>| Ok(leased(row));
        let mut statement = self.tx.prepare_cached(sql::TAKE)?;
        statement.query_row([id.0, self.session.0], read).optional()?.transpose()
    }
}

fn leased(row: &Row<'_>) -> Result<Leased, StoreError> {
    let state = claimed(row)?;
    let fixed = fixed(row.get(13)?, state.id)?;
    Ok(Leased { state, fixed, known: Vec::new() })
}

/// The column `fixed`: store values, as a JSON object of texts.
pub(super) fn fixed(
    text: Option<String>,
    id: StateId,
) -> Result<BTreeMap<String, String>, StoreError> {
    text.map_or_else(
        || Ok(BTreeMap::new()),
        |text| serde_json::from_str(&text).map_err(|_| corrupt("state", "fixed", id)),
    )
}
