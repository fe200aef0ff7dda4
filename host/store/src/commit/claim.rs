//! Claims: states that are due become this session's, by guarded updates.
//! Namespaces take turns: each may have an equal part of what there is room
//! for, and what one leaves the next may have.

use exosphere_domain::ids::{Millis, NamespaceKey, StateId};

use super::Street;
use crate::error::StoreError;
use crate::rows::claimed;
use crate::sql;
use crate::text::{Cells, Tx, values};

/// A namespace with something to claim, now or later.
struct Claimable {
    namespace: NamespaceKey,
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
            for (at, claimable) in waiting.iter().enumerate() {
                let part = left.div_ceil((waiting.len() - at) as u32);
                let claimed = self.claim_of(tx, claimable, part).await?;
                left -= claimed;
                if claimed == part && self.shares.room(claimable.namespace) > 0 {
                    more.push(*claimable);
                }
            }
            waiting = more;
        }
        self.done.more |= !waiting.is_empty();
        if !self.done.more {
            self.done.next_due = all.iter().filter_map(|claimable| claimable.next_due).min();
        }
        Ok(())
    }

    /// Those of which something is due. Another one is the first each time, so
    /// that where there is less room than there are namespaces each gets some.
    fn in_turn<'a>(&self, all: &'a [Claimable]) -> Vec<&'a Claimable> {
        let mut due: Vec<_> =
            all.iter().filter(|claimable| claimable.first.0 <= self.now).collect();
        if !due.is_empty() {
            let first = self.turn % due.len();
            due.rotate_left(first);
        }
        due
    }

    /// Claims up to so many states of a namespace, as its share allows.
    async fn claim_of(
        &mut self,
        tx: &mut impl Tx,
        claimable: &Claimable,
        part: u32,
    ) -> Result<u32, StoreError> {
        let Claimable { namespace, first: (due_at, state), .. } = *claimable;
        let most = part.min(self.shares.room(namespace));
        let place = values![self.session.0, self.now, most, namespace.0, due_at, state.0];
        let held = match most {
            0 => Vec::new(),
            _ => tx.query(sql::CLAIM, &place, claimed).await?,
        };
        let claimed = held.len() as u32;
        for held in &held {
            self.shares.take(namespace, held.leased.state.run, 1);
        }
        if claimed == most && self.shares.room(namespace) == 0 {
            // There may be more.
            self.done.full.insert(namespace);
        }
        self.done.leased.extend(held.into_iter().map(|held| held.leased));
        Ok(claimed)
    }
}

fn claimable(row: &dyn Cells) -> Result<Claimable, StoreError> {
    Ok(Claimable {
        namespace: NamespaceKey(row.int(0)?),
        first: (row.int(1)?, StateId(row.int(2)?)),
        next_due: row.maybe_int(3)?,
    })
}
