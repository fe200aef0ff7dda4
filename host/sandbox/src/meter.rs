//! How much CPU time a guest has used, and whether that is too much.
//!
//! A tick of the engine's epoch is far too coarse to bill by, and says nothing
//! of a guest that was not running. So every poll of the guest's future is
//! measured by the CPU clock of its thread, which stands still while the
//! thread is preempted; the tick only decides when to look.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The CPU time of one guest. Shared by the future that polls it and by the
/// store, whose epoch callback looks at it in the middle of a poll.
///
/// The two never run at the same time: the callback runs inside the poll, on
/// its thread. The numbers are atomic only because the compiler cannot know.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: AtomicU64,
    resumed_at: AtomicU64,
}

impl Meter {
    /// Runs a future to its end, counting the CPU time of each poll.
    pub(crate) async fn measure<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.resumed_at.store(thread_nanos(), Relaxed);
            let polled = work.as_mut().poll(cx);
            self.used.store(self.now(), Relaxed);
            polled
        })
        .await
    }

    /// The time used so far. To be asked from within a poll.
    pub(crate) fn running(&self) -> Duration {
        Duration::from_nanos(self.now())
    }

    /// The time used by all polls that have ended.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.used.load(Relaxed))
    }

    fn now(&self) -> u64 {
        let slice = thread_nanos().saturating_sub(self.resumed_at.load(Relaxed));
        self.used.load(Relaxed).saturating_add(slice)
    }
}

/// Nanoseconds of CPU time that this thread has used.
fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_costs_nothing() {
        let meter = Arc::new(Meter::default());
        Arc::clone(&meter).measure(tokio::time::sleep(Duration::from_millis(50))).await;
        assert!(meter.total() < Duration::from_millis(20), "{:?}", meter.total());
    }

    #[tokio::test]
    async fn working_is_counted() {
        let meter = Arc::new(Meter::default());
        let inside = Arc::clone(&meter);
        Arc::clone(&meter)
            .measure(async move {
                while inside.running() < Duration::from_millis(5) {
                    std::hint::black_box(0);
                }
            })
            .await;
        assert!(meter.total() >= Duration::from_millis(5));
    }
}
