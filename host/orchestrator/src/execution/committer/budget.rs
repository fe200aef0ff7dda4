//! Budgets of the namespaces for results in the commit queue, in bytes. An execution
//! whose result does not fit keeps its slot and waits here, so that slots and budgets
//! bound the memory. Namespaces do not wait for each other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use exosphere_domain::ids::NamespaceKey;
use tokio::sync::oneshot;

use parking_lot::{Mutex, MutexGuard};

/// The budgets of all namespaces.
pub(crate) struct Budgets {
    /// The budget of each namespace, in bytes.
    limit: u64,
    namespaces: Mutex<HashMap<NamespaceKey, Spent>>,
}

/// The bytes of a namespace in the queue, and the executions that wait for its budget, in
/// order.
#[derive(Default)]
struct Spent {
    bytes: u64,
    waiting: VecDeque<PendingCharge>,
}

struct PendingCharge {
    bytes: u64,
    granted: oneshot::Sender<Charge>,
}

/// A charge of bytes to the budget of a namespace, released on drop.
pub(crate) struct Charge {
    budgets: Arc<Budgets>,
    namespace: NamespaceKey,
    bytes: u64,
}

impl Budgets {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Budgets { limit, namespaces: Mutex::default() })
    }

    /// Charges bytes to a namespace, after all earlier requests. A result larger than the
    /// budget waits until its namespace has no other in the queue.
    pub(crate) async fn charge(self: &Arc<Self>, namespace: NamespaceKey, bytes: u64) -> Charge {
        let granted = {
            let mut namespaces = self.lock();
            let spent = namespaces.entry(namespace).or_default();
            if spent.waiting.is_empty() && spent.fits(bytes, self.limit) {
                spent.bytes += bytes;
                return self.charged(namespace, bytes);
            }
            let (granted, wait) = oneshot::channel();
            spent.waiting.push_back(PendingCharge { bytes, granted });
            wait
        };
        match granted.await {
            Ok(charge) => charge,
            // The budgets are gone only with the host.
            Err(_) => self.charged(namespace, 0),
        }
    }

    fn charged(self: &Arc<Self>, namespace: NamespaceKey, bytes: u64) -> Charge {
        Charge { budgets: self.clone(), namespace, bytes }
    }

    /// Releases bytes, and grants the waiting charges that fit now.
    fn release(self: &Arc<Self>, namespace: NamespaceKey, bytes: u64) {
        let mut namespaces = self.lock();
        let Some(spent) = namespaces.get_mut(&namespace) else { return };
        spent.bytes = spent.bytes.saturating_sub(bytes);
        while let Some(first) = spent.waiting.front()
            && spent.fits(first.bytes, self.limit)
            && let Some(PendingCharge { bytes, granted }) = spent.waiting.pop_front()
        {
            match granted.send(self.charged(namespace, bytes)) {
                Ok(()) => spent.bytes += bytes,
                // The waiting execution is gone. With 0 bytes the charge is not released
                // on drop, which would take the lock again.
                Err(mut charge) => charge.bytes = 0,
            }
        }
        if spent.bytes == 0 && spent.waiting.is_empty() {
            namespaces.remove(&namespace);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespaceKey, Spent>> {
        self.namespaces.lock()
    }
}

impl Spent {
    fn fits(&self, bytes: u64, limit: u64) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(bytes) <= limit
    }
}

impl Charge {
    /// Lowers the charge to `bytes`, if it is higher.
    pub(crate) fn lower(&mut self, bytes: u64) {
        let released = self.bytes.saturating_sub(bytes);
        self.bytes -= released;
        if released > 0 {
            self.budgets.release(self.namespace, released);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budgets.release(self.namespace, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;

    use super::*;

    const LIMIT: u64 = 100;

    #[tokio::test]
    async fn results_wait_for_their_own_namespace() {
        let budgets = Budgets::new(LIMIT);
        let [a, b] = [1, 2].map(NamespaceKey);
        let first = budgets.charge(a, 60).await;
        let mut second = std::pin::pin!(budgets.charge(a, 60));
        assert!(poll!(&mut second).is_pending());
        // Another namespace does not wait, and a later request does not overtake.
        let other = budgets.charge(b, 60).await;
        let mut third = std::pin::pin!(budgets.charge(a, 1));
        assert!(poll!(&mut third).is_pending());
        drop(first);
        assert!(poll!(&mut second).is_ready());
        assert!(poll!(&mut third).is_ready());
        drop(other);
    }

    #[tokio::test]
    async fn an_oversized_result_waits_to_be_alone() {
        let budgets = Budgets::new(LIMIT);
        let namespace = NamespaceKey(1);
        let small_charge = budgets.charge(namespace, 1).await;
        let mut large = std::pin::pin!(budgets.charge(namespace, 5_000));
        assert!(poll!(&mut large).is_pending());
        drop(small_charge);
        let Poll::Ready(large) = poll!(&mut large) else { panic!("it is alone") };
        assert!(poll!(std::pin::pin!(budgets.charge(namespace, 1))).is_pending());
        drop(large);
    }

    #[tokio::test]
    async fn an_abandoned_wait_costs_nothing() {
        let budgets = Budgets::new(LIMIT);
        let namespace = NamespaceKey(1);
        let first = budgets.charge(namespace, 100).await;
        {
            let mut dropped_charge = std::pin::pin!(budgets.charge(namespace, 100));
            assert!(poll!(&mut dropped_charge).is_pending());
        }
        let mut next = std::pin::pin!(budgets.charge(namespace, 100));
        assert!(poll!(&mut next).is_pending());
        drop(first);
        assert!(poll!(&mut next).is_ready());
        assert!(budgets.lock().is_empty(), "all was given back");
    }

    #[tokio::test]
    async fn a_lowered_charge_makes_room() {
        let budgets = Budgets::new(LIMIT);
        let namespace = NamespaceKey(1);
        let mut first = budgets.charge(namespace, 100).await;
        let mut second = std::pin::pin!(budgets.charge(namespace, 90));
        assert!(poll!(&mut second).is_pending());
        first.lower(10);
        assert!(poll!(&mut second).is_ready());
    }
}
