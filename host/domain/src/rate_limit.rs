//! A rate limiter: the generic cell rate algorithm (ITU-T I.371). It allows a burst, and after it
//! an even rate. Its state is one number per caller.
//!
//! Not here: the table of callers, and the clock. API keys (`access` of the orchestrator) and starts
//! of a namespace (its `service::quotas`) have rates.

/// A time in microseconds since a moment that the caller chooses.
pub type Micros = u64;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The time between two events at the rate.
    interval: Micros,
    /// The time by which an event may come early.
    tolerance: Micros,
}

/// The state of one caller: the time at which its next event is due at the rate (the theoretical
/// arrival time). A new caller has 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateState(Micros);

impl RateLimit {
    /// Creates a limit of `count` events per `seconds`, of which `burst` may come at once. Zeros
    /// count as ones.
    pub fn new(count: u64, seconds: u64, burst: u64) -> Self {
        let period = seconds.max(1).saturating_mul(MICROS_PER_SECOND);
        // Rounded up, so that the rate is never exceeded.
        let interval = period.div_ceil(count.max(1)).max(1);
        RateLimit { interval, tolerance: interval.saturating_mul(burst.max(1) - 1) }
    }

    /// Admits an event at the time `now`, or returns how long to wait for the next one. A refused
    /// event is not counted.
    ///
    /// # Errors
    ///
    /// The time until an event is admitted, if none comes in between.
    pub fn admit(&self, state: &mut RateState, now: Micros) -> Result<(), Micros> {
        let due = state.0.max(now);
        let earliest = due.saturating_sub(self.tolerance);
        if earliest > now {
            return Err(earliest - now);
        }
        state.0 = due.saturating_add(self.interval);
        Ok(())
    }

    /// Returns whether the state is that of a new caller, so that it can be forgotten.
    pub fn is_settled(&self, state: RateState, now: Micros) -> bool {
        state.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let limit = RateLimit::new(10, 1, 3);
        let mut state = RateState::default();
        for _ in 0..3 {
            assert_eq!(limit.admit(&mut state, 5), Ok(()));
        }
        assert_eq!(limit.admit(&mut state, 5), Err(100_000));
        assert_eq!(limit.admit(&mut state, 100_004), Err(1));
        assert_eq!(limit.admit(&mut state, 100_005), Ok(()));
        assert_eq!(limit.admit(&mut state, 100_005), Err(100_000));
        assert!(!limit.is_settled(state, 400_004) && limit.is_settled(state, 400_005));
    }

    proptest! {
        /// In every window, no more events are admitted than the burst and the rate allow.
        #[test]
        fn no_window_exceeds_burst_and_rate(
            count in 1u64..1_000, seconds in 1u64..100, burst in 1u64..50,
            gaps in prop::collection::vec(0u64..2_000_000, 1..300),
        ) {
            let limit = RateLimit::new(count, seconds, burst);
            let (mut state, mut now, mut admitted) = (RateState::default(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if limit.admit(&mut state, now).is_ok() {
                    admitted.push(now);
                }
            }
            for (first, begin) in admitted.iter().enumerate() {
                for (last, end) in admitted.iter().enumerate().skip(first) {
                    let at_rate = (end - begin) / limit.interval;
                    prop_assert!(((last - first) as u64) < burst + at_rate);
                }
            }
        }

        /// After the wait that a refusal names, an event is admitted, and not before.
        #[test]
        fn a_refusal_names_the_exact_wait(
            count in 1u64..1_000, burst in 1u64..50, tries in 1usize..200, early in 1u64..1_000,
        ) {
            let limit = RateLimit::new(count, 1, burst);
            let mut state = RateState::default();
            let refused = (0..tries).find_map(|_| limit.admit(&mut state, 7).err());
            if let Some(wait) = refused {
                let before = wait.saturating_sub(early);
                prop_assert!(limit.admit(&mut state.clone(), 7 + before).is_err());
                prop_assert_eq!(limit.admit(&mut state, 7 + wait), Ok(()));
            }
        }

        /// A caller at the rate is never refused.
        #[test]
        fn a_caller_at_the_rate_is_admitted(count in 1u64..1_000, begin in 0u64..10_000_000) {
            let limit = RateLimit::new(count, 1, 1);
            let interval = MICROS_PER_SECOND.div_ceil(count);
            let mut state = RateState::default();
            for at in 0..200 {
                prop_assert_eq!(limit.admit(&mut state, begin + at * interval), Ok(()));
            }
        }
    }
}
