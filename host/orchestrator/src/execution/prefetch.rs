//! Prefetch targets: how many states this host may claim, in all, of a namespace and of a run.
//! A free slot should have work while a commit is synced. Only slightly more states are claimed
//! than can begin soon, since a waiting state is kept from other hosts and other runs. How soon
//! a state can begin follows from the time that executions take.
//!
//! Not here: the claimed states (`claims`), slots (`executor`), claims (`committer`) and giving
//! back states that wait too long (`recall`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::ids::{NamespaceKey, RunKey};
use tokio::sync::Notify;

use parking_lot::{Mutex, MutexGuard};

/// Time within which a state that is claimed ahead should begin: a commit with its sync,
/// several times over.
const PREFETCH_HORIZON: Duration = Duration::from_millis(50);

/// Execution time from which states are claimed only for free slots. The wait for the next
/// commit costs such executions a few per cent at most.
const SLOW_EXECUTION: Duration = Duration::from_millis(400);

/// Maximum number of states that may be claimed ahead for each slot, however fast executions
/// are.
pub(crate) const MAX_AHEAD_PER_SLOT: u32 = 7;

/// Number of slots of a run from which it does not get the last slot of its namespace. A small
/// run that starts later need not wait until a slow node has ended. It costs a large run one
/// slot of seventeen at most, and nothing where a namespace has fewer.
pub(crate) const LARGE_RUN_SLOTS: u32 = 16;

/// Weight of the newest execution in the mean time of a run.
const RUN_WEIGHT: f64 = 1.0 / 8.0;

/// Weight of the newest execution in the mean time of a namespace.
const NAMESPACE_WEIGHT: f64 = 1.0 / 16.0;

/// Maximum number of namespaces with slow executions that are remembered while none of their
/// states runs.
const MAX_IDLE_NAMESPACES: usize = 256;

/// A meter of executions, from which the prefetch targets are derived.
pub(crate) struct Prefetch {
    slots: u32,
    epoch: Instant,
    paces: Mutex<HashMap<NamespaceKey, Pace>>,
    /// Notified when states were claimed.
    claimed: Notify,
}

/// The executions of a namespace.
#[derive(Default)]
struct Pace {
    running: u32,
    /// Mean time of an execution in seconds, once one has ended.
    mean: Option<f64>,
    runs: HashMap<RunKey, RunPace>,
}

/// The executions of a run, while some are under way.
#[derive(Default)]
struct RunPace {
    running: u32,
    /// Sum of the start times of executions under way, in microseconds after `epoch`.
    began_sum_us: u64,
    mean: Option<f64>,
}

/// An execution under way. On drop, its measurement ends.
pub(crate) struct RunningExecution {
    prefetch: Arc<Prefetch>,
    namespace: NamespaceKey,
    run: RunKey,
    began_at: Instant,
}

/// The prefetch targets: how many states may be claimed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Target of the host.
    pub total: u32,
    /// Targets of namespaces that execute or have executed something.
    pub namespaces: HashMap<NamespaceKey, Target>,
}

/// The prefetch target of a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Target of the whole namespace.
    pub held: u32,
    /// Target of a run that executes nothing.
    pub idle_run: u32,
    /// Targets of the other runs.
    pub runs: HashMap<RunKey, u32>,
}

impl Target {
    /// Returns the prefetch target of a run.
    pub(crate) fn get(&self, run: RunKey) -> u32 {
        self.runs.get(&run).copied().unwrap_or(self.idle_run)
    }
}

impl Prefetch {
    /// Creates targets for a host with `slots` slots.
    pub(crate) fn new(slots: u32) -> Arc<Self> {
        Arc::new(Prefetch {
            slots,
            epoch: Instant::now(),
            paces: Mutex::default(),
            claimed: Notify::new(),
        })
    }

    /// Records that an execution begins in a slot.
    pub(crate) fn begin(
        self: &Arc<Self>,
        namespace: NamespaceKey,
        run: RunKey,
    ) -> RunningExecution {
        let began_at = Instant::now();
        let mut paces = self.lock();
        if paces.len() >= MAX_IDLE_NAMESPACES && !paces.contains_key(&namespace) {
            paces.retain(|_, pace| pace.running > 0);
        }
        let pace = paces.entry(namespace).or_default();
        pace.running += 1;
        let of_run = pace.runs.entry(run).or_default();
        of_run.running += 1;
        of_run.began_sum_us += self.micros(began_at);
        RunningExecution { prefetch: self.clone(), namespace, run, began_at }
    }

    fn end(&self, running: &RunningExecution, now: Instant) {
        let elapsed = now.saturating_duration_since(running.began_at).as_secs_f64();
        let mut paces = self.lock();
        let Some(pace) = paces.get_mut(&running.namespace) else { return };
        pace.running -= 1;
        pace.mean = Some(blend(pace.mean, elapsed, NAMESPACE_WEIGHT));
        let Some(of_run) = pace.runs.get_mut(&running.run) else { return };
        of_run.running -= 1;
        of_run.began_sum_us -= self.micros(running.began_at);
        of_run.mean = Some(blend(of_run.mean, elapsed, RUN_WEIGHT));
        if of_run.running == 0 {
            pace.runs.remove(&running.run);
        }
        if pace.running == 0 && pace.is_fast() {
            // Without an entry, a namespace counts as fast.
            paces.remove(&running.namespace);
        }
    }

    /// Returns the current prefetch targets; `slots_of` returns the slots of a namespace.
    pub(crate) fn targets(&self, slots_of: impl Fn(NamespaceKey) -> u32) -> Targets {
        self.targets_at(Instant::now(), slots_of)
    }

    fn targets_at(&self, now: Instant, slots_of: impl Fn(NamespaceKey) -> u32) -> Targets {
        let now = self.micros(now);
        let paces = self.lock();
        let target = |(key, pace): (&NamespaceKey, &Pace)| (*key, pace.target(now, slots_of(*key)));
        let namespaces = paces.iter().map(target).collect();
        Targets { total: self.total(&paces, now), namespaces }
    }

    /// Returns the prefetch target of the host.
    pub(crate) fn total_now(&self) -> u32 {
        self.total(&self.lock(), self.micros(Instant::now()))
    }

    fn total(&self, paces: &HashMap<NamespaceKey, Pace>, now: u64) -> u32 {
        let running: u32 = paces.values().map(|pace| pace.running).sum();
        let spare = self.slots.saturating_sub(running);
        let ahead: f64 = paces.values().map(|pace| pace.ahead_of_running(now)).sum();
        let spare_ahead = f64::from(spare.saturating_mul(MAX_AHEAD_PER_SLOT));
        self.slots.saturating_add(capped(ahead + spare_ahead, self.slots))
    }

    /// Returns the number of executions under way.
    pub(crate) fn running(&self) -> u32 {
        self.lock().values().map(|pace| pace.running).sum()
    }

    /// Signals that states were claimed, or that the host stops.
    pub(crate) fn notify(&self) {
        self.claimed.notify_one();
    }

    /// Waits until states were claimed.
    pub(crate) async fn claimed(&self) {
        self.claimed.notified().await;
    }

    fn micros(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.epoch).as_micros();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespaceKey, Pace>> {
        self.paces.lock()
    }
}

impl Drop for RunningExecution {
    fn drop(&mut self) {
        self.prefetch.end(self, Instant::now());
    }
}

impl Pace {
    fn target(&self, now: u64, slots: u32) -> Target {
        let spare = slots.saturating_sub(self.running);
        let of_run = |running: u32, time: f64| {
            // One more than the run can begin, so that it always has a state that waits.
            let startable = running.saturating_add(spare).saturating_add(1);
            match capped(ahead(running + spare, time), slots) {
                0 => startable.min(max_slots_of_run(slots)),
                ahead => startable.saturating_add(ahead),
            }
        };
        let runs = self
            .runs
            .iter()
            .map(|(run, pace)| (*run, of_run(pace.running, pace.expected(now, self.mean))));
        let ahead = self.ahead_of_running(now) + ahead(spare, self.mean.unwrap_or(0.0));
        Target {
            held: slots.saturating_add(capped(ahead, slots)),
            idle_run: of_run(0, self.mean.unwrap_or(0.0)),
            runs: runs.collect(),
        }
    }

    /// Returns `true` if its executions are too fast to matter.
    fn is_fast(&self) -> bool {
        ahead(1, self.mean.unwrap_or(0.0)) >= f64::from(MAX_AHEAD_PER_SLOT)
    }

    /// Returns how many states can begin soon in the slots of executions under way.
    fn ahead_of_running(&self, now: u64) -> f64 {
        let of_run = |pace: &RunPace| ahead(pace.running, pace.expected(now, self.mean));
        self.runs.values().map(of_run).sum()
    }
}

impl RunPace {
    /// Returns the expected time of an execution of the run, in seconds. It is the mean
    /// of the last executions, or twice the mean age of those under way. So a slow run is
    /// known before an execution has ended.
    fn expected(&self, now: u64, default_mean: Option<f64>) -> f64 {
        let ages = (u64::from(self.running).saturating_mul(now)).saturating_sub(self.began_sum_us);
        let age = ages as f64 / 1e6 / f64::from(self.running.max(1));
        self.mean.or(default_mean).unwrap_or(0.0).max(2.0 * age)
    }
}

/// Returns how many slots of a namespace one run can have.
fn max_slots_of_run(slots: u32) -> u32 {
    slots - u32::from(slots > LARGE_RUN_SLOTS)
}

/// Returns how many states can begin within [`PREFETCH_HORIZON`], in `slots` slots at
/// `time` seconds each.
fn ahead(slots: u32, time: f64) -> f64 {
    if time >= SLOW_EXECUTION.as_secs_f64() || slots == 0 {
        return 0.0;
    }
    f64::from(slots) * PREFETCH_HORIZON.as_secs_f64() / time.max(1e-6)
}

/// Rounds a number of states down, and caps it by the limit for `slots`.
fn capped(ahead: f64, slots: u32) -> u32 {
    // A cast of a float saturates.
    (ahead as u32).min(slots.saturating_mul(MAX_AHEAD_PER_SLOT))
}

fn blend(mean: Option<f64>, newest: f64, weight: f64) -> f64 {
    mean.map_or(newest, |mean| mean + (newest - mean) * weight)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const N: NamespaceKey = NamespaceKey(1);
    const OTHER_NAMESPACE: NamespaceKey = NamespaceKey(2);

    /// A host whose executions begin and end at given milliseconds.
    struct Bench(Arc<Prefetch>);

    impl Bench {
        fn at(&self, millis: u64) -> Instant {
            self.0.epoch + Duration::from_millis(millis)
        }

        fn begin(&self, namespace: NamespaceKey, run: i64, millis: u64) -> RunningExecution {
            let mut running = self.0.begin(namespace, RunKey(run));
            let mut paces = self.0.lock();
            let pace = paces.get_mut(&namespace).unwrap();
            let of_run = pace.runs.get_mut(&RunKey(run)).unwrap();
            of_run.began_sum_us -= self.0.micros(running.began_at);
            running.began_at = self.at(millis);
            of_run.began_sum_us += self.0.micros(running.began_at);
            running
        }

        fn end(&self, running: RunningExecution, millis: u64) {
            self.0.end(&running, self.at(millis));
            std::mem::forget(running);
        }

        fn held(&self, millis: u64, slots: u32) -> (u32, u32) {
            let targets = self.0.targets_at(self.at(millis), |_| slots);
            (targets.total, targets.namespaces[&N].held)
        }
    }

    #[test]
    fn fast_executions_keep_the_full_prefetch() {
        let bench = Bench(Prefetch::new(64));
        for round in 0..50 {
            let all: Vec<_> = (0..48).map(|_| bench.begin(N, 1, round * 3)).collect();
            assert_eq!(bench.held(round * 3 + 2, 48), (512, 384));
            all.into_iter().for_each(|running| bench.end(running, round * 3 + 3));
        }
    }

    #[test]
    fn slow_executions_are_known_before_one_ends() {
        let bench = Bench(Prefetch::new(16));
        let all: Vec<_> = (0..16).map(|_| bench.begin(N, 1, 0)).collect();
        assert_eq!(bench.held(1, 16), (128, 128), "nothing is known yet");
        assert_eq!(bench.held(100, 16), (20, 20), "8 ms apart, if they take 200");
        assert_eq!(bench.held(200, 16), (16, 16));
        all.into_iter().for_each(|running| bench.end(running, 2_000));
        assert_eq!(bench.held(2_000, 16).1, 16, "and remembered");
    }

    #[test]
    fn fast_executions_after_slow_ones_count_immediately() {
        let bench = Bench(Prefetch::new(16));
        let slow: Vec<_> = (0..16).map(|_| bench.begin(N, 1, 0)).collect();
        slow.into_iter().for_each(|running| bench.end(running, 2_000));
        let mut fast: Vec<_> = (0..16).map(|_| bench.begin(N, 2, 2_000)).collect();
        assert_eq!(bench.held(2_001, 16).1, 16);
        bench.end(fast.pop().unwrap(), 2_001);
        let held = bench.held(2_001, 16).1;
        assert!(held > 100, "{held}");
    }

    #[test]
    fn slow_runs_leave_room_for_fast_ones() {
        let bench = Bench(Prefetch::new(16));
        let slow: Vec<_> = (0..15).map(|_| bench.begin(N, 1, 0)).collect();
        let fast = bench.begin(N, 2, 1_000);
        bench.end(fast, 1_001);
        let _fast = bench.begin(N, 2, 1_001);
        let targets = bench.0.targets_at(bench.at(1_002), |_| 16);
        let target = &targets.namespaces[&N];
        assert_eq!(target.runs[&RunKey(1)], 16, "one more than its slots");
        // One slot, at 2 ms for each.
        assert!(target.runs[&RunKey(2)] >= 20 && target.held >= 40, "{target:?}");
        slow.into_iter().for_each(|running| bench.end(running, 2_000));
    }

    #[test]
    fn slow_namespaces_leave_room_for_fast_ones() {
        let bench = Bench(Prefetch::new(64));
        let slow: Vec<_> = (0..48).map(|_| bench.begin(OTHER_NAMESPACE, 1, 0)).collect();
        let fast: Vec<_> = (0..16).map(|_| bench.begin(N, 2, 1_000)).collect();
        let (total, held) = bench.held(1_001, 48);
        assert!(total >= 64 + 112 && held >= 48 + 112, "{total}, {held}");
        slow.into_iter().chain(fast).for_each(|running| bench.end(running, 1_002));
    }

    #[test]
    fn idle_namespaces_are_forgotten_in_the_end() {
        let prefetch = Prefetch::new(1);
        let busy = prefetch.begin(N, RunKey(1));
        let bench = Bench(prefetch.clone());
        for number in 0..3 * MAX_IDLE_NAMESPACES as i64 {
            let slow = bench.begin(NamespaceKey(100 + number), 2, 0);
            bench.end(slow, 1_000);
            drop(prefetch.begin(OTHER_NAMESPACE, RunKey(2)));
        }
        let paces = prefetch.lock();
        assert!(
            paces.contains_key(&N) && !paces.contains_key(&OTHER_NAMESPACE),
            "one is busy, one fast"
        );
        assert!(paces.len() > 1 && paces.len() <= MAX_IDLE_NAMESPACES + 1, "{}", paces.len());
        drop(paces);
        drop(busy);
        assert_eq!(prefetch.running(), 0);
    }
}
