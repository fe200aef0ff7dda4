//! Room for the states that this host holds, and which those are.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exosphere_domain::ids::{Fence, StateId};
use exosphere_domain::state::Claimed;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The room of a host.
pub(crate) struct Room {
    places: Arc<Semaphore>,
    capacity: u32,
    held: Mutex<HashSet<(StateId, Fence)>>,
    /// A place has become free, or a state was lost sight of.
    changed: Notify,
    astray: AtomicBool,
}

/// A place for one state. Whoever drops it frees it, and who waits for room
/// learns of it.
pub(crate) struct Lease {
    room: Arc<Room>,
    state: (StateId, Fence),
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.room.held().remove(&self.state);
        drop(self.permit.take());
        self.room.changed.notify_one();
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
    pub(crate) fn take(self: &Arc<Self>, state: &Claimed) -> Option<Lease> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let state = (state.id, state.claim.fence);
        self.held().insert(state);
        Some(Lease { room: self.clone(), state, permit: Some(permit) })
    }

    /// Whether this host knows that it holds a state.
    pub(crate) fn holds(&self, state: &Claimed) -> bool {
        self.held().contains(&(state.id, state.claim.fence))
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

    fn held(&self) -> MutexGuard<'_, HashSet<(StateId, Fence)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
