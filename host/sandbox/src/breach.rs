//! A limit that was reached where no host function can end the guest: in a
//! task beside it, or in a stream that it reads. Whoever runs the guest waits
//! for this too, and ends it.

use std::sync::OnceLock;

use exosphere_domain::limits::Limit;
use tokio::sync::Notify;

/// Whether, and which. The first stays.
#[derive(Debug, Default)]
pub(crate) struct Breach {
    limit: OnceLock<Limit>,
    noticed: Notify,
}

impl Breach {
    /// Says that a limit was reached.
    pub(crate) fn report(&self, limit: Limit) {
        if self.limit.set(limit).is_ok() {
            self.noticed.notify_one();
        }
    }

    /// The limit that was reached, if one was.
    pub(crate) fn limit(&self) -> Option<Limit> {
        self.limit.get().copied()
    }

    /// Waits until a limit is reached. For one to wait, not several.
    pub(crate) async fn reached(&self) -> Limit {
        loop {
            if let Some(limit) = self.limit() {
                return limit;
            }
            self.noticed.notified().await;
        }
    }
}
