//! Upkeep of access: records the last uses of keys, logs the wrong ones, and deletes what is older
//! than the retention of the audit log: its rows, and keys that were revoked or have expired. None
//! of it delays a request.

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use exosphere_store::StoreError;
use tokio::time::sleep;

use crate::inner::HostInner;

/// Interval between two writes of last uses.
const USES_INTERVAL: Duration = Duration::from_secs(5);

/// Number of intervals between two looks for old rows: an hour.
const INTERVALS_PER_EXPIRY: u32 = 720;

/// Maximum number of rows that one transaction deletes.
const ROWS_PER_EXPIRY: u32 = 1_000;

/// Starts the upkeep, which ends with the host.
pub(crate) fn start(inner: &Arc<HostInner>) {
    let inner = inner.clone();
    tokio::spawn(async move {
        for count in 0u32.. {
            if inner.cluster.session.is_closing() {
                return;
            }
            record_uses(&inner).await;
            inner.wrong_keys.log_rest();
            if count.is_multiple_of(INTERVALS_PER_EXPIRY)
                && let Err(error) = expire(&inner).await
            {
                tracing::warn!(%error, "cannot delete old keys and rows of the audit log yet");
            }
            sleep(USES_INTERVAL).await;
        }
    });
}

/// Records the last uses of keys.
pub(crate) async fn record_uses(inner: &HostInner) {
    let uses = inner.caches.api_keys.take_uses();
    if uses.is_empty() {
        return;
    }
    if let Err(error) = inner.db.store.record_key_uses(uses, inner.db.clock.now()).await {
        tracing::debug!(%error, "cannot record the last uses of keys");
    }
}

async fn expire(inner: &HostInner) -> Result<(), StoreError> {
    let retention = inner.settings.audit_retention.as_millis();
    let now = inner.db.clock.now();
    let before = now.saturating_sub(Millis::try_from(retention).unwrap_or(Millis::MAX));
    inner.db.store.expire_api_keys(before, now).await?;
    loop {
        let deleted = inner.db.store.expire_audit(before, ROWS_PER_EXPIRY, now).await?;
        if deleted < u64::from(ROWS_PER_EXPIRY) {
            return Ok(());
        }
    }
}
