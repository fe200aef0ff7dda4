//! What counts bring about: a unite with nothing open below it closes, which
//! may close the next. Zero is looked for only after all counts of a wave.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, Ids, RunKey, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::plan::counters;
use exosphere_domain::state::{Claim, Claimed, Counter, Counts, Place, Tries};
use exosphere_domain::unite::{Closing, FailedMember, MAX_NAMED, blocked, close};
use rusqlite::{OptionalExtension, Row, params};

use super::{Drained, Street};
use crate::batch::Leased;
use crate::error::StoreError;
use crate::rows::{corrupt, place};
use crate::sql;

/// A unite's row, while it waits.
struct Waiting {
    place: Place,
    fence: Fence,
    fixed: std::collections::BTreeMap<String, String>,
}

impl<I: Ids> Street<'_, I> {
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        loop {
            let drained = self.count_unites()?;
            if drained.is_empty() {
                return Ok(());
            }
            for unite in drained {
                self.close(unite)?;
            }
        }
    }

    /// Writes what is to be counted; returns the unites that came to zero.
    fn count_unites(&mut self) -> Result<Vec<Drained>, StoreError> {
        let mut drained = std::mem::take(&mut self.drained);
        for (state, (run, delta)) in std::mem::take(&mut self.counts) {
            let row = params![state.0, delta.open, delta.failed, delta.arrived];
            let (counts, branches) = self
                .tx
                .prepare_cached(sql::COUNT)?
                .query_row(row, |row| {
                    let counts =
                        Counts { open: row.get(0)?, failed: row.get(1)?, arrived: row.get(2)? };
                    Ok((counts, row.get(3)?))
                })
                .optional()?
                .ok_or_else(|| corrupt("unite", "state", state))?;
            if counts.open == 0 {
                drained.push(Drained { run, state, counts, branches });
            }
        }
        Ok(drained)
    }

    fn close(&mut self, unite: Drained) -> Result<(), StoreError> {
        let Drained { run, state, counts, branches } = unite;
        let read = |row: &Row<'_>| Ok(waiting(row, state));
        let row = self.tx.prepare_cached(sql::WAITING)?.query_row([state.0], read).optional()?;
        let Some(waiting) = row.transpose()? else { return Ok(()) };
        let graph = self.graph(run)?;
        let (closing, deltas) = close(&graph, &waiting.place, counts, branches)?;
        match closing {
            Closing::Run => self.open_unite(run, state, waiting)?,
            Closing::Prune => {
                self.end_unite(state, "PRUNED", None)?;
                self.run(run)?.tally.pruned += 1;
            }
            Closing::Block => {
                let failure = self.why_blocked(run, state, counts, &graph)?;
                self.end_unite(state, "ERRORED", Some(&failure))?;
                self.run(run)?.tally.errored += 1;
            }
        }
        self.count(run, &deltas)
    }

    /// A unite may run: claimed at once while there is room.
    fn open_unite(&mut self, run: RunKey, id: StateId, row: Waiting) -> Result<(), StoreError> {
        let born = self.births > 0;
        self.births -= u32::from(born);
        self.done.more |= !born;
        let (status, holder) = match born {
            true => ("QUEUED", Some(self.session.0)),
            false => ("CREATED", None),
        };
        let attempt = self
            .tx
            .prepare_cached(sql::OPEN_UNITE)?
            .query_row(params![id.0, status, self.now, holder, i64::from(born)], |row| {
                row.get(0)
            })?;
        if born {
            let claim = Claim { session: self.session, fence: Fence(row.fence.0 + 1) };
            let tries = Tries { attempt, ..Tries::default() };
            let state = Claimed { id, run, place: row.place, tries, claim };
            self.done.leased.push(Leased { state, fixed: row.fixed, known: Vec::new() });
        }
        Ok(())
    }

    fn end_unite(
        &mut self,
        id: StateId,
        status: &str,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        self.tx.prepare_cached(sql::END_UNITE)?.execute(params![
            id.0,
            status,
            self.now,
            failure.map(|failure| failure.kind.as_str()),
            failure.map(|failure| &failure.message),
            failure.map(super::finish::details).transpose()?.flatten(),
        ])?;
        Ok(())
    }

    /// The failure of a unite whose strategy was not met: names the branches.
    fn why_blocked(
        &mut self,
        run: RunKey,
        unite: StateId,
        counts: Counts,
        graph: &Graph,
    ) -> Result<Failure, StoreError> {
        let above: String =
            self.tx.prepare_cached(sql::UNITE_SOURCE)?.query_row([unite.0], |row| row.get(1))?;
        let above = Path::decode(&above).map_err(|_| corrupt("state", "path", unite))?;
        let id = self.run(run)?.info.as_ref().map(|info| info.id.to_string()).unwrap_or_default();
        let mut statement = self.tx.prepare_cached(sql::FAILED_MEMBERS)?;
        let mut rows = statement.query(params![run.0, above.as_str(), above.end()])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            let member = StateId(row.get(0)?);
            let place = place(row, member, 1)?;
            if member != unite && counters(graph, &place)?.contains(&Counter::Unite(unite)) {
                let failure = failure(row, member)?;
                members.push(FailedMember { place, state: format!("{id}/{member}"), failure });
            }
            if members.len() == MAX_NAMED {
                break;
            }
        }
        Ok(blocked(graph, &above, counts, &members))
    }
}

fn waiting(row: &Row<'_>, id: StateId) -> Result<Waiting, StoreError> {
    let fixed: Option<String> = row.get(6)?;
    Ok(Waiting {
        place: place(row, id, 1)?,
        fence: Fence(row.get(5)?),
        fixed: super::claim::fixed(fixed, id)?,
    })
}

/// The failure in columns `kind, message` of [`sql::FAILED_MEMBERS`].
fn failure(row: &Row<'_>, id: StateId) -> Result<Failure, StoreError> {
    let kind: String = row.get(5)?;
    let kind = FailureKind::parse(&kind).ok_or_else(|| corrupt("state", "kind", id))?;
    Ok(Failure::new(kind, row.get::<_, Option<String>>(6)?.unwrap_or_default()))
}
