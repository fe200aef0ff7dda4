//! Bulk operations: begun, counted before, listed, shown and cancelled.
//!
//! Not here: how an operation is carried out (`execution/bulk.rs`).

use std::time::Duration;

use exosphere_domain::bulk::{BulkRef, BulkRequest, frozen};
use exosphere_domain::clock::Clock;
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::{BulkId, Millis, Name};
use exosphere_store::{
    BulkBegin, BulkCancel, BulkView, MAX_RUNNING_BULKS, NewBulk, Page, RunCount,
};

use crate::Host;
use crate::error::{Error, log_internal};
use crate::service::start::check_key;
use crate::system::time_ordered_id;

/// The number up to which the runs of an operation are counted before it begins.
const MAX_COUNTED_RUNS: u32 = 10_000;

/// The pause before the freeze. Times are in milliseconds: a run that the caller knows of is older.
const FREEZE_DELAY: Duration = Duration::from_millis(2);

/// The maximum number of operations that an ambiguous prefix is answered with.
const MAX_CANDIDATES: u32 = 10;

impl Host {
    /// Counts the runs that an operation would begin with.
    pub async fn count_bulk(
        &self,
        namespace: &Name,
        request: &BulkRequest,
    ) -> Result<RunCount, Error> {
        self.check_list(namespace, request.filter.graph.as_ref()).await?;
        let filter = frozen(request.action, &request.filter, Millis::MAX);
        Ok(self.inner.db.store.count_runs(namespace, &filter, MAX_COUNTED_RUNS).await?)
    }

    /// Begins an operation on the runs that meet a filter now. With an idempotency key it begins
    /// once.
    pub async fn begin_bulk(
        &self,
        namespace: &Name,
        request: BulkRequest,
        key: Option<String>,
    ) -> Result<BulkView, Error> {
        if let Some(key) = &key {
            check_key(key)?;
            // First, because the graph of the filter may be gone since, and a count takes long.
            if let Some(existing) = self.inner.db.store.bulk_by_key(namespace, key).await? {
                return compare(&request, existing);
            }
        }
        let expected = self.count_bulk(namespace, &request).await?;
        tokio::time::sleep(FREEZE_DELAY).await;
        let (inner, now) = (&self.inner, self.inner.db.clock.now());
        let BulkRequest { action, filter, reason, .. } = request.clone();
        let (namespace, created_by) = (namespace.clone(), self.key_id());
        let id = BulkId(time_ordered_id(now));
        let new = NewBulk { id, namespace, action, filter, reason, created_by, expected, key };
        let begun = self.store().begin_bulk(&new, now).await;
        // Also after an error: the transaction may have succeeded.
        inner.pipeline.bulks.wake();
        match begun? {
            BulkBegin::Begun => {
                let begun = inner.db.store.bulk(&new.namespace, id).await?;
                begun.ok_or_else(|| Error::Internal(log_internal(&"a bulk operation is gone")))
            }
            BulkBegin::Existing(existing) => compare(&request, *existing),
            BulkBegin::TooMany => Err(Error::Conflict(format!(
                "{MAX_RUNNING_BULKS} bulk operations of the namespace {} are not over; wait for one \
                 of them, or stop one: `exosphere bulk list` shows them",
                new.namespace
            ))),
        }
    }

    /// Finds the operation that a caller means.
    pub async fn find_bulk(
        &self,
        namespace: &Name,
        reference: &BulkRef,
    ) -> Result<BulkView, Error> {
        let store = &self.inner.db.store;
        let ids = match reference {
            BulkRef::Id(id) => vec![*id],
            BulkRef::Latest => store.bulk_ids(namespace, "", 1).await?,
            BulkRef::Prefix(digits) => store.bulk_ids(namespace, digits, MAX_CANDIDATES).await?,
        };
        match ids.as_slice() {
            [id] => match store.bulk(namespace, *id).await? {
                Some(bulk) => Ok(bulk),
                None => Err(self.bulk_not_found(namespace, reference).await?),
            },
            [] => Err(self.bulk_not_found(namespace, reference).await?),
            several => {
                let names: Vec<String> = several.iter().map(BulkId::to_string).collect();
                Err(Error::Conflict(format!(
                    "several bulk operations begin with {reference}; give more digits of one: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Lists the operations of a namespace, the newest first.
    pub async fn bulks(
        &self,
        namespace: &Name,
        after: Option<BulkId>,
        limit: u32,
    ) -> Result<Page<BulkView>, Error> {
        let page = self.inner.db.store.bulks(namespace, after, limit).await?;
        if page.items.is_empty() && after.is_none() {
            self.check_namespace(namespace).await?;
        }
        Ok(page)
    }

    /// Cancels an operation: it changes no further run. What it has done stays, and an operation
    /// that is over stays as it is.
    pub async fn cancel_bulk(
        &self,
        namespace: &Name,
        reference: &BulkRef,
    ) -> Result<BulkView, Error> {
        let id = self.find_bulk(namespace, reference).await?.id;
        let (store, now) = (self.store(), self.inner.db.clock.now());
        match store.cancel_bulk(namespace, id, now).await? {
            BulkCancel::Cancelled | BulkCancel::Over(_) => {
                self.find_bulk(namespace, &BulkRef::Id(id)).await
            }
            BulkCancel::Missing => Err(self.bulk_not_found(namespace, &BulkRef::Id(id)).await?),
        }
    }

    /// Returns the refusal of an operation that does not exist.
    async fn bulk_not_found(&self, namespace: &Name, reference: &BulkRef) -> Result<Error, Error> {
        self.check_namespace(namespace).await?;
        Ok(Error::NotFound {
            kind: "bulk operation",
            name: reference.to_string(),
            hint: "; list them with `exosphere bulk list`".to_owned(),
        })
    }
}

/// Returns the operation that an idempotency key has begun, if the request asks for the same.
fn compare(new: &BulkRequest, existing: BulkView) -> Result<BulkView, Error> {
    let parts = [
        ("action", new.action == existing.action),
        ("filter", new.filter == existing.filter),
        ("reason", new.reason == existing.reason),
    ];
    let different = |(part, _): &(&str, bool)| Problem {
        path: format!("$.{part}"),
        message: format!("the first request had another {part}"),
    };
    let problems: Vec<_> = parts.iter().filter(|(_, is_same)| !is_same).map(different).collect();
    if problems.is_empty() {
        return Ok(existing);
    }
    Err(Error::KeyReused { object: format!("the bulk operation {}", existing.id), problems })
}
