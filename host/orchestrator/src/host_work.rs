//! Host work for callers and guests, such as checks of schemas. It runs on threads of its
//! own, in turns of namespaces, is measured, and ends when its result is no longer
//! wanted.
//!
//! Not here: the work itself, and the attempt that is billed. Work that is known to take
//! microseconds need not come here.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use exosphere_domain::budget::{Budget, Exhausted, STEP_NANOS};
use exosphere_domain::ids::Name;
use exosphere_sandbox::{FairPermit, FairSemaphore};
use tokio::sync::oneshot;

use parking_lot::Mutex;

/// Steps of work that is done inline: a quarter of a millisecond.
pub(crate) const INLINE_STEPS: u64 = 25_000;

/// Steps of all checks of one request: half a second.
pub(crate) const REQUEST_STEPS: u64 = 50_000_000;

/// Steps to compile the schemas of one description at its upload: two seconds.
pub(crate) const DESCRIPTION_STEPS: u64 = 200_000_000;

/// CPU time after which a job that can continue later passes its turn on.
const SLICE_CPU_TIME: Duration = Duration::from_millis(20);

/// Steps between two reads of the clock, which take longer than a short check.
const STEPS_PER_CLOCK_READ: u64 = 10_000;

/// Niceness of these threads above that of the process. Threads for requests, heartbeats
/// and commits have priority where there are more threads than processors.
const NICENESS: i32 = 5;

/// The highest niceness of the system.
const MAX_NICENESS: i32 = 19;

/// Number of threads beyond one for each processor: they load descriptions, for which there are
/// separate turns.
const LOADING_THREADS: u32 = 1;

type Job = Box<dyn FnOnce() + Send>;

/// A fair thread pool for host work.
pub(crate) struct HostWork {
    turns: FairSemaphore<Name>,
    /// Turns of one namespace: one processor is left to other namespaces.
    max_turns: u32,
    loads: FairSemaphore<Name>,
    jobs: Sender<Job>,
}

/// The bounds of one job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Steps that the job may take.
    pub steps: u64,
    /// CPU time that the job may use.
    pub cpu: Duration,
}

impl Bounds {
    /// Creates bounds of a number of steps.
    pub(crate) fn steps(steps: u64) -> Self {
        Bounds { steps, cpu: Duration::MAX }
    }

    /// Creates bounds of a CPU time.
    pub(crate) fn cpu(cpu: Duration) -> Self {
        Bounds { steps: u64::MAX, cpu }
    }
}

/// The result of a job.
pub(crate) struct JobResult<T> {
    pub value: T,
    /// CPU time that the job used.
    pub cpu: Duration,
    /// The turn that the job ran in.
    pub turn: Option<FairPermit<Name>>,
}

/// The error of a job that panicked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a job of the host's own work ended early")]
pub(crate) struct JobLost;

impl HostWork {
    /// Starts the threads of the pool.
    pub(crate) fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..processors.saturating_add(LOADING_THREADS) {
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new().name("host-work".to_owned());
            thread.spawn(move || run_jobs(&receiver))?;
        }
        Ok(HostWork {
            turns: FairSemaphore::new(processors),
            max_turns: processors.saturating_sub(1).max(1),
            loads: FairSemaphore::new(LOADING_THREADS),
            jobs,
        })
    }

    /// Waits for a turn of a namespace. There are as many turns as processors, and one
    /// namespace may have all but one of them. A task with a turn must not wait for
    /// another.
    pub(crate) async fn turn(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.turns.acquire(namespace.clone(), self.max_turns).await
    }

    /// Waits for a loading turn of a namespace, to load a description. A task with an ordinary
    /// turn may wait for a loading turn, but not the reverse.
    pub(crate) async fn loading(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.loads.acquire(namespace.clone(), LOADING_THREADS).await
    }

    /// Runs work in a turn on another thread. If this future is dropped, the work finds
    /// its budget exhausted, and the turn ends with it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        turn: Option<FairPermit<Name>>,
        bounds: Bounds,
        work: impl FnOnce(&Meter) -> T + Send + 'static,
    ) -> Result<JobResult<T>, JobLost> {
        let (done, waiting) = oneshot::channel();
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let is_wanted = wanted.0.clone();
        let job = move || {
            if !is_wanted.load(Ordering::Relaxed) {
                return;
            }
            let meter = Meter::new(bounds, is_wanted);
            let value = work(&meter);
            // The caller may have gone.
            drop(done.send(JobResult { value, cpu: meter.used(), turn }));
        };
        self.jobs.send(Box::new(job)).map_err(|_| JobLost)?;
        let ended = waiting.await;
        drop(wanted);
        ended.map_err(|_| JobLost)
    }
}

/// A guard that tells a job on drop that its result is no longer wanted.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Runs one job after the other, until the pool is dropped.
fn run_jobs(jobs: &Mutex<Receiver<Job>>) {
    let lower_priority = |priority: i32| {
        rustix::process::setpriority_process(
            None,
            priority.saturating_add(NICENESS).min(MAX_NICENESS),
        )
    };
    if let Err(error) = rustix::process::getpriority_process(None).and_then(lower_priority) {
        tracing::warn!(%error, "the host's own work has no lower priority than the rest");
    }
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        // The caller learns that its job was lost.
        if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the host's own work panicked");
        }
    }
}

/// The budget of a job: its steps and its CPU time, as long as its result is wanted.
pub(crate) struct Meter {
    bounds: Bounds,
    is_wanted: Arc<AtomicBool>,
    started: Duration,
    steps: Cell<u64>,
    steps_since_read: Cell<u64>,
    /// CPU time at the last read of the clock.
    last_cpu: Cell<Duration>,
    is_exhausted: Cell<bool>,
}

impl Meter {
    fn new(bounds: Bounds, is_wanted: Arc<AtomicBool>) -> Self {
        Meter {
            bounds,
            is_wanted,
            started: thread_time(),
            steps: Cell::new(0),
            steps_since_read: Cell::new(STEPS_PER_CLOCK_READ),
            last_cpu: Cell::new(Duration::ZERO),
            is_exhausted: Cell::new(false),
        }
    }

    /// Returns the CPU time used so far.
    pub(crate) fn used(&self) -> Duration {
        thread_time().saturating_sub(self.started)
    }

    /// Returns `true` if the job should pass its turn on.
    pub(crate) fn is_slice_over(&self) -> bool {
        let unmeasured =
            Duration::from_nanos(self.steps_since_read.get().saturating_mul(STEP_NANOS));
        self.last_cpu.get().saturating_add(unmeasured) >= SLICE_CPU_TIME
    }

    /// Reads the clock. Returns `true` if the job may continue.
    fn read_clock(&self) -> bool {
        self.last_cpu.set(self.used());
        self.steps_since_read.set(0);
        self.is_wanted.load(Ordering::Relaxed) && self.last_cpu.get() < self.bounds.cpu
    }
}

impl Budget for Meter {
    fn take(&self, steps: u64) -> Result<(), Exhausted> {
        self.steps.set(self.steps.get().saturating_add(steps));
        let has_budget = !self.is_exhausted.get()
            && self.steps.get() <= self.bounds.steps
            && (self.steps_since_read.get().saturating_add(steps) < STEPS_PER_CLOCK_READ
                || self.read_clock());
        self.steps_since_read.set(self.steps_since_read.get().saturating_add(steps));
        if has_budget {
            return Ok(());
        }
        self.is_exhausted.set(true);
        Err(Exhausted)
    }
}

/// Returns the CPU time that this thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use futures::FutureExt;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Works until its budget is exhausted; returns the number of takes that succeeded.
    fn spin(meter: &Meter) -> u64 {
        let end = Instant::now() + Duration::from_secs(60);
        (0..).take_while(|_| meter.take(1_000).is_ok() && Instant::now() < end).count() as u64
    }

    #[tokio::test]
    async fn a_job_ends_with_its_steps() {
        let work = HostWork::start().unwrap();
        let done = work.run(None, Bounds::steps(5_500), spin).await.unwrap();
        assert_eq!(done.value, 5);
    }

    #[tokio::test]
    async fn a_job_ends_with_its_cpu_time() {
        let work = HostWork::start().unwrap();
        let done = work.run(None, Bounds::cpu(Duration::from_millis(30)), spin).await.unwrap();
        assert!(done.cpu >= Duration::from_millis(30), "{:?}", done.cpu);
        assert!(done.cpu < Duration::from_millis(500), "{:?}", done.cpu);
    }

    #[tokio::test]
    async fn a_job_ends_with_its_caller() {
        let work = HostWork::start().unwrap();
        let turn = work.turn(&name("a")).await;
        let free = work.turns.free();
        let (ended, waiting) = oneshot::channel();
        let job = work.run(turn, Bounds::cpu(Duration::MAX), move |meter| {
            let steps = spin(meter);
            let _ = ended.send(steps);
        });
        let abandoned = tokio::time::timeout(Duration::from_millis(50), job).await;
        assert!(abandoned.is_err());
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        while work.turns.free() == free {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_namespace_leaves_a_turn_to_others() {
        let work = HostWork::start().unwrap();
        let mut held = Vec::new();
        while let Some(turn) = work.turn(&name("a")).now_or_never() {
            held.push(turn);
        }
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(held.len(), processors.saturating_sub(1).max(1));
        let other = work.turn(&name("b")).now_or_never();
        assert!(processors == 1 || other.flatten().is_some());
    }

    #[tokio::test]
    async fn jobs_have_a_lower_priority() {
        let work = HostWork::start().unwrap();
        let niceness = |_: &Meter| rustix::process::getpriority_process(None).unwrap();
        let done = work.run(None, Bounds::steps(1), niceness).await.unwrap();
        assert!(done.value >= NICENESS, "{}", done.value);
    }

    #[tokio::test]
    async fn a_panic_loses_only_its_job() {
        let work = HostWork::start().unwrap();
        for _ in 0..20 {
            let lost = work.run(None, Bounds::steps(1), |_| panic!("as the test wants")).await;
            assert!(lost.is_err());
        }
        assert_eq!(work.run(None, Bounds::steps(1), |_| 7).await.unwrap().value, 7);
    }
}
