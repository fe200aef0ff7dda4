//! Staging: ends with many outputs, written in pieces. Outputs and children are written before
//! the end itself, guarded by the fence and invisible; the end makes them visible, all at once.
//! So a state is never finished with its successors missing, and no transaction is longer than
//! a piece. Rows staged for an end that was never committed are removed in pieces, too.
//!
//! Not here: how the executor cuts an end into pieces and sends them.

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, NamespaceKey, NodeIx, RunKey, StateId};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::state::Status;

use super::CommitTx;
use super::batch::{Control, Finished, Leftover, Operation, Reply, Stage, Staged};
use super::rows::NewStateRow;
use crate::codec::{encode_snapshot, to_status};
use crate::dialect::{ParamRows, PendingWrites, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::sql;

/// The row of an execution's staging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StagedRow {
    /// The fence under which the pieces were staged.
    pub fence: Fence,
    /// The number of pieces.
    pub pieces: u32,
}

/// A change of an execution's staging row; it is deleted when the execution has ended.
pub(super) struct StagedChange {
    pub run: RunKey,
    pub state: StateId,
    pub row: Option<StagedRow>,
}

/// Returns the queue of an execution's staged children: their namespace key until they are claimed.
pub(super) fn queue_of(parent: StateId) -> NamespaceKey {
    NamespaceKey(-parent.0)
}

impl<'b> CommitTx<'b> {
    /// Loads the staging rows of the executions in this batch. There are few, and mostly none.
    pub(super) async fn load_staged(
        &mut self,
        tx: &mut impl Tx,
        operations: &[Operation],
    ) -> Result<(), StoreError> {
        let staged = operations.iter().filter_map(|operation| match operation {
            Operation::Stage(stage) => Some(stage.state.id),
            Operation::Control(_, Control::Unstage(leftover)) => Some(leftover.state),
            Operation::Finish(finished) => finished.staged.map(|_| finished.state.id),
            _ => None,
        });
        let rows = ParamRows::default().ints(staged.map(|state| state.0));
        if !rows.is_empty() {
            self.staged =
                tx.query_each(sql::STAGING, &rows, staged_row).await?.into_iter().collect();
        }
        Ok(())
    }

    /// Stages a piece of an end. A piece that exists already is not written twice: the commit that
    /// wrote it seemed to fail.
    pub(super) fn stage(&mut self, stage: &'b Stage) -> Result<Reply, StoreError> {
        let Stage { run, state, piece, .. } = stage;
        if !self.is_live(run.key) || !self.held.contains(&(state.id, state.claim)) {
            return Ok(Reply::Stale);
        }
        let before = self.staged.get(&state.id).copied();
        let pieces = match before {
            Some(row) if row.fence != state.claim.fence => return Ok(Reply::Leftover(row.fence)),
            Some(row) if row.pieces == piece + 1 => return Ok(Reply::Done),
            Some(row) => row.pieces,
            None => 0,
        };
        // The piece before it was not staged.
        if pieces != *piece {
            return Ok(Reply::Stale);
        }
        if !self.allows(run.key, stage.new_states, &stage.limits)? {
            let failure = stage.limits.reached(Limit::RunStates);
            return Ok(Reply::Refused(failure.message));
        }
        let row = StagedRow { fence: state.claim.fence, pieces: piece + 1 };
        self.staged.insert(state.id, row);
        let change = StagedChange { run: run.key, state: state.id, row: Some(row) };
        self.rows.staged.push(change);
        self.rows.pieces.push(stage);
        for new in &stage.children {
            self.rows.states.push(NewStateRow {
                run: run.key,
                namespace: queue_of(state.id),
                new,
                status: Status::Created,
                due_at: self.now,
                session: None,
                store_snapshot: None,
                held_back: false,
            });
        }
        Ok(Reply::Done)
    }

    /// Makes everything staged for an end visible.
    pub(super) fn publish(
        &mut self,
        finished: &Finished,
        staged: Staged,
    ) -> Result<(), StoreError> {
        let (run, state) = (finished.run.key, &finished.state);
        let is = self.staged.get(&state.id).copied();
        let wanted = StagedRow { fence: state.claim.fence, pieces: staged.pieces };
        if is != Some(wanted) {
            return Err(StoreError::Data(format!(
                "{is:?} is staged for an end, and not {wanted:?}"
            )));
        }
        self.rows.staged.push(StagedChange { run, state: state.id, row: None });
        let graph = self.graph(run)?;
        let loaded = self.change(run)?;
        for node in children(&graph, state.place.node) {
            loaded.row.add_states(node, Status::Created, staged.outputs);
        }
        let paused = loaded.row.paused;
        let mut snapshots = Vec::new();
        for node in followers_with_keys(&graph, state.place.node) {
            let keys = graph.node(node).store_keys().iter();
            let store_snapshot = keys.filter_map(|key| {
                loaded.entries.get(key).map(|entry| (key.clone(), entry.value.clone()))
            });
            if let Some(store_snapshot) = encode_snapshot(&store_snapshot.collect())? {
                snapshots.push((state.id, node, store_snapshot));
            }
        }
        self.rows.snapshots.extend(snapshots);
        let known = &mut self.staged_queues.queues;
        if staged.children > 0 && !known.is_empty() {
            known.insert(queue_of(state.id));
        }
        self.done.more_due |= staged.children > 0 && !paused;
        Ok(())
    }

    /// Removes some of the rows staged for an end that was never committed.
    pub(super) async fn unstage(
        &mut self,
        tx: &mut impl Tx,
        run: RunKey,
        leftover: &Leftover,
    ) -> Result<Reply, StoreError> {
        let Leftover { state, fence, limit } = leftover;
        if self.staged.get(state).is_none_or(|row| row.fence != *fence) {
            return Ok(Reply::Done);
        }
        let claim = tx.query(sql::CLAIM_OF_STATE, &params![state.0], claim).await?;
        let is_held = claim.first().is_some_and(|claim| *claim == (Status::Queued, *fence));
        if is_held && self.is_live(run) {
            return Ok(Reply::Stale);
        }
        let (queue, limit) = (queue_of(*state).0, i64::from(*limit));
        let outputs = tx.execute(sql::UNSTAGE_OUTPUTS, &params![state.0, limit]).await?;
        let children = tx.execute(sql::UNSTAGE_STATES, &params![queue, limit]).await?;
        if outputs.max(children) < limit.unsigned_abs() {
            tx.execute(sql::END_STAGING, &params![state.0]).await?;
            return Ok(Reply::Done);
        }
        Ok(Reply::More(String::new()))
    }

    /// Returns whether a run's limit allows `new_states` more states.
    pub(super) fn allows(
        &mut self,
        run: RunKey,
        new_states: usize,
        limits: &Limits,
    ) -> Result<bool, StoreError> {
        let states = self.run(run)?.row.states.unsigned_abs();
        Ok(states.saturating_add(new_states as u64) <= limits.get(Limit::RunStates))
    }
}

/// Returns the nodes of the children that one output of a node makes, one for each edge.
fn children(graph: &Graph, node: NodeIx) -> impl Iterator<Item = NodeIx> + '_ {
    graph.node(node).next.iter().copied().filter(|to| graph.node(*to).unites.is_none())
}

/// Returns the successors that a node creates as children and whose inputs name store keys.
fn followers_with_keys(graph: &Graph, node: NodeIx) -> Vec<NodeIx> {
    let has_keys = |to: &NodeIx| !graph.node(*to).store_keys().is_empty();
    let mut nodes: Vec<NodeIx> = children(graph, node).filter(has_keys).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Writes the changed staging rows and fixed store values, and adds the pieces to the pending
/// writes.
pub(super) async fn write<'r>(
    tx: &mut impl Tx,
    pending: &mut PendingWrites<'r>,
    changes: &[StagedChange],
    pieces: &[&'r Stage],
    snapshots: &[(StateId, NodeIx, String)],
) -> Result<(), StoreError> {
    if !changes.is_empty() || !snapshots.is_empty() {
        tx.flush(pending).await?;
    }
    for StagedChange { run, state, row } in changes {
        match row {
            Some(StagedRow { fence, pieces }) => {
                let row = params![state.0, run.0, fence.0, *pieces];
                tx.execute(sql::SET_STAGING, &row).await?
            }
            None => tx.execute(sql::END_STAGING, &params![state.0]).await?,
        };
    }
    if !snapshots.is_empty() {
        let rows = ParamRows::default()
            .ints(snapshots.iter().map(|(state, ..)| state.0))
            .ints(snapshots.iter().map(|(_, node, _)| i64::from(node.0)))
            .texts(snapshots.iter().map(|(.., store_snapshot)| store_snapshot.as_str()));
        tx.execute_each(sql::NEW_SNAPSHOT, &rows).await?;
    }
    let outputs = || {
        pieces.iter().flat_map(|stage| {
            let numbers = i64::from(stage.first)..;
            numbers.zip(&stage.outputs).map(|(number, body)| (stage.state.id.0, number, body))
        })
    };
    let rows = ParamRows::default()
        .ints(outputs().map(|(state, ..)| state))
        .ints(outputs().map(|(_, number, _)| number))
        .texts(outputs().map(|(.., body)| body.as_str()));
    pending.add(sql::NEW_OUTPUT, rows);
    Ok(())
}

fn staged_row(row: &dyn Row) -> Result<(StateId, StagedRow), StoreError> {
    let state = StateId(row.int(0)?);
    let pieces = u32::try_from(row.int(2)?).map_err(|_| corrupt_row("staged", "pieces", state))?;
    Ok((state, StagedRow { fence: Fence(row.int(1)?), pieces }))
}

fn claim(row: &dyn Row) -> Result<(Status, Fence), StoreError> {
    let id = StateId(row.int(0)?);
    Ok((to_status(&row.text(1)?, id)?, Fence(row.int(2)?)))
}
