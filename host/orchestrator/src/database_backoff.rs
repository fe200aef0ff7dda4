//! The pauses of the host's own work while the database is unavailable.
//!
//! Not here: which work is tried again (commits: `execution::committer::transaction`), and the
//! pauses of reads and of the listener, which are the store's.

use std::time::Duration;

use exosphere_domain::outage_backoff::Backoff;

/// The first pause.
pub(crate) const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Creates the backoff of one retry loop.
pub(crate) fn database_backoff() -> Backoff {
    Backoff::new(MIN_PAUSE, MAX_PAUSE)
}

/// Sleeps for the next pause of a backoff.
pub(crate) async fn pause(backoff: &mut Backoff) {
    tokio::time::sleep(backoff.advance()).await;
}
