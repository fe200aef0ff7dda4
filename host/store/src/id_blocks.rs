//! Ids of new states and runs, taken from the database in blocks. So hosts that share a
//! database never use a number twice, and a state costs no query. Unused numbers are lost, which
//! does no harm.

use std::cell::Cell;
use std::ops::Range;

use exosphere_domain::ids::{IdSource, Millis, RunKey, StateId};
use tokio::sync::Mutex;

use crate::codec::read_int;
use crate::dialect::{Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, in_transaction, sql};

/// Number of state numbers in an id block: minutes of work. A fanout larger than this takes a
/// block of its own.
const STATES_PER_BLOCK: i64 = 65_536;

/// Number of run numbers in an id block.
const RUNS_PER_BLOCK: i64 = 1_024;

/// The unused rest of the current id blocks.
#[derive(Default)]
pub(crate) struct IdBlocks {
    states: Mutex<Range<i64>>,
    runs: Mutex<Range<i64>>,
}

/// A range of numbers, exactly as long as one plan needs.
#[derive(Debug)]
pub struct IdBlock(Cell<i64>);

impl IdSource for IdBlock {
    fn next(&self) -> StateId {
        StateId(self.0.replace(self.0.get() + 1))
    }
}

impl Store {
    /// Takes `count` numbers for new states.
    ///
    /// # Errors
    ///
    /// If a new block is needed and the database is unavailable.
    pub async fn state_ids(&self, count: u64, now: Millis) -> Result<IdBlock, StoreError> {
        let first =
            self.take_ids("state", &self.id_blocks.states, count, STATES_PER_BLOCK, now).await?;
        Ok(IdBlock(Cell::new(first)))
    }

    /// Takes a number for a new run.
    ///
    /// # Errors
    ///
    /// As for [`Store::state_ids`].
    pub async fn run_key(&self, now: Millis) -> Result<RunKey, StoreError> {
        Ok(RunKey(self.take_ids("run", &self.id_blocks.runs, 1, RUNS_PER_BLOCK, now).await?))
    }

    /// Returns the first of `count` consecutive numbers.
    async fn take_ids(
        &self,
        name: &'static str,
        left: &Mutex<Range<i64>>,
        count: u64,
        block: i64,
        now: Millis,
    ) -> Result<i64, StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let mut left = left.lock().await;
        if left.end - left.start < count {
            let block = count.max(block);
            let end = in_transaction!(self, now, |tx| reserve(tx, name, block))?;
            *left = end - block..end;
        }
        let first = left.start;
        left.start += count;
        Ok(first)
    }
}

/// Reserves numbers in the database; returns the first of them.
pub(crate) async fn reserve(
    tx: &mut impl Tx,
    name: &'static str,
    count: i64,
) -> Result<i64, StoreError> {
    let next = tx.query(sql::TAKE_NUMBERS, &params![name, count], read_int).await?;
    next.first().copied().ok_or_else(|| corrupt_row("number", "name", name))
}
