//! Manual retry of one failed state or of all of a run. The states can be claimed again, and the
//! unites that they blocked wait again. No unite closes in between: either one transaction opens
//! all, or the opened states are held back until the last is open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::manual_retry::{EnclosingUnite, RetryError, failed_by_itself, plan_retry};
use exosphere_domain::state::{RunStatus, Status};

use super::CommitTx;
use super::batch::{RedrivePart, Reply};
use crate::codec::{read_place, to_status};
use crate::dialect::{Cursor, ParamRows, Row, Tx};
use crate::error::{StoreError, corrupt_row};
use crate::sql;
use crate::types::RunInfo;

/// The states and unites that a retry opens, and the reasons why it refuses other states.
#[derive(Default)]
struct Opened {
    states: Vec<(StateId, NodeIx)>,
    unites: BTreeMap<StateId, NodeIx>,
    too_late: Vec<String>,
}

impl CommitTx<'_> {
    pub(super) async fn retry(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        id: StateId,
    ) -> Result<Reply, StoreError> {
        if let Some(refused) = self.refuses_retries(tx, run).await? {
            return Ok(refused);
        }
        let found = states_at(tx, run, [id].into_iter().collect()).await?.into_iter().next();
        let Some((id, state)) = found else { return Ok(Reply::Missing) };
        if !failed_by_itself(state.status, state.failed) {
            return Ok(Reply::Refused(match state.status {
                Status::Errored => {
                    "it is a unite that is blocked by failed states: retry those".into()
                }
                other => format!("only an ERRORED state can be retried; this one is {other}"),
            }));
        }
        let reopened = self.reopen(tx, run, vec![(id, state)]).await?;
        Ok(reopened.too_late.into_iter().next().map_or(Reply::Done, Reply::Refused))
    }

    pub(super) async fn redrive(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        part: &RedrivePart,
    ) -> Result<Reply, StoreError> {
        match part {
            RedrivePart::Whole(states) => self.redrive_whole(tx, run, states).await,
            RedrivePart::Begin => self.begin_redrive(tx, run).await,
            RedrivePart::Some { event, states } => {
                if self.run(run.key)?.row.redrive != *event {
                    return Ok(Reply::Stale);
                }
                let failed = failed_of(tx, run, states).await?;
                let reopened = self.reopen(tx, run, failed).await?;
                Ok(Reply::Redriven { states: reopened.states.len(), late: reopened.too_late.len() })
            }
            RedrivePart::End { event } => {
                let row = &mut self.run(run.key)?.row;
                if row.redrive != *event {
                    return Ok(Reply::Stale);
                }
                row.redrive = 0;
                self.request_sweep(run)
            }
        }
    }

    async fn begin_redrive(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
    ) -> Result<Reply, StoreError> {
        if let Some(refused) = self.refuses_redrives(tx, run).await? {
            return Ok(refused);
        }
        let row = &mut self.change(run.key)?.row;
        row.redrive = row.version + 1;
        Ok(Reply::ToSweep(row.redrive))
    }

    async fn redrive_whole(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        states: &[StateId],
    ) -> Result<Reply, StoreError> {
        if let Some(refused) = self.refuses_redrives(tx, run).await? {
            return Ok(refused);
        }
        let failed = failed_of(tx, run, states).await?;
        if failed.is_empty() {
            return Ok(Reply::Refused("no state of this run has failed".into()));
        }
        let reopened = self.reopen(tx, run, failed).await?;
        match (reopened.states.len(), reopened.too_late) {
            (0, late) => {
                let cause = late.first().map(String::as_str).unwrap_or_default();
                Ok(Reply::Refused(format!(
                    "none of its {} failed states can be retried: {cause}",
                    late.len()
                )))
            }
            (states, late) => Ok(Reply::Redriven { states, late: late.len() }),
        }
    }

    async fn refuses_retries(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
    ) -> Result<Option<Reply>, StoreError> {
        if self.run(run.key)?.row.status == RunStatus::Cancelled {
            return Ok(Some(Reply::Refused("the run was cancelled".into())));
        }
        self.refuses_missed(tx, run.key).await
    }

    async fn refuses_redrives(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
    ) -> Result<Option<Reply>, StoreError> {
        if self.run(run.key)?.row.redrive > 0 {
            let message = "a redrive of this run is under way; wait for its end";
            return Ok(Some(Reply::Refused(message.into())));
        }
        self.refuses_retries(tx, run).await
    }

    /// Reopens failed states and the unites above that they blocked. A state stays failed if a
    /// unite above has continued without it.
    async fn reopen(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        failed: Vec<(StateId, EnclosingUnite)>,
    ) -> Result<Opened, StoreError> {
        let mut unites = unites_above(tx, run, &failed).await?;
        let mut opened = Opened::default();
        for (id, state) in failed {
            let look_up = |unite| unites.get(&unite).cloned().ok_or(NotThere(unite));
            let reopened = match plan_retry(&run.graph, &state.place, look_up) {
                Ok(reopened) => reopened,
                Err(RetryError::LookUp(NotThere(_))) => {
                    return Err(corrupt_row("state", "scopes", id));
                }
                Err(RetryError::GraphMismatch(misfit)) => return Err(misfit.into()),
                Err(late @ RetryError::UnitePassed { .. }) => {
                    opened.too_late.push(late.to_string());
                    continue;
                }
            };
            for unite in &reopened.unites {
                if let Some(enclosing) = unites.get_mut(unite) {
                    (enclosing.status, enclosing.failed) = (Status::Waiting, None);
                    opened.unites.insert(*unite, enclosing.place.node);
                }
            }
            self.count(run.key, &reopened.counts)?;
            opened.states.push((id, state.place.node));
        }
        self.reopen_rows(tx, run, &opened).await?;
        Ok(opened)
    }

    async fn reopen_rows(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        reopened: &Opened,
    ) -> Result<(), StoreError> {
        if reopened.states.is_empty() {
            return Ok(());
        }
        self.pause_reopened(tx, run).await?;
        let row = &mut self.change(run.key)?.row;
        for (_, node) in &reopened.states {
            row.change_status(*node, Status::Errored, Status::Created);
        }
        for node in reopened.unites.values() {
            row.change_status(*node, Status::Errored, Status::Waiting);
        }
        let held_back = row.holds_back_reopened();
        self.done.more_due |= !held_back;
        self.done.added |= !held_back;
        let states = reopened.states.iter().map(|(id, _)| (id, Status::Created, held_back));
        let unites = reopened.unites.keys().map(|id| (id, Status::Waiting, false));
        let all: Vec<_> = states.chain(unites).collect();
        let rows = ParamRows::default()
            .ints(all.iter().map(|(id, ..)| id.0))
            .texts(all.iter().map(|(_, status, _)| status.as_str()))
            .all(self.now)
            .ints(all.iter().map(|(.., held_back)| i64::from(*held_back)));
        tx.execute_each(sql::REOPEN_STATE, &rows).await.map(drop)
    }
}

/// A reference, in a state's scopes, to a unite that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("there is no unite {0}")]
struct NotThere(StateId);

/// Filters the states that failed by themselves.
async fn failed_of(
    tx: &mut impl Tx,
    run: &RunInfo,
    states: &[StateId],
) -> Result<Vec<(StateId, EnclosingUnite)>, StoreError> {
    let mut failed = states_at(tx, run, states.iter().copied().collect()).await?;
    failed.retain(|(_, state)| failed_by_itself(state.status, state.failed));
    failed.sort_by(|(_, a), (_, b)| a.place.path.cmp(&b.place.path));
    Ok(failed)
}

/// Returns all unites around some states, and the unites around those.
async fn unites_above(
    tx: &mut impl Tx,
    run: &RunInfo,
    states: &[(StateId, EnclosingUnite)],
) -> Result<HashMap<StateId, EnclosingUnite>, StoreError> {
    let scopes = |unite: &EnclosingUnite| {
        unite.place.scopes.iter().map(|scope| scope.state).collect::<Vec<_>>()
    };
    let mut known = HashMap::new();
    let mut pending: BTreeSet<StateId> =
        states.iter().flat_map(|(_, state)| scopes(state)).collect();
    while !pending.is_empty() {
        let found = states_at(tx, run, pending).await?;
        pending = found.iter().flat_map(|(_, state)| scopes(state)).collect();
        known.extend(found);
        pending.retain(|unite| !known.contains_key(unite));
    }
    Ok(known)
}

async fn states_at(
    tx: &mut impl Tx,
    run: &RunInfo,
    states: BTreeSet<StateId>,
) -> Result<Vec<(StateId, EnclosingUnite)>, StoreError> {
    let rows = ParamRows::default()
        .ints(states.iter().map(|_| run.key.0))
        .ints(states.iter().map(|state| state.0));
    tx.query_each(sql::STATES_TO_RETRY, &rows, read_state).await
}

fn read_state(row: &dyn Row) -> Result<(StateId, EnclosingUnite), StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let status = to_status(&columns.next::<String>("status")?, id)?;
    let kind = columns.next::<Option<String>>("kind")?;
    let failed =
        kind.map(|kind| FailureKind::parse(&kind).ok_or_else(|| corrupt_row("state", "kind", id)));
    Ok((
        id,
        EnclosingUnite { status, failed: failed.transpose()?, place: read_place(columns, id)? },
    ))
}
