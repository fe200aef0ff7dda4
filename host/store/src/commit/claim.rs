//! Claims: states that are due become this session's, by one guarded update.

use super::Street;
use crate::error::StoreError;
use crate::rows::claimed;
use crate::sql;
use crate::text::{Cells, Tx, values};

impl Street<'_> {
    /// Claims what is due, and looks when the next is if that was all.
    pub(super) async fn claim(&mut self, tx: &mut impl Tx, most: u32) -> Result<(), StoreError> {
        let due = values![self.session.0, self.now, most];
        let held = match most {
            0 => Vec::new(),
            _ => tx.query(sql::CLAIM, &due, claimed).await?,
        };
        self.done.more = held.len() as u32 == most;
        self.done.leased.extend(held.into_iter().map(|held| held.leased));
        if !self.done.more {
            let next = |row: &dyn Cells| row.maybe_int(0);
            let next = tx.query(sql::NEXT_DUE, &values![self.now], next).await?;
            self.done.next_due = next.into_iter().flatten().next();
        }
        Ok(())
    }
}
