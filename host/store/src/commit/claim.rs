//! Claims: states that are due become this session's, by guarded updates.
//! Namespaces take turns: each may have an equal part of what there is room
//! for, and what one leaves the next may have. Within a namespace its queues take turns:
//! the ordinary one, and one for the children of each execution with many outputs.

use std::collections::BTreeMap;

use exosphere_domain::ids::{Millis, NamespaceKey, StateId};

use super::Street;
use crate::error::StoreError;
use crate::rows::claimed;
use crate::sql;
use crate::text::{Cells, Tx, values};

/// A queue with something to claim, now or later.
struct Claimable {
    /// The number of the queue: the namespace, or a negative one for children of one
    /// execution.
    queue: i64,
    /// The namespace; none if the states are staged, and cannot be claimed yet.
    namespace: Option<NamespaceKey>,
    /// What comes first: when it is due, and which state it is.
    first: (Millis, StateId),
    /// When something is due after now.
    next_due: Option<Millis>,
}

impl Street<'_> {
    /// Claims what is due, and tells when the next is if that was all.
    pub(super) async fn claim(&mut self, tx: &mut impl Tx, most: u32) -> Result<(), StoreError> {
        if most == 0 {
            self.done.more = true;
            return Ok(());
        }
        let mut left = most;
        let all = tx.query(sql::CLAIMABLE, &values![self.now], claimable).await?;
        let mut waiting = self.in_turn(&all);
        while left > 0 && !waiting.is_empty() {
            let mut more = Vec::new();
            for (at, (namespace, queues)) in waiting.iter().enumerate() {
                let part = left.div_ceil((waiting.len() - at) as u32);
                let (claimed, rest) = self.claim_of(tx, *namespace, queues, part).await?;
                left -= claimed;
                if !rest.is_empty() && self.shares.room(*namespace) > 0 {
                    more.push((*namespace, rest));
                }
            }
            waiting = more;
        }
        self.done.more |= !waiting.is_empty();
        if !self.done.more {
            let claimable = all.iter().filter(|claimable| claimable.namespace.is_some());
            self.done.next_due = claimable.filter_map(|claimable| claimable.next_due).min();
        }
        Ok(())
    }

    /// The queues of which something is due, by namespace. Another namespace is the first
    /// each time, and another of its queues, so that where there is less room than there
    /// are of them each gets some.
    fn in_turn<'a>(&self, all: &'a [Claimable]) -> Vec<(NamespaceKey, Vec<&'a Claimable>)> {
        let mut due: BTreeMap<NamespaceKey, Vec<&Claimable>> = BTreeMap::new();
        for claimable in all.iter().filter(|claimable| claimable.first.0 <= self.now) {
            if let Some(namespace) = claimable.namespace {
                due.entry(namespace).or_default().push(claimable);
            }
        }
        let mut due: Vec<_> = due.into_iter().collect();
        if !due.is_empty() {
            let first = self.turn % due.len();
            due.rotate_left(first);
        }
        for (_, queues) in &mut due {
            let first = self.turn % queues.len();
            queues.rotate_left(first);
        }
        due
    }

    /// Claims up to so many states of a namespace, as its share allows: an equal part of
    /// each queue. Returns the number, and the queues of which there may be more.
    async fn claim_of<'a>(
        &mut self,
        tx: &mut impl Tx,
        namespace: NamespaceKey,
        queues: &[&'a Claimable],
        part: u32,
    ) -> Result<(u32, Vec<&'a Claimable>), StoreError> {
        let most = part.min(self.shares.room(namespace));
        let (mut claimed, mut rest) = (0, Vec::new());
        for (at, claimable) in queues.iter().enumerate() {
            let part = (most - claimed).div_ceil((queues.len() - at) as u32);
            let some = self.claim_from(tx, namespace, claimable, part).await?;
            claimed += some;
            if some == part {
                // There may be more.
                rest.push(*claimable);
            }
        }
        self.shares.take(namespace, claimed);
        if !rest.is_empty() && self.shares.room(namespace) == 0 {
            self.done.full.insert(namespace);
        }
        Ok((claimed, rest))
    }

    /// Claims up to so many states of a queue.
    async fn claim_from(
        &mut self,
        tx: &mut impl Tx,
        namespace: NamespaceKey,
        claimable: &Claimable,
        most: u32,
    ) -> Result<u32, StoreError> {
        if most == 0 {
            return Ok(0);
        }
        let Claimable { queue, first: (due_at, state), .. } = *claimable;
        let place = values![self.session.0, self.now, most, queue, due_at, state.0, namespace.0];
        let held = tx.query(sql::CLAIM, &place, claimed).await?;
        let claimed = held.len() as u32;
        self.done.leased.extend(held.into_iter().map(|held| held.leased));
        Ok(claimed)
    }
}

fn claimable(row: &dyn Cells) -> Result<Claimable, StoreError> {
    Ok(Claimable {
        queue: row.int(0)?,
        namespace: row.maybe_int(4)?.map(NamespaceKey),
        first: (row.int(1)?, StateId(row.int(2)?)),
        next_due: row.maybe_int(3)?,
    })
}
