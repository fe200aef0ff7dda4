//! Room for the states that this host holds, and which those are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::{Fence, NamespaceKey, StateId};
use exosphere_domain::state::Claimed;
use exosphere_store::Leased;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The room of a host.
pub(crate) struct Room {
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
    by_namespace: HashMap<NamespaceKey, u32>,
}

/// A place for one state. Whoever drops it frees it, and who waits for room
/// learns of it.
pub(crate) struct Lease {
    room: Arc<Room>,
    state: (StateId, Fence),
    namespace: NamespaceKey,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.room.held().remove(self.state, self.namespace);
        drop(self.permit.take());
        self.room.changed.notify_one();
    }
}

impl Lease {
    /// The namespace of the state.
    pub(crate) fn namespace(&self) -> NamespaceKey {
        self.namespace
    }
}

impl Held {
    fn add(&mut self, state: (StateId, Fence), namespace: NamespaceKey) {
        self.states.insert(state);
        *self.by_namespace.entry(namespace).or_default() += 1;
    }

    fn remove(&mut self, state: (StateId, Fence), namespace: NamespaceKey) {
        self.states.remove(&state);
        if let Some(held) = self.by_namespace.get_mut(&namespace) {
            *held -= 1;
            if *held == 0 {
                self.by_namespace.remove(&namespace);
            }
        }
    }
}

impl Room {
    pub(crate) fn new(capacity: u32) -> Self {
        Room {
            places: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            held: Mutex::default(),
            changed: Notify::new(),
            astray: AtomicBool::new(false),
        }
    }

    /// A place for a state; nothing if there is none.
    pub(crate) fn take(self: &Arc<Self>, leased: &Leased) -> Option<Lease> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let Leased { state, namespace, .. } = leased;
        let (state, namespace) = ((state.id, state.claim.fence), *namespace);
        self.held().add(state, namespace);
        Some(Lease { room: self.clone(), state, namespace, permit: Some(permit) })
    }

    /// How many places each namespace has taken.
    pub(crate) fn by_namespace(&self) -> HashMap<NamespaceKey, u32> {
        self.held().by_namespace.clone()
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
