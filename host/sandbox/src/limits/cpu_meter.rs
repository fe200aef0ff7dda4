//! Measures the CPU time of a guest and compares it with its limit, and queues the guests that
//! use much of it. The guest's epoch callback (`guest::state`) asks.
//!
//! A tick of the engine's epoch is far too coarse to bill by, and says nothing of a
//! guest that was not running. So every poll of the guest's future is measured by the
//! CPU clock of its thread, which stands still while the thread is preempted. The tick
//! only decides when to check.
//!
//! Most nodes are done before the first tick. A longer one continues in turns: one turn
//! for each processor, granted round-robin to namespaces and within a namespace to its
//! runs. So neither short nodes nor those of other namespaces wait for it.
//!
//! Not here: the end of a guest over its limit (`on_epoch` in `guest::state`).

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{self, Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::fair_semaphore::{FairPermit, FairSemaphore};

/// The CPU time of one guest. It is shared by the future that polls the guest and by
/// the store, whose epoch callback reads it in the middle of a poll.
///
/// The two never run at the same time: the callback runs inside the poll, on its
/// thread. The numbers are atomic only because the compiler cannot know.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    used: AtomicU64,
    resumed_at: AtomicU64,
    /// Set if a tick made the guest yield.
    yielded: AtomicBool,
}

/// The key and group of a guest, with the semaphore whose permits are turns of guests
/// that run for long.
pub(crate) struct CpuQueue {
    pub(crate) turns: FairSemaphore<String, String>,
    pub(crate) namespace: String,
    pub(crate) run: String,
}

/// The wait of a guest for its turn.
type Wait = BoxFuture<'static, Option<FairPermit<String, String>>>;

impl CpuQueue {
    /// Waits for a turn.
    pub(crate) fn wait(&self) -> Wait {
        let (turns, namespace) = (self.turns.clone(), self.namespace.clone());
        let run = self.run.clone();
        async move { turns.acquire_for(namespace, run, u32::MAX).await }.boxed()
    }
}

impl CpuMeter {
    /// Runs a future to its end, counting the CPU time of each poll. The first poll is in
    /// the turn `first`, if there is one.
    pub(crate) async fn measure<F: Future>(
        self: Arc<Self>,
        queue: CpuQueue,
        first: Option<FairPermit<String, String>>,
        work: F,
    ) -> F::Output {
        let mut work = pin!(work);
        let mut turn: Option<Wait> = first.map(|first| ready(Some(first)).boxed());
        poll_fn(|cx| {
            let polled = match &mut turn {
                None => self.poll(work.as_mut(), cx),
                Some(wait) => {
                    let _turn = task::ready!(wait.as_mut().poll(cx));
                    turn = None;
                    run_blocking(|| self.poll(work.as_mut(), cx))
                }
            };
            if self.yielded.swap(false, Relaxed) && polled.is_pending() {
                // The guest has asked to be polled again, and will wait for its turn
                // then.
                turn = Some(queue.wait());
            }
            polled
        })
        .await
    }

    fn poll<F: Future>(&self, work: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.resumed_at.store(thread_nanos(), Relaxed);
        let polled = work.poll(cx);
        self.used.store(self.now(), Relaxed);
        polled
    }

    /// Records that the guest yields at a tick.
    pub(crate) fn record_yield(&self) {
        self.yielded.store(true, Relaxed);
    }

    /// Returns the CPU time used so far, the current poll included. Call it from within
    /// a poll.
    pub(crate) fn running(&self) -> Duration {
        Duration::from_nanos(self.now())
    }

    /// Returns whether the guest has used more CPU time than `limit`. Call it from within a
    /// poll.
    pub(crate) fn has_exceeded(&self, limit: Duration) -> bool {
        self.running() > limit
    }

    /// Returns the CPU time of all polls that have ended.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.used.load(Relaxed))
    }

    fn now(&self) -> u64 {
        let slice = thread_nanos().saturating_sub(self.resumed_at.load(Relaxed));
        self.used.load(Relaxed).saturating_add(slice)
    }
}

/// Runs work that takes a whole tick, while another thread continues the other tasks of this
/// thread.
fn run_blocking<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Returns the CPU time of this thread, in nanoseconds.
fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> CpuQueue {
        let (namespace, run) = (String::new(), String::new());
        CpuQueue { turns: FairSemaphore::new(1), namespace, run }
    }

    #[tokio::test]
    async fn waiting_costs_nothing() {
        let meter = Arc::new(CpuMeter::default());
        let sleep = tokio::time::sleep(Duration::from_millis(50));
        Arc::clone(&meter).measure(queue(), None, sleep).await;
        assert!(meter.total() < Duration::from_millis(20), "{:?}", meter.total());
    }

    #[tokio::test]
    async fn working_is_counted() {
        let meter = Arc::new(CpuMeter::default());
        let shared_meter = Arc::clone(&meter);
        Arc::clone(&meter)
            .measure(queue(), None, async move {
                while shared_meter.running() < Duration::from_millis(5) {
                    std::hint::black_box(0);
                }
            })
            .await;
        assert!(meter.total() >= Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_yielding_guest_waits_for_its_turn() {
        let (meter, queue) = (Arc::new(CpuMeter::default()), queue());
        let turns = queue.turns.clone();
        let other = turns.acquire_for("other".into(), String::new(), 1).await;
        let shared_meter = Arc::clone(&meter);
        let mut guest = Box::pin(Arc::clone(&meter).measure(queue, None, async move {
            shared_meter.record_yield();
            tokio::task::yield_now().await;
        }));
        let delay = Duration::from_millis(20);
        assert!(tokio::time::timeout(delay, &mut guest).await.is_err(), "another has the turn");
        drop(other);
        guest.await;
        assert_eq!(turns.free(), 1);
    }

    #[tokio::test]
    async fn a_first_turn_lasts_one_slice() {
        let queue = queue();
        let turns = queue.turns.clone();
        let first = queue.wait().await;
        let mut guest =
            Box::pin(Arc::new(CpuMeter::default()).measure(queue, first, tokio::task::yield_now()));
        assert_eq!(turns.free(), 0);
        assert!((&mut guest).now_or_never().is_none());
        assert_eq!(turns.free(), 1);
        guest.await;
    }
}
