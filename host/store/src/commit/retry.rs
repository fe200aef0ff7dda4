//! Manual retry: a failed state is free to be claimed again, and the unites
//! that were blocked by it wait again.

use std::sync::Arc;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Ids, StateId};
use exosphere_domain::reopen::{Above, Refused, reopen};
use exosphere_domain::state::{RunStatus, Status};
use rusqlite::{OptionalExtension, Row, params};

use super::Street;
use crate::batch::{Answer, RunInfo};
use crate::error::StoreError;
use crate::rows::{corrupt, place, status};
use crate::sql;

impl<I: Ids> Street<'_, I> {
    pub(super) fn retry(&mut self, run: &Arc<RunInfo>, id: StateId) -> Result<Answer, StoreError> {
        let Some(touching) = self.touch(run.key, Some(run))? else { return Ok(Answer::Missing) };
        if touching.tally.status == RunStatus::Cancelled {
            return Ok(Answer::Refused("the run was cancelled".into()));
        }
        let Some(state) = self.look_up(run, id)? else { return Ok(Answer::Missing) };
        match (state.status, state.failed) {
            (Status::Errored, Some(FailureKind::Blocked)) => {
                let words = "it is a unite that is blocked by failed states: retry those";
                return Ok(Answer::Refused(words.into()));
            }
            (Status::Errored, _) => {}
            (other, _) => {
                let words = format!("only an ERRORED state can be retried; this one is {other}");
                return Ok(Answer::Refused(words));
            }
        }
        let above = |unite| {
            let missing = || corrupt("state", "scopes", id);
            self.look_up(run, unite)?.ok_or_else(missing)
        };
        let reopened = match reopen(&run.graph, &state.place, above) {
            Ok(reopened) => reopened,
            Err(Refused::LookUp(error)) => return Err(error),
            Err(Refused::Misfit(misfit)) => return Err(misfit.into()),
            Err(refused @ Refused::WentOn { .. }) => {
                return Ok(Answer::Refused(refused.to_string()));
            }
        };
        self.reopen_row(id, "CREATED")?;
        for unite in &reopened.unites {
            self.reopen_row(*unite, "WAITING")?;
        }
        self.count(run.key, &reopened.counts)?;
        self.run(run.key)?.tally.errored -= 1 + reopened.unites.len() as i64;
        self.done.more = true;
        Ok(Answer::Done)
    }

    fn reopen_row(&self, id: StateId, status: &str) -> Result<(), StoreError> {
        let row = params![id.0, status, self.now];
        self.tx.prepare_cached(sql::REOPEN_STATE)?.execute(row)?;
        Ok(())
    }

    fn look_up(&self, run: &RunInfo, id: StateId) -> Result<Option<Above>, StoreError> {
        let read = |row: &Row<'_>| Ok(above(row, id));
        let mut statement = self.tx.prepare_cached(sql::FAILED_STATE)?;
        statement.query_row([id.0, run.key.0], read).optional()?.transpose()
    }
}

fn above(row: &Row<'_>, id: StateId) -> Result<Above, StoreError> {
    let kind: Option<String> = row.get(1)?;
    let failed = kind
        .map(|kind| FailureKind::parse(&kind).ok_or_else(|| corrupt("state", "kind", id)))
        .transpose()?;
    Ok(Above { status: status(&row.get::<_, String>(0)?, id)?, failed, place: place(row, id, 2)? })
}
