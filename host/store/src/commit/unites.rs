//! Closes unites whose count of open members has reached zero, repeating until none is left,
//! because closing one may close its parent.

use std::collections::{BTreeMap, HashMap};

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, NodeIx, RunKey, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::{AttemptCounts, Claim, Claimed, Counts, Place, Status};
use exosphere_domain::unite::{FailedMember, MAX_NAMED, UniteDecision, blocked_failure, close};

use super::rows::details;
use super::{CommitTx, DrainedUnite};
use crate::codec::{node_list, read_place, store_snapshot, to_u32};
use crate::dialect::{Cursor, ParamRows, PendingWrites, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::sql;
use crate::types::ClaimedState;

/// The row of a waiting unite.
struct WaitingUnite {
    id: StateId,
    place: Place,
    fence: Fence,
    attempt: u32,
    store_snapshot: BTreeMap<String, String>,
}

/// The results of closing the unites of one wave.
#[derive(Default)]
struct UniteUpdates {
    /// Unites that may run.
    opened: Vec<(StateId, Opening)>,
    /// Unites that are pruned, or blocked by a failure.
    ended: Vec<(StateId, Option<Failure>)>,
}

/// The state in which a unite opens for execution.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// The unite is claimed by this session immediately.
    Claimed,
    /// The unite can be claimed.
    Ready,
    /// The unite waits for the end of a pause.
    HeldBack,
}

impl CommitTx<'_> {
    pub(super) async fn close_unites(
        &mut self,
        tx: &mut impl Tx,
        pending: &mut PendingWrites<'_>,
    ) -> Result<(), StoreError> {
        while !self.counts.is_empty() || !self.drained.is_empty() {
            // Among the pending writes are new unites, and those that the last wave opened.
            tx.flush(pending).await?;
            let drained = self.count_unites(tx).await?;
            if drained.is_empty() {
                return Ok(());
            }
            let ids = ParamRows::default().ints(drained.iter().map(|unite| unite.state.0));
            let waiting = tx.query_each(sql::WAITING, &ids, waiting).await?;
            let mut waiting: HashMap<_, _> = waiting.into_iter().map(|row| (row.id, row)).collect();
            let mut updates = UniteUpdates::default();
            for unite in drained {
                // A unite that is not waiting has already opened, or failed.
                if let Some(row) = waiting.remove(&unite.state) {
                    self.close(tx, unite, row, &mut updates).await?;
                }
            }
            self.write_unites(pending, updates)?;
        }
        Ok(())
    }

    /// Writes the count changes; returns the unites whose open count is zero.
    async fn count_unites(&mut self, tx: &mut impl Tx) -> Result<Vec<DrainedUnite>, StoreError> {
        let mut drained = std::mem::take(&mut self.drained);
        let counts = std::mem::take(&mut self.counts);
        if counts.is_empty() {
            return Ok(drained);
        }
        let rows = ParamRows::default()
            .ints(counts.keys().map(|unite| unite.0))
            .ints(counts.values().map(|(_, delta)| delta.open))
            .ints(counts.values().map(|(_, delta)| delta.failed))
            .ints(counts.values().map(|(_, delta)| delta.arrived));
        let counted = tx.query_each(sql::COUNT_IN_UNITES, &rows, counted).await?;
        if counted.len() != counts.len() {
            let found: Vec<_> = counted.iter().map(|(state, ..)| *state).collect();
            let missing = counts.keys().find(|unite| !found.contains(unite));
            return Err(corrupt_row("unite", "state", missing.map_or(0, |unite| unite.0)));
        }
        for (state, now, branches) in counted.into_iter().filter(|(_, now, _)| now.open == 0) {
            drained.push(DrainedUnite { run: counts[&state].0, state, counts: now, branches });
        }
        // Sorted, so that both databases give one order.
        drained.sort_by_key(|unite| unite.state);
        Ok(drained)
    }

    async fn close(
        &mut self,
        tx: &mut impl Tx,
        unite: DrainedUnite,
        row: WaitingUnite,
        updates: &mut UniteUpdates,
    ) -> Result<(), StoreError> {
        let DrainedUnite { run, state, counts, branches } = unite;
        let (graph, node) = (self.graph(run)?, row.place.node);
        let (closing, deltas) = close(&graph, &row.place, counts, branches)?;
        match closing {
            UniteDecision::Run => updates.opened.push(self.open_unite(run, row)?),
            UniteDecision::Prune => {
                updates.ended.push((state, None));
                let loaded = self.change(run)?;
                loaded.row.change_status(node, Status::Waiting, Status::Pruned);
                loaded.commit_counts.pruned += 1;
            }
            UniteDecision::Block => {
                let failure = self.blocked_failure(tx, run, (state, node), counts, &graph).await?;
                let loaded = self.change(run)?;
                loaded.row.change_status(node, Status::Waiting, Status::Errored);
                loaded.commit_counts.add_errored(&failure);
                updates.ended.push((state, Some(failure)));
            }
        }
        self.count(run, &deltas)
    }

    /// Opens a unite for execution: claimed at once if the shares allow.
    fn open_unite(
        &mut self,
        run: RunKey,
        row: WaitingUnite,
    ) -> Result<(StateId, Opening), StoreError> {
        let loaded = self.change(run)?;
        loaded.row.change_status(row.place.node, Status::Waiting, Status::Created);
        let paused = loaded.row.paused;
        let Some(namespace) = self.claim_new_state(run)? else {
            return Ok((row.id, if paused { Opening::HeldBack } else { Opening::Ready }));
        };
        let claim = Claim { session: self.session, fence: Fence(row.fence.0 + 1) };
        let attempts = AttemptCounts { attempt: row.attempt + 1, ..AttemptCounts::default() };
        let state = Claimed { id: row.id, run, place: row.place, attempts, claim };
        self.done.claimed.push(ClaimedState {
            state,
            namespace,
            store_snapshot: row.store_snapshot,
            due_at: self.now,
            known_outputs: Vec::new(),
        });
        Ok((row.id, Opening::Claimed))
    }

    fn write_unites(
        &self,
        pending: &mut PendingWrites<'_>,
        updates: UniteUpdates,
    ) -> Result<(), StoreError> {
        let UniteUpdates { opened, ended } = updates;
        let status = |opening: Opening| match opening {
            Opening::Claimed => Status::Queued,
            Opening::Ready | Opening::HeldBack => Status::Created,
        };
        let has = |expected: Opening| move |(_, opening): &(StateId, Opening)| *opening == expected;
        let claimed = || opened.iter().map(has(Opening::Claimed));
        let rows = ParamRows::default()
            .ints(opened.iter().map(|(id, _)| id.0))
            .texts(opened.iter().map(|(_, opening)| status(*opening).as_str()))
            .all(self.now)
            .maybe_ints(claimed().map(|claimed| claimed.then_some(self.session.0)))
            .ints(claimed().map(i64::from))
            .ints(opened.iter().map(has(Opening::HeldBack)).map(i64::from));
        pending.add(sql::OPEN_UNITE, rows);
        let failures = || ended.iter().map(|(_, failure)| failure.as_ref());
        let details: Vec<_> = failures()
            .map(|failure| failure.map_or(Ok(None), details))
            .collect::<Result<_, _>>()?;
        let status = |failure: Option<&Failure>| match failure {
            Some(_) => Status::Errored.as_str(),
            None => Status::Pruned.as_str(),
        };
        let rows = ParamRows::default()
            .ints(ended.iter().map(|(id, _)| id.0))
            .texts(failures().map(status))
            .all(self.now)
            .maybe_texts(failures().map(|failure| failure.map(|f| f.kind.as_str())))
            .maybe_texts(failures().map(|failure| failure.map(|f| f.message.clone())))
            .maybe_texts(details);
        pending.add(sql::END_UNITE, rows);
        Ok(())
    }

    /// Returns the failure of a unite whose strategy was not met; it names the branches.
    async fn blocked_failure(
        &mut self,
        tx: &mut impl Tx,
        run: RunKey,
        (unite, node): (StateId, NodeIx),
        counts: Counts,
        graph: &Graph,
    ) -> Result<Failure, StoreError> {
        let source = |row: &dyn Row| row.text(1);
        let rows = tx.query(sql::UNITE_SOURCE, &params![unite.0], source).await?;
        let missing = || corrupt_row("unite", "source", unite);
        let encoded = rows.first().ok_or_else(missing)?;
        let source_path = Path::decode(encoded).map_err(|_| corrupt_row("state", "path", unite))?;
        let id = self.run(run)?.info.id;
        let end = source_path.end();
        let nodes = node_list(&nodes_counted_in(graph, node));
        let limit = MAX_NAMED as i64;
        let below = params![run.0, source_path.as_str(), end.as_str(), &nodes, limit];
        let failed = tx.query(sql::FAILED_MEMBERS, &below, failed).await?;
        let member = |(state, place, failure)| FailedMember {
            place,
            state: format!("{id}/{state}"),
            failure,
        };
        let members: Vec<_> = failed.into_iter().map(member).collect();
        Ok(blocked_failure(graph, &source_path, counts, &members))
    }
}

/// Returns the nodes whose states are counted in a unite.
fn nodes_counted_in(graph: &Graph, unite: NodeIx) -> Vec<NodeIx> {
    let counted = graph.nodes().filter(|(_, node)| node.counts_in.contains(&unite));
    counted.map(|(at, _)| at).collect()
}

fn counted(row: &dyn Row) -> Result<(StateId, Counts, u32), StoreError> {
    let state = StateId(row.int(0)?);
    let counts = Counts { open: row.int(1)?, failed: row.int(2)?, arrived: row.int(3)? };
    Ok((state, counts, to_u32(row.int(4)?, "branches", state)?))
}

fn waiting(row: &dyn Row) -> Result<WaitingUnite, StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    Ok(WaitingUnite {
        id,
        place: read_place(columns, id)?,
        fence: Fence(columns.next("fence")?),
        attempt: columns.next("attempt")?,
        store_snapshot: store_snapshot(columns.next("store_snapshot")?, id)?,
    })
}

/// Reads a failed state from the columns of [`sql::FAILED_MEMBERS`].
fn failed(row: &dyn Row) -> Result<(StateId, Place, Failure), StoreError> {
    let columns = &mut Cursor::new(row, "state");
    let id = StateId(columns.next("id")?);
    let place = read_place(columns, id)?;
    let kind = FailureKind::parse(&columns.next::<String>("kind")?);
    let kind = kind.ok_or_else(|| corrupt_row("state", "kind", id))?;
    let message = columns.next::<Option<String>>("message")?.unwrap_or_default();
    Ok((id, place, Failure::new(kind, message)))
}
