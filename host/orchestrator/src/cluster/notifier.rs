//! Sends notifications to the other hosts of a shared database: there is work that this
//! host does not take, or runs have changed. At most one notification per batch; while
//! one is being sent, the next one is collected.

use std::sync::Arc;

use exosphere_store::{Committed, Notification};
use tokio::sync::Notify;

use crate::inner::HostInner;
use parking_lot::Mutex;

/// Maximum number of runs in one notification, which must stay below 8,000 bytes.
const MAX_RUNS_PER_NOTIFICATION: usize = 100;

/// The notifier, with the notification to send next.
#[derive(Default)]
pub(crate) struct Notifier {
    /// Set if the database is shared; otherwise no other host listens.
    shared: bool,
    pending: Mutex<Notification>,
    queued: Notify,
}

impl Notifier {
    pub(crate) fn new(shared: bool) -> Self {
        Notifier { shared, ..Notifier::default() }
    }

    /// Collects the effects of a commit that matter to other hosts.
    pub(crate) fn enqueue(&self, done: &Committed) {
        if !self.shared {
            return;
        }
        let mut pending = self.pending.lock();
        let before = (pending.work, pending.runs.len());
        // Another host may claim states beyond this host's quota of a namespace or run.
        // It is notified when they become claimable, not at each claim that finds them
        // so. Otherwise two hosts with used-up quotas would wake each other without end.
        let saturated = !done.saturated.is_empty() || !done.saturated_runs.is_empty();
        pending.work |= done.more_due || (done.added && saturated);
        let status_changed = done.run_updates.iter().filter(|update| update.status_changed);
        status_changed.for_each(|update| pending.add(*update));
        if before != (pending.work, pending.runs.len()) {
            self.queued.notify_one();
        }
    }

    /// Tells the other hosts that keys were revoked.
    pub(crate) fn keys_changed(&self) {
        if self.shared {
            self.pending.lock().keys = true;
            self.queued.notify_one();
        }
    }

    /// Sends notifications for as long as the host lives. If one cannot be sent, the next
    /// heartbeats of the other hosts find the work.
    pub(crate) async fn run(inner: Arc<HostInner>) {
        let notifier = &inner.cluster.notifier;
        loop {
            notifier.queued.notified().await;
            while let Some(notification) = notifier.next(inner.cluster.session.current().0) {
                if let Err(error) = inner.db.store.notify(&notification).await {
                    tracing::debug!(%error, "cannot notify the other hosts");
                }
            }
        }
    }

    fn next(&self, from: i64) -> Option<Notification> {
        let mut pending = self.pending.lock();
        if !pending.work && !pending.keys && pending.runs.is_empty() {
            return None;
        }
        let next = pending.take(MAX_RUNS_PER_NOTIFICATION);
        Some(Notification { from, ..next })
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::{NamespaceKey, RunKey};

    use super::*;

    #[test]
    fn unclaimed_work_is_announced_to_other_hosts() {
        let left = |more_due, added, saturated: &[i64], saturated_runs: &[i64]| {
            let saturated = saturated.iter().copied().map(NamespaceKey).collect();
            let saturated_runs =
                saturated_runs.iter().map(|run| (NamespaceKey(1), RunKey(*run))).collect();
            let notifier = Notifier::new(true);
            notifier.enqueue(&Committed {
                more_due,
                added,
                saturated,
                saturated_runs,
                ..Committed::default()
            });
            notifier.next(1).is_some_and(|notification| notification.work)
        };
        assert!(!left(false, true, &[], &[]), "nothing is left");
        assert!(left(true, false, &[], &[]), "there is no room");
        assert!(left(false, true, &[1], &[]), "a namespace has its share");
        assert!(left(false, true, &[], &[1]), "a run has its share");
        assert!(!left(false, false, &[1], &[1]), "told before");
    }
}
