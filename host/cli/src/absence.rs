//! The wait of a command for a host that was reachable before, and is perhaps restarting.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The longest wait for a host that has stopped.
const MAX_ABSENCE: Duration = Duration::from_secs(60);

/// The poll interval while the host is unreachable.
const ABSENT_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Polls a host that was reachable before, and is perhaps restarting, until it answers.
pub fn while_absent<T>(
    mut poll: impl FnMut() -> Result<T, Error>,
    show_absence: impl Fn(),
) -> Result<T, Error> {
    let mut absent_since = None;
    loop {
        match poll() {
            Err(
                error @ (Error::Unreachable(_) | Error::Unanswered(_) | Error::Unavailable { .. }),
            ) => {
                if absent_since.get_or_insert_with(Instant::now).elapsed() > MAX_ABSENCE {
                    return Err(error);
                }
                show_absence();
                thread::sleep(ABSENT_POLL_INTERVAL);
            }
            answered => return answered,
        }
    }
}
