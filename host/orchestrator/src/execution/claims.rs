//! Tracks the states that this host has claimed, and caps how many it may hold.
//!
//! Not here: the share of a namespace or a run; that is `prefetch`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exosphere_domain::ids::{Fence, NamespaceKey, RunKey, StateId};
use exosphere_domain::state::Claimed;
use exosphere_store::ClaimedState;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use parking_lot::{Mutex, MutexGuard};

/// The claim table of a host.
pub(crate) struct ClaimTable {
    permits: Arc<Semaphore>,
    capacity: u32,
    held: Mutex<ClaimedStates>,
    /// Notified when a claim permit was released, or when this host lost track of a claim.
    changed: Notify,
    needs_reconcile: AtomicBool,
}

/// The claimed states, and their counts.
#[derive(Default)]
struct ClaimedStates {
    states: HashSet<(StateId, Fence)>,
    counts: ClaimCounts,
}

/// The number of claimed states, by namespace.
#[derive(Debug, Default, Clone)]
pub(crate) struct ClaimCounts {
    pub namespaces: HashMap<NamespaceKey, NamespaceClaims>,
}

/// The number of claimed states of a namespace, in all and by run.
#[derive(Debug, Default, Clone)]
pub(crate) struct NamespaceClaims {
    pub total: u32,
    pub runs: HashMap<RunKey, u32>,
}

/// A claim permit for one state. On drop it is released, and the committer is notified.
pub(crate) struct ClaimPermit {
    table: Arc<ClaimTable>,
    state: (StateId, Fence),
    namespace: NamespaceKey,
    run: RunKey,
    slot: Option<OwnedSemaphorePermit>,
}

impl Drop for ClaimPermit {
    fn drop(&mut self) {
        let mut held = self.table.held();
        held.states.remove(&self.state);
        held.counts.remove(self);
        drop(held);
        drop(self.slot.take());
        self.table.changed.notify_one();
    }
}

impl ClaimCounts {
    /// Returns the number of claimed states.
    pub(crate) fn total(&self) -> u32 {
        self.namespaces.values().map(|held| held.total).sum()
    }

    fn add(&mut self, permit: &ClaimPermit) {
        let of_namespace = self.namespaces.entry(permit.namespace).or_default();
        of_namespace.total += 1;
        *of_namespace.runs.entry(permit.run).or_default() += 1;
    }

    /// Subtracts the state of a claim permit.
    pub(crate) fn remove(&mut self, permit: &ClaimPermit) {
        let Some(of_namespace) = self.namespaces.get_mut(&permit.namespace) else { return };
        of_namespace.total = of_namespace.total.saturating_sub(1);
        if let Some(held) = of_namespace.runs.get_mut(&permit.run) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                of_namespace.runs.remove(&permit.run);
            }
        }
        if of_namespace.total == 0 {
            self.namespaces.remove(&permit.namespace);
        }
    }
}

impl ClaimTable {
    pub(crate) fn new(capacity: u32) -> Self {
        ClaimTable {
            permits: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            held: Mutex::default(),
            changed: Notify::new(),
            needs_reconcile: AtomicBool::new(false),
        }
    }

    /// Acquires a claim permit for a state; nothing if none is free.
    pub(crate) fn acquire(self: &Arc<Self>, claimed: &ClaimedState) -> Option<ClaimPermit> {
        let slot = Some(self.permits.clone().try_acquire_owned().ok()?);
        let ClaimedState { state, namespace, .. } = claimed;
        let (id, namespace, run) = ((state.id, state.claim.fence), *namespace, state.run);
        let permit = ClaimPermit { table: self.clone(), state: id, namespace, run, slot };
        let mut held = self.held();
        held.states.insert(id);
        held.counts.add(&permit);
        drop(held);
        Some(permit)
    }

    /// Returns the number of claimed states by namespace and run.
    pub(crate) fn counts(&self) -> ClaimCounts {
        self.held().counts.clone()
    }

    /// Returns `true` if this host knows that it has claimed a state.
    pub(crate) fn holds(&self, state: &Claimed) -> bool {
        self.held().states.contains(&(state.id, state.claim.fence))
    }

    pub(crate) fn free(&self) -> u32 {
        self.permits.available_permits() as u32
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.capacity - self.free()
    }

    /// Waits until a claim permit was released, or until this host lost track of a claim.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Requests a reconcile: the database may hold claims of this host that the table does not
    /// have.
    pub(crate) fn request_reconcile(&self) {
        self.needs_reconcile.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Returns `true` if a reconcile was requested, and clears the request.
    pub(crate) fn take_reconcile_request(&self) -> bool {
        self.needs_reconcile.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn needs_reconcile(&self) -> bool {
        self.needs_reconcile.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, ClaimedStates> {
        self.held.lock()
    }
}
