//! A mutex without poison. A panic is caught where it ends (an attempt, a job, a commit),
//! and no lock of this crate is held over code that can panic halfway through a change.

use std::sync::PoisonError;

pub(crate) use std::sync::MutexGuard;

/// A mutex whose lock always succeeds.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Locks the mutex, even if a thread panicked with the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
