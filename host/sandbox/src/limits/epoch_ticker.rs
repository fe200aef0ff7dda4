//! The clock that interrupts guests: a thread that advances the engine's epoch every
//! [`TICK`] while a guest is running, and sleeps otherwise.
//!
//! Not here: the decision at a tick, which the callback in `guest::state` makes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// The longest time that a guest may run before it must yield to other guests.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Number of ticks without a guest after which the thread sleeps. Waking it costs a system
/// call, which a busy host should not pay for every short node.
const IDLE_TICKS_BEFORE_SLEEP: u32 = 100;

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    is_asleep: AtomicBool,
    ended: AtomicBool,
}

/// The ticker thread. It ends when this is dropped.
pub(crate) struct EpochTicker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A guard of a running guest: the clock ticks while at least one guard lives.
pub(crate) struct Running<'a>(&'a Shared);

impl EpochTicker {
    /// Starts the ticker thread. Fails if the system cannot start a thread.
    pub(crate) fn start(engine: Engine) -> io::Result<EpochTicker> {
        let shared = Arc::new(Shared::default());
        let ticker_state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("epoch".into())
            .spawn(move || tick(&engine, &ticker_state))?;
        Ok(EpochTicker { shared, thread: Some(thread) })
    }

    /// Announces that a guest is about to run, until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        // The thread says that it sleeps before it counts the guests a last time. A
        // guest is counted before this checks whether the thread sleeps. So at least
        // one of the two sees the other.
        if self.shared.is_asleep.load(SeqCst) {
            self.wake();
        }
        Running(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic; a panic would leave nothing to clean up.
            let _ = thread.join();
        }
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.ended.load(SeqCst) {
        if idle < IDLE_TICKS_BEFORE_SLEEP {
            thread::park_timeout(TICK);
        } else {
            shared.is_asleep.store(true, SeqCst);
            if shared.running.load(SeqCst) == 0 && !shared.ended.load(SeqCst) {
                thread::park();
            }
            shared.is_asleep.store(false, SeqCst);
        }
        engine.increment_epoch();
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_ticker_sleeps_only_when_idle() {
        let ticker = EpochTicker::start(Engine::default()).unwrap();
        for _ in 0..2 {
            let deadline = std::time::Instant::now() + TICK * IDLE_TICKS_BEFORE_SLEEP * 5;
            while !ticker.shared.is_asleep.load(SeqCst) {
                assert!(std::time::Instant::now() < deadline, "it never sleeps");
                thread::sleep(TICK);
            }
            let running = ticker.running();
            thread::sleep(TICK * 5);
            assert!(!ticker.shared.is_asleep.load(SeqCst), "it sleeps while a guest runs");
            drop(running);
        }
    }
}
