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
        let due = self.namespaces_with_work(tx).await?;
        let (mut left, mut waiting) = (most, due.len() as u32);
        for namespace in due {
            left -= self.claim_of(tx, namespace, left.div_ceil(waiting)).await?;
            waiting -= 1;
        }
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
            let turn = usize::try_from(self.now).unwrap_or_default() % due.len();
            due.rotate_left(turn);
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
        if claimed == most {
            // There may be more.
            match self.shares.room(namespace) {
                0 => _ = self.done.full.insert(namespace),
                _ => self.done.more = true,
            }
        }
        self.done.leased.extend(held.into_iter().map(|held| held.leased));
        Ok(claimed)
    }
}
