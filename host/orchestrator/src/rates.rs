//! The rates of callers: the state of each in a bounded table, by a monotonic clock.
//!
//! Not here: the algorithm (`rate_limit` of the domain), and the limit of each caller.

use std::hash::Hash;
use std::time::Instant;

use exosphere_domain::rate_limit::{Micros, RateLimit, RateState};

use crate::cache::{Cache, MAX_CACHE_ENTRIES};

/// The states of callers. Those that are used least are forgotten first.
pub(crate) struct Rates<K> {
    states: Cache<K, RateState>,
    begun: Instant,
}

impl<K: Eq + Hash + Clone> Default for Rates<K> {
    fn default() -> Self {
        Rates { states: Cache::from_entry_count(MAX_CACHE_ENTRIES), begun: Instant::now() }
    }
}

impl<K: Eq + Hash + Clone> Rates<K> {
    /// Counts an event of a caller, or returns the time until the next one is admitted.
    pub(crate) fn admit(&self, key: &K, limit: &RateLimit, now: Micros) -> Result<(), Micros> {
        let admit = |state: &mut RateState| limit.admit(state, now);
        self.states.update(key, admit).unwrap_or_else(|| {
            let mut state = RateState::default();
            let admitted = admit(&mut state);
            self.states.insert(key.clone(), state, 0);
            admitted
        })
    }

    /// Returns whether an event of a caller would be refused. Counts none.
    pub(crate) fn exceeds(&self, key: &K, limit: &RateLimit, now: Micros) -> bool {
        let exceeds = |state: &mut RateState| limit.admit(&mut state.clone(), now).is_err();
        self.states.update(key, exceeds).unwrap_or(false)
    }

    /// Returns the time by the clock of the rates.
    pub(crate) fn now(&self) -> Micros {
        micros_between(self.begun, Instant::now())
    }
}

/// Returns the microseconds from one time to another.
pub(crate) fn micros_between(from: Instant, to: Instant) -> Micros {
    Micros::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(Micros::MAX)
}
