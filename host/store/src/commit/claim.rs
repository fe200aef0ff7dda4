//! Claims: states that are due become this session's, by guarded updates.
//! Namespaces take turns: each may have an equal part of what there is room
//! for, and what one leaves the next may have.

use exosphere_domain::ids::NamespaceKey;

use super::Street;
use crate::error::StoreError;
use crate::rows::{claimed, number};
use crate::sql;
use crate::text::{Cells, Tx, values};

impl Street<'_> {
    /// Claims what is due, and looks when the next is if that was all.
    pub(super) async fn claim(&mut self, tx: &mut impl Tx, most: u32) -> Result<(), StoreError> {
        if most == 0 {
            self.done.more = true;
            return Ok(());
        }
        let mut left = most;
        let mut waiting = self.namespaces_with_work(tx).await?;
        while left > 0 && !waiting.is_empty() {
            let mut more = Vec::new();
            for (at, namespace) in waiting.iter().enumerate() {
                let part = left.div_ceil((waiting.len() - at) as u32);
                let claimed = self.claim_of(tx, *namespace, part).await?;
                left -= claimed;
                if claimed == part && self.shares.room(*namespace) > 0 {
                    more.push(*namespace);
                }
            }
            waiting = more;
        }
        self.done.more |= !waiting.is_empty();
        if !self.done.more {
            let next = |row: &dyn Cells| row.maybe_int(0);
            let next = tx.query(sql::NEXT_DUE, &values![self.now], next).await?;
            self.done.next_due = next.into_iter().flatten().next();
        }
        Ok(())
    }

    /// The namespaces of which something is due. Another one is the first each
    /// time, so that where there is less room than there are namespaces each
    /// gets some.
    async fn namespaces_with_work(
        &self,
        tx: &mut impl Tx,
    ) -> Result<Vec<NamespaceKey>, StoreError> {
        let mut due = tx.query(sql::NAMESPACES_DUE, &values![self.now], number).await?;
        if !due.is_empty() {
            let first = self.turn % due.len();
            due.rotate_left(first);
        }
        Ok(due.into_iter().map(NamespaceKey).collect())
    }

    /// Claims up to so many states of a namespace, as its share allows.
    async fn claim_of(
        &mut self,
        tx: &mut impl Tx,
        namespace: NamespaceKey,
        part: u32,
    ) -> Result<u32, StoreError> {
        let most = part.min(self.shares.room(namespace));
        let place = values![self.session.0, self.now, most, namespace.0];
        let held = match most {
            0 => Vec::new(),
            _ => tx.query(sql::CLAIM, &place, claimed).await?,
        };
        let claimed = held.len() as u32;
        self.shares.take(namespace, claimed);
        if claimed == most && self.shares.room(namespace) == 0 {
            // There may be more.
            self.done.full.insert(namespace);
        }
        self.done.leased.extend(held.into_iter().map(|held| held.leased));
        Ok(claimed)
    }
}
