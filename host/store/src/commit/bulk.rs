//! The change of one run by a bulk operation: the operation of a single request, once, and recorded
//! in the same transaction.
//!
//! Not here: the pages of an operation (`crate::bulk`).

use std::sync::Arc;

use exosphere_domain::bulk::BulkOutcome;
use exosphere_domain::ids::{BulkId, Millis};

use super::CommitTx;
use super::batch::{Control, Reply};
use crate::bulk::page_awaits;
use crate::dialect::{Tx, params};
use crate::error::StoreError;
use crate::sql;
use crate::types::RunInfo;

/// The part of a bulk operation that changes one run.
#[derive(Debug)]
pub struct BulkStep {
    /// The id of the operation.
    pub bulk: BulkId,
    /// The number of the page to which the run belongs.
    pub page: i64,
    /// The time before which the run must have ended, if the action needs an end.
    pub ended_before: Option<Millis>,
    /// The change.
    pub change: Control,
}

impl CommitTx<'_> {
    /// Changes a run for a bulk operation, unless it has done so or the page is over.
    pub(super) async fn bulk_step(
        &mut self,
        tx: &mut impl Tx,
        run: &Arc<RunInfo>,
        step: &BulkStep,
    ) -> Result<Reply, StoreError> {
        let id = step.bulk.to_string();
        // The run is locked, so that no other transaction records it meanwhile.
        if !page_awaits(tx, &id, step.page, run.key).await? {
            return Ok(Reply::Stale);
        }
        let reply = match self.refuses_end(run, step.ended_before)? {
            Some(refused) => refused,
            None => Box::pin(self.control(tx, run, &step.change)).await?,
        };
        let outcome = match &reply {
            Reply::Refused(_) => BulkOutcome::Skipped,
            _ => BulkOutcome::Done,
        };
        tx.execute(sql::NEW_BULK_RUN, &params![&id, run.key.0, outcome.as_str()]).await?;
        Ok(reply)
    }

    /// Returns the refusal of a run that has not ended before a time. A run that failed again after
    /// its redrive is refused, too.
    fn refuses_end(
        &mut self,
        run: &Arc<RunInfo>,
        ended_before: Option<Millis>,
    ) -> Result<Option<Reply>, StoreError> {
        let Some(time) = ended_before else { return Ok(None) };
        let row = &self.run(run.key)?.row;
        let has_ended = !row.is_live() && row.ended_at.is_some_and(|ended_at| ended_at < time);
        let refusal = || Reply::Refused("the run had not ended when the operation began".into());
        Ok((!has_ended).then(refusal))
    }
}
