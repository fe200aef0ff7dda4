//! Slow-down of immediate repeats: a minimum delay for a state that repeats
//! many times without waiting.
//!
//! Each repeat costs a claim, an execution and a part of a commit. At first, a
//! retry policy without delay, a requeue after 1 ms and a store conflict are
//! honoured as requested. A state that continues like this would fill the
//! host's commits with its own.
//!
//! Not here: the requested delay; see [`crate::retry`].

use crate::ids::Millis;
use crate::state::AttemptCounts;

/// Number of repeats whose delay is as requested.
pub const FREE_REPEATS: u32 = 10;

/// The first minimum delay, in milliseconds.
pub const FIRST_FLOOR_MS: Millis = 10;

/// The highest minimum delay, in milliseconds: one repeat a second.
pub const HIGHEST_FLOOR_MS: Millis = 1_000;

/// Number of repeats after which the minimum delay doubles. With 8 of them it stays near a
/// tenth of the time that the state has spent repeating.
pub const REPEATS_PER_STEP: u32 = 8;

/// Returns the minimum delay, in milliseconds, before a state with these `attempts` runs again.
/// It counts retries, requeues and store conflicts. It does not count lost hosts and releases,
/// which the node does not cause.
pub fn floor(attempts: &AttemptCounts) -> Millis {
    let repeats =
        attempts.retries.saturating_add(attempts.requeues).saturating_add(attempts.conflicts);
    let Some(slowed) = repeats.checked_sub(FREE_REPEATS + 1) else { return 0 };
    let doublings = slowed / REPEATS_PER_STEP;
    let floor = 1_i64.checked_shl(doublings).and_then(|times| FIRST_FLOOR_MS.checked_mul(times));
    floor.filter(|floor| *floor > 0).unwrap_or(HIGHEST_FLOOR_MS).min(HIGHEST_FLOOR_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(repeats: u32) -> Millis {
        floor(&AttemptCounts { requeues: repeats, ..AttemptCounts::default() })
    }

    #[test]
    fn the_first_repeats_have_no_floor() {
        assert!((0..=FREE_REPEATS).all(|repeats| after(repeats) == 0));
    }

    #[test]
    fn the_floor_doubles_up_to_a_second() {
        let steps = [11, 18, 19, 26, 27, 59, 66, 67, 1_000, u32::MAX].map(after);
        assert_eq!(steps, [10, 10, 20, 20, 40, 640, 640, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn losses_are_not_repeats() {
        assert_eq!(
            floor(&AttemptCounts { attempt: 900, host_losses: 9, ..AttemptCounts::default() }),
            0
        );
    }

    #[test]
    fn an_hour_of_immediate_repeats_stays_few() {
        let (mut now, mut repeats) = (0, 0);
        while now < 3_600_000 {
            repeats += 1;
            now += after(repeats).max(1);
        }
        assert!(repeats < 3_700, "{repeats}");
    }

    proptest! {
        #[test]
        fn the_floor_never_falls(
            retries in any::<u32>(), requeues in any::<u32>(), conflicts in 0..3u32,
        ) {
            let attempts = AttemptCounts { retries, requeues, conflicts, ..AttemptCounts::default() };
            let retried = AttemptCounts { retries: retries.saturating_add(1), ..attempts };
            prop_assert!(floor(&attempts) <= floor(&retried));
            prop_assert!((0..=HIGHEST_FLOOR_MS).contains(&floor(&retried)));
        }
    }
}
