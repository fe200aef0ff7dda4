//! Closes unites whose count of open members has reached zero, repeating until none is left,
//! because closing one may close its parent.

use std::collections::{BTreeMap, HashMap};

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Fence, NodeIx, RunKey, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::state::{Claim, Claimed, Counts, Place, Status, Tries};
use exosphere_domain::unite::{Closing, FailedMember, MAX_NAMED, blocked_failure, close};

use super::write::details;
use super::{CommitTx, Drained};
use crate::batch::Leased;
use crate::error::StoreError;
use crate::inputs::list;
use crate::rows::{corrupt, fixed, place, small};
use crate::sql;
use crate::text::{Cells, Rows, Tx, values};

/// The row of a waiting unite.
struct Waiting {
    id: StateId,
    place: Place,
    fence: Fence,
    attempt: u32,
    fixed: BTreeMap<String, String>,
}

/// The results of closing the unites of one wave.
#[derive(Default)]
struct Closed {
    /// Unites that may run, each with its session if claimed at once, and whether it is parked.
    opened: Vec<(StateId, Option<i64>, bool)>,
    ended: Vec<(StateId, Option<Failure>)>,
}

impl CommitTx<'_> {
    pub(super) async fn close_unites(&mut self, tx: &mut impl Tx) -> Result<(), StoreError> {
        loop {
            let drained = self.count_unites(tx).await?;
            if drained.is_empty() {
                return Ok(());
            }
            let ids = Rows::default().ints(drained.iter().map(|unite| unite.state.0));
            let waiting = tx.query_each(sql::WAITING, &ids, waiting).await?;
            let mut waiting: HashMap<_, _> = waiting.into_iter().map(|row| (row.id, row)).collect();
            let mut closed = Closed::default();
            for unite in drained {
                // A unite that is not waiting has gone on already, or failed.
                if let Some(row) = waiting.remove(&unite.state) {
                    self.close(tx, unite, row, &mut closed).await?;
                }
            }
            self.write(tx, closed).await?;
        }
    }

    /// Writes the count changes; returns the unites whose open count is zero.
    async fn count_unites(&mut self, tx: &mut impl Tx) -> Result<Vec<Drained>, StoreError> {
        let mut drained = std::mem::take(&mut self.drained);
        let counts = std::mem::take(&mut self.counts);
        if counts.is_empty() {
            return Ok(drained);
        }
        let rows = Rows::default()
            .ints(counts.keys().map(|unite| unite.0))
            .ints(counts.values().map(|(_, delta)| delta.open))
            .ints(counts.values().map(|(_, delta)| delta.failed))
            .ints(counts.values().map(|(_, delta)| delta.arrived));
        let counted = tx.query_each(sql::COUNT, &rows, counted).await?;
        if counted.len() != counts.len() {
            let found: Vec<_> = counted.iter().map(|(state, ..)| *state).collect();
            let missing = counts.keys().find(|unite| !found.contains(unite));
            return Err(corrupt("unite", "state", missing.map_or(0, |unite| unite.0)));
        }
        for (state, now, branches) in counted.into_iter().filter(|(_, now, _)| now.open == 0) {
            drained.push(Drained { run: counts[&state].0, state, counts: now, branches });
        }
        // Sorted, so that both databases give one order.
        drained.sort_by_key(|unite| unite.state);
        Ok(drained)
    }

    async fn close(
        &mut self,
        tx: &mut impl Tx,
        unite: Drained,
        row: Waiting,
        closed: &mut Closed,
    ) -> Result<(), StoreError> {
        let Drained { run, state, counts, branches } = unite;
        let graph = self.graph(run)?;
        let (closing, deltas) = close(&graph, &row.place, counts, branches)?;
        match closing {
            Closing::Run => closed.opened.push(self.open_unite(run, row)?),
            Closing::Prune => {
                closed.ended.push((state, None));
                self.change(run)?.tally.pruned += 1;
            }
            Closing::Block => {
                let failure =
                    self.why_blocked(tx, run, (state, row.place.node), counts, &graph).await?;
                closed.ended.push((state, Some(failure)));
                self.change(run)?.tally.errored += 1;
            }
        }
        self.count(run, &deltas)
    }

    /// Opens a unite for execution: claimed at once if the birth quota allows.
    fn open_unite(
        &mut self,
        run: RunKey,
        row: Waiting,
    ) -> Result<(StateId, Option<i64>, bool), StoreError> {
        let paused = self.change(run)?.tally.paused;
        let Some(namespace) = self.birth(run)? else {
            return Ok((row.id, None, paused));
        };
        let claim = Claim { session: self.session, fence: Fence(row.fence.0 + 1) };
        let tries = Tries { attempt: row.attempt + 1, ..Tries::default() };
        let state = Claimed { id: row.id, run, place: row.place, tries, claim };
        self.done.leased.push(Leased { state, namespace, fixed: row.fixed, known: Vec::new() });
        Ok((row.id, Some(self.session.0), false))
    }

    async fn write(&self, tx: &mut impl Tx, closed: Closed) -> Result<(), StoreError> {
        let Closed { opened, ended } = closed;
        if !opened.is_empty() {
            let status = |holder: Option<i64>| match holder {
                Some(_) => Status::Queued.as_str(),
                None => Status::Created.as_str(),
            };
            let rows = Rows::default()
                .ints(opened.iter().map(|(id, ..)| id.0))
                .texts(opened.iter().map(|(_, holder, _)| status(*holder)))
                .all(self.now)
                .maybe_ints(opened.iter().map(|(_, holder, _)| *holder))
                .ints(opened.iter().map(|(_, holder, _)| i64::from(holder.is_some())))
                .ints(opened.iter().map(|(.., parked)| i64::from(*parked)));
            tx.put_off(sql::OPEN_UNITE, &rows, None).await?;
        }
        if !ended.is_empty() {
            let failures = || ended.iter().map(|(_, failure)| failure.as_ref());
            let details: Vec<_> = failures()
                .map(|failure| failure.map_or(Ok(None), details))
                .collect::<Result<_, _>>()?;
            let status = |failure: Option<&Failure>| match failure {
                Some(_) => Status::Errored.as_str(),
                None => Status::Pruned.as_str(),
            };
            let rows = Rows::default()
                .ints(ended.iter().map(|(id, _)| id.0))
                .texts(failures().map(status))
                .all(self.now)
                .maybe_texts(failures().map(|failure| failure.map(|f| f.kind.as_str())))
                .maybe_texts(failures().map(|failure| failure.map(|f| f.message.as_str())))
                .maybe_texts(details.iter().map(Option::as_deref));
            tx.put_off(sql::END_UNITE, &rows, None).await?;
        }
        Ok(())
    }

    /// Returns the failure of a unite whose strategy was not met; it names the branches.
    async fn why_blocked(
        &mut self,
        tx: &mut impl Tx,
        run: RunKey,
        (unite, node): (StateId, NodeIx),
        counts: Counts,
        graph: &Graph,
    ) -> Result<Failure, StoreError> {
        let source = |row: &dyn Cells| row.text(1);
        let above = tx.query(sql::UNITE_SOURCE, &values![unite.0], source).await?;
        let missing = || corrupt("unite", "source", unite);
        let above = above.first().ok_or_else(missing)?;
        let above = Path::decode(above).map_err(|_| corrupt("state", "path", unite))?;
        let id = self.run(run)?.info.id;
        let end = above.end();
        let nodes = list(&nodes_counted_in(graph, node));
        let most = MAX_NAMED as i64;
        let below = values![run.0, above.as_str(), end.as_str(), &nodes, most];
        let failed = tx.query(sql::FAILED_MEMBERS, &below, failed).await?;
        let member = |(state, place, failure)| FailedMember {
            place,
            state: format!("{id}/{state}"),
            failure,
        };
        let members: Vec<_> = failed.into_iter().map(member).collect();
        Ok(blocked_failure(graph, &above, counts, &members))
    }
}

/// Returns the nodes whose states are counted in a unite.
fn nodes_counted_in(graph: &Graph, unite: NodeIx) -> Vec<NodeIx> {
    let counted = graph.nodes().filter(|(_, node)| node.counts_in.contains(&unite));
    counted.map(|(at, _)| at).collect()
}

fn counted(row: &dyn Cells) -> Result<(StateId, Counts, u32), StoreError> {
    let state = StateId(row.int(0)?);
    let counts = Counts { open: row.int(1)?, failed: row.int(2)?, arrived: row.int(3)? };
    Ok((state, counts, small(row.int(4)?, "branches", state)?))
}

fn waiting(row: &dyn Cells) -> Result<Waiting, StoreError> {
    let id = StateId(row.int(0)?);
    Ok(Waiting {
        id,
        place: place(row, id, 1)?,
        fence: Fence(row.int(5)?),
        attempt: small(row.int(6)?, "attempt", id)?,
        fixed: fixed(row.maybe_text(7)?, id)?,
    })
}

/// Reads a failed state from the columns of [`sql::FAILED_MEMBERS`].
fn failed(row: &dyn Cells) -> Result<(StateId, Place, Failure), StoreError> {
    let id = StateId(row.int(0)?);
    let kind = FailureKind::parse(&row.text(5)?).ok_or_else(|| corrupt("state", "kind", id))?;
    let failure = Failure::new(kind, row.maybe_text(6)?.unwrap_or_default());
    Ok((id, place(row, id, 1)?, failure))
}
