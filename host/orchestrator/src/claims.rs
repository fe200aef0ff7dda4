//! Tracks the states that this host has claimed, and caps how many it may hold.
//!
//! Not here: how many of a namespace or a run it may hold; that is `prefetch`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::{Fence, NamespaceKey, RunKey, StateId};
use exosphere_domain::state::Claimed;
use exosphere_store::Leased;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The room of a host.
pub(crate) struct ClaimTable {
    places: Arc<Semaphore>,
    capacity: u32,
    held: Mutex<Held>,
    /// A place has become free, or a state was lost sight of.
    changed: Notify,
    astray: AtomicBool,
}

/// What is held.
#[derive(Default)]
struct Held {
    states: HashSet<(StateId, Fence)>,
    numbers: HeldStates,
}

/// How many states are held, by namespace.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeldStates {
    pub namespaces: HashMap<NamespaceKey, HeldOf>,
}

/// How many states of a namespace are held, in all and by run.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeldOf {
    pub total: u32,
    pub runs: HashMap<RunKey, u32>,
}

/// A place for one state. Whoever drops it frees it, and who waits for room
/// learns of it.
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
    /// States in all.
    pub(crate) fn total(&self) -> u32 {
        self.namespaces.values().map(|held| held.total).sum()
    }

    fn add(&mut self, lease: &ClaimPermit) {
        let of_namespace = self.namespaces.entry(lease.namespace).or_default();
        of_namespace.total += 1;
        *of_namespace.runs.entry(lease.run).or_default() += 1;
    }

    /// Counts the state of a lease no more.
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

    /// A place for a state; nothing if there is none.
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

    /// How many states of each namespace and run are held.
    pub(crate) fn numbers(&self) -> HeldStates {
        self.held().numbers.clone()
    }

    /// Whether this host knows that it holds a state.
    pub(crate) fn holds(&self, state: &Claimed) -> bool {
        self.held().states.contains(&(state.id, state.claim.fence))
    }

    pub(crate) fn free(&self) -> u32 {
        self.places.available_permits() as u32
    }

    pub(crate) fn taken(&self) -> u32 {
        self.capacity - self.free()
    }

    /// Until a place has become free, or a state was lost sight of.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The database may hold states for this host that it does not know of.
    pub(crate) fn set_astray(&self) {
        self.astray.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether that may be so; asked once.
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
