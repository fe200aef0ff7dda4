//! Tracks the states that this host has claimed, and caps how many it may hold.
//!
//! Not here: the quota of a namespace or a run; that is `prefetch`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::{Fence, NamespaceKey, RunKey, StateId};
use exosphere_domain::state::Claimed;
use exosphere_store::Leased;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The claim table of a host.
pub(crate) struct ClaimTable {
    places: Arc<Semaphore>,
    capacity: u32,
    held: Mutex<Held>,
    /// Notified when a claim permit was released, or a claim was lost track of.
    changed: Notify,
    astray: AtomicBool,
}

/// The claimed states, and their numbers.
#[derive(Default)]
struct Held {
    states: HashSet<(StateId, Fence)>,
    numbers: HeldStates,
}

/// The number of claimed states, by namespace.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeldStates {
    pub namespaces: HashMap<NamespaceKey, HeldOf>,
}

/// The number of claimed states of a namespace, in all and by run.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeldOf {
    pub total: u32,
    pub runs: HashMap<RunKey, u32>,
}

/// A claim permit for one state. On drop it is released, and the committer is notified.
pub(crate) struct ClaimPermit {
    room: Arc<ClaimTable>,
    state: (StateId, Fence),
    namespace: NamespaceKey,
    run: RunKey,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for ClaimPermit {
    fn drop(&mut self) {
        let mut held = self.room.held();
        held.states.remove(&self.state);
        held.numbers.remove(self);
        drop(held);
        drop(self.permit.take());
        self.room.changed.notify_one();
    }
}

impl HeldStates {
    /// Returns the number of claimed states.
    pub(crate) fn total(&self) -> u32 {
        self.namespaces.values().map(|held| held.total).sum()
    }

    fn add(&mut self, lease: &ClaimPermit) {
        let of_namespace = self.namespaces.entry(lease.namespace).or_default();
        of_namespace.total += 1;
        *of_namespace.runs.entry(lease.run).or_default() += 1;
    }

    /// Subtracts the state of a claim permit.
    pub(crate) fn remove(&mut self, lease: &ClaimPermit) {
        let Some(of_namespace) = self.namespaces.get_mut(&lease.namespace) else { return };
        of_namespace.total = of_namespace.total.saturating_sub(1);
        if let Some(held) = of_namespace.runs.get_mut(&lease.run) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                of_namespace.runs.remove(&lease.run);
            }
        }
        if of_namespace.total == 0 {
            self.namespaces.remove(&lease.namespace);
        }
    }
}

impl ClaimTable {
    pub(crate) fn new(capacity: u32) -> Self {
        ClaimTable {
            places: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            held: Mutex::default(),
            changed: Notify::new(),
            astray: AtomicBool::new(false),
        }
    }

    /// Acquires a claim permit for a state; nothing if none is free.
    pub(crate) fn take(self: &Arc<Self>, leased: &Leased) -> Option<ClaimPermit> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let Leased { state, namespace, .. } = leased;
        let (id, namespace, run) = ((state.id, state.claim.fence), *namespace, state.run);
        let lease =
            ClaimPermit { room: self.clone(), state: id, namespace, run, permit: Some(permit) };
        let mut held = self.held();
        held.states.insert(id);
        held.numbers.add(&lease);
        drop(held);
        Some(lease)
    }

    /// Returns the number of claimed states by namespace and run.
    pub(crate) fn numbers(&self) -> HeldStates {
        self.held().numbers.clone()
    }

    /// Returns `true` if this host knows that it has claimed a state.
    pub(crate) fn holds(&self, state: &Claimed) -> bool {
        self.held().states.contains(&(state.id, state.claim.fence))
    }

    pub(crate) fn free(&self) -> u32 {
        self.places.available_permits() as u32
    }

    pub(crate) fn taken(&self) -> u32 {
        self.capacity - self.free()
    }

    /// Waits until a claim permit was released, or a claim was lost track of.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes that the database may hold claims of this host that it does not know of.
    pub(crate) fn set_astray(&self) {
        self.astray.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Returns `true` if the database may hold unknown claims, and resets that.
    pub(crate) fn take_astray(&self) -> bool {
        self.astray.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn is_astray(&self) -> bool {
        self.astray.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
