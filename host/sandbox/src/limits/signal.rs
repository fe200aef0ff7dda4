//! A limit that was reached where no host function can end the guest: in a task beside
//! it, or in a stream that it reads. The task that runs the guest waits for the breach
//! too, and ends the guest.

use std::sync::OnceLock;

use exosphere_domain::limits::Limit;
use tokio::sync::Notify;

/// The signal of a breach, with its limit. The first report stays.
#[derive(Debug, Default)]
pub(crate) struct LimitSignal {
    limit: OnceLock<Limit>,
    noticed: Notify,
}

impl LimitSignal {
    /// Reports that a limit was reached.
    pub(crate) fn report(&self, limit: Limit) {
        if self.limit.set(limit).is_ok() {
            self.noticed.notify_one();
        }
    }

    /// Returns the limit that was reached, if there is one.
    pub(crate) fn limit(&self) -> Option<Limit> {
        self.limit.get().copied()
    }

    /// Waits until a limit is reached. At most one task may wait.
    pub(crate) async fn reached(&self) -> Limit {
        loop {
            if let Some(limit) = self.limit() {
                return limit;
            }
            self.noticed.notified().await;
        }
    }
}
