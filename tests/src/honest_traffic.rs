//! Honest traffic of another namespace beside hostile work, with a probe of `/health` and of the
//! host's memory: measures how well a host serves its other namespaces. Also times a cancel and a
//! SIGTERM.
//!
//! Not here: the hostile work and its host, which a test chooses.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::process_stats::ProcessStats;
use crate::tenant::Tenant;
use crate::{Host, component, good, until};

/// The namespace of the honest traffic.
pub const NAMESPACE: &str = "honest";

/// The bound for the p99 of honest runs.
pub const HONEST_P99: Duration = Duration::from_millis(250);

/// The bound for the slowest answer of `/health`.
pub const HEALTH_MAX: Duration = Duration::from_millis(100);

/// The bound for a cancel, beside one sync of the disk.
pub const CANCEL_MAX: Duration = Duration::from_millis(100);

/// Number of clients that start honest runs, each on a connection of its own.
const HONEST_CLIENTS: usize = 2;

/// Pause of a client between two honest runs.
const RUN_PAUSE: Duration = Duration::from_millis(20);

/// Pause of the probe between two requests of `/health`.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// Wait for the end of an honest run, after which it counts as lost. A failing test then ends soon,
/// and not after minutes.
const RUN_WAIT: Duration = Duration::from_secs(30);

/// Timeout of each request: the longest wait and some seconds for the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// Number of errors after which a thread stops: further ones tell nothing new.
const MAX_ERRORS: usize = 3;

/// Maximum scheduling delay of the machine that is subtracted from one sample. A higher one would
/// excuse a host whose threads occupy all processors.
const MAX_EXCUSE: Duration = Duration::from_millis(100);

/// Returns the factor for time bounds: `EXOSPHERE_TEST_SLACK`, by default 1 for a release build (of
/// the tests, and so of the binary beside them) and 3 for a debug build. A debug build takes up to
/// five times as long (honest runs beside the trial `beside-retries` on two processors: 253 ms
/// against 50 ms). The factor never lowers a bound.
pub fn slack() -> f64 {
    let set = std::env::var("EXOSPHERE_TEST_SLACK").ok().and_then(|text| text.parse::<f64>().ok());
    let default = if cfg!(debug_assertions) { 3.0 } else { 1.0 };
    set.unwrap_or(default).max(1.0)
}

/// Serializes the timed tests of one program.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
}

/// Bounds of a [`Report`]; the time bounds are multiplied by [`slack`].
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The p99 of the honest runs, from the request to the answer with their end.
    pub honest_p99: Duration,
    /// The slowest answer of `/health`.
    pub health: Duration,
    /// Bytes of memory (RSS) of the host at any time.
    pub memory: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { honest_p99: HONEST_P99, health: HEALTH_MAX, memory: None }
    }
}

impl Bounds {
    /// Returns the default bounds, with one for memory in bytes.
    pub fn memory(bytes: u64) -> Self {
        Bounds { memory: Some(bytes), ..Bounds::default() }
    }
}

/// Honest traffic, until [`HonestTraffic::finish`].
#[derive(Debug)]
pub struct HonestTraffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Number of samples that each thread has finished.
    ended: Vec<Arc<AtomicU64>>,
}

impl HonestTraffic {
    /// Prepares the namespace [`NAMESPACE`] and starts the traffic on one host.
    pub fn start(host: &Host) -> Result<HonestTraffic> {
        HonestTraffic::start_in(host, NAMESPACE)
    }

    /// Starts the traffic in a namespace of another name.
    pub fn start_in(host: &Host, namespace: &str) -> Result<HonestTraffic> {
        let caller = Caller::new(host, namespace)?;
        caller.prepare().context("cannot prepare the honest namespace")?;
        let stats = ProcessStats(host.pid());
        let first_memory = memory(stats)?;
        let shared = Arc::new(Shared::default());
        shared.found().memory = Memory { first: first_memory, max: first_memory };
        let mut traffic = HonestTraffic { shared, threads: Vec::new(), ended: Vec::new() };
        for _ in 0..HONEST_CLIENTS {
            let caller = Caller::new(host, namespace)?;
            traffic.spawn(move |shared, ended| shared.run_honestly(&caller, ended));
        }
        let caller = Caller::new(host, namespace)?;
        traffic.spawn(move |shared, ended| shared.probe(&caller, ended));
        traffic.spawn(move |shared, ended| shared.sample_process(stats, ended));
        Ok(traffic)
    }

    fn spawn(&mut self, work: impl FnOnce(&Shared, &AtomicU64) + Send + 'static) {
        let (shared, ended) = (Arc::clone(&self.shared), Arc::new(AtomicU64::new(0)));
        self.ended.push(Arc::clone(&ended));
        self.threads.push(std::thread::spawn(move || work(&shared, &ended)));
    }

    /// Takes the measurements since the last call, and continues. Waits for open samples, which
    /// count.
    pub fn take(&self) -> Result<Report> {
        let before: Vec<u64> =
            self.ended.iter().map(|ended| ended.load(Ordering::Relaxed)).collect();
        until("the honest runs under way to end", || {
            let mut both = self.ended.iter().zip(&before);
            let all = both.all(|(ended, before)| ended.load(Ordering::Relaxed) > *before);
            // A thread with errors may have stopped.
            Ok((all || !self.shared.found().errors.is_empty()).then_some(()))
        })?;
        let mut found = self.shared.found();
        let next = Memory { first: found.memory.first, max: 0 };
        let taken = std::mem::replace(&mut *found, Found { memory: next, ..Found::default() });
        Ok(taken.report())
    }

    /// Ends the traffic. Waits for open samples, which count.
    pub fn finish(mut self) -> Result<Report> {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread of the honest traffic panicked"))?;
        }
        let found = std::mem::take(&mut *self.shared.found());
        Ok(found.report())
    }
}

impl Drop for HonestTraffic {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

/// State of the threads of one [`HonestTraffic`].
#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    found: Mutex<Found>,
}

/// Measurements of all threads.
#[derive(Debug, Default)]
struct Found {
    runs: Vec<Sample>,
    health: Vec<Sample>,
    late: Vec<Sample>,
    memory: Memory,
    errors: Vec<String>,
}

/// One duration, and its start time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    elapsed: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    first: u64,
    max: u64,
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn run_honestly(&self, caller: &Caller, ended: &AtomicU64) {
        self.repeat(ended, RUN_PAUSE, || caller.run(), |found| &mut found.runs);
    }

    fn probe(&self, caller: &Caller, ended: &AtomicU64) {
        self.repeat(ended, PROBE_PAUSE, || caller.health(), |found| &mut found.health);
    }

    /// Repeats a request, and records the time of each.
    fn repeat(
        &self,
        ended: &AtomicU64,
        pause: Duration,
        request: impl Fn() -> Result<()>,
        samples: impl Fn(&mut Found) -> &mut Vec<Sample>,
    ) {
        let mut errors = 0;
        while !self.is_over() && errors < MAX_ERRORS {
            let at = Instant::now();
            let done = request();
            let elapsed = at.elapsed();
            let mut found = self.found();
            samples(&mut found).push(Sample { at, elapsed });
            if let Err(error) = done {
                found.errors.push(format!("after {elapsed:.1?}: {error:#}"));
                errors += 1;
            }
            drop(found);
            ended.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
    }

    /// Records the maximum of memory, and the scheduling delay of a sleeping thread.
    fn sample_process(&self, stats: ProcessStats, ended: &AtomicU64) {
        while !self.is_over() {
            let at = Instant::now();
            std::thread::sleep(PROBE_PAUSE);
            let elapsed = at.elapsed().saturating_sub(PROBE_PAUSE);
            // The test may have ended the host.
            let bytes = memory(stats).unwrap_or(0);
            let mut found = self.found();
            found.late.push(Sample { at, elapsed });
            found.memory.max = found.memory.max.max(bytes);
            drop(found);
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Found {
    fn report(self) -> Report {
        let adjusted = self.health.iter().map(|sample| Sample {
            elapsed: sample.elapsed.saturating_sub(self.lateness_during(sample).min(MAX_EXCUSE)),
            ..*sample
        });
        Report {
            honest: Times::from_samples(self.runs.iter().copied(), RUN_PAUSE),
            health: Times::from_samples(adjusted, PROBE_PAUSE),
            health_raw_max: max(&self.health),
            machine_late: max(&self.late),
            memory_first: self.memory.first,
            memory_max: self.memory.max,
            errors: self.errors,
        }
    }

    /// Returns the scheduling delay of the machine during a sample.
    fn lateness_during(&self, sample: &Sample) -> Duration {
        let (begin, end) = (sample.at, sample.at + sample.elapsed);
        let overlapping = self
            .late
            .iter()
            .filter(|late| late.at <= end && late.at + PROBE_PAUSE + late.elapsed >= begin);
        overlapping.map(|late| late.elapsed).max().unwrap_or_default()
    }
}

fn max(samples: &[Sample]) -> Duration {
    samples.iter().map(|sample| sample.elapsed).max().unwrap_or_default()
}

/// Quantiles of durations, corrected for coordinated omission: a sample that took longer than
/// the pause also counts for the requests that it delayed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The number of samples.
    pub count: usize,
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
    /// The maximum.
    pub max: Duration,
}

impl Times {
    fn from_samples(samples: impl Iterator<Item = Sample>, pause: Duration) -> Times {
        let mut all = Vec::new();
        let mut count = 0;
        for sample in samples {
            count += 1;
            let mut elapsed = sample.elapsed;
            all.push(elapsed);
            while elapsed > 2 * pause {
                elapsed -= pause;
                all.push(elapsed);
            }
        }
        all.sort();
        let at =
            |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)));
        let at = |percent| at(percent).copied().unwrap_or_default();
        Times { count, p50: at(50), p99: at(99), max: at(100) }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { count, p50, p99, max } = self;
        write!(f, "{count} (p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?})")
    }
}

/// Measurements of the honest traffic beside some hostile work.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Honest runs, from the request to the answer with their end.
    pub honest: Times,
    /// Answers of `/health`, less the scheduling delay of the machine at that time.
    pub health: Times,
    /// The slowest answer of `/health`, with nothing subtracted.
    pub health_raw_max: Duration,
    /// Maximum scheduling delay of a sleeping thread.
    pub machine_late: Duration,
    /// Memory of the host (RSS) at the beginning, in bytes.
    pub memory_first: u64,
    /// Maximum memory of the host (RSS), in bytes.
    pub memory_max: u64,
    /// Failed honest runs and answers of `/health`.
    pub errors: Vec<String>,
}

impl Report {
    /// Checks the measurements against bounds.
    ///
    /// # Errors
    /// Every bound that was exceeded and every error, with all figures.
    pub fn hold(&self, bounds: Bounds) -> Result<()> {
        let mut breaches = self.errors.clone();
        if self.honest.count == 0 || self.health.count == 0 {
            breaches.push("no sample was taken".to_owned());
        }
        for (label, elapsed, bound) in [
            ("honest p99", self.honest.p99, bounds.honest_p99),
            ("slowest /health", self.health.max, bounds.health),
        ] {
            let bound = bound.mul_f64(slack());
            if elapsed > bound {
                breaches.push(format!("{label}: {elapsed:.1?}, at most {bound:.1?} allowed"));
            }
        }
        if let Some(bound) = bounds.memory.filter(|bound| self.memory_max > *bound) {
            let (max, bound) = (self.memory_max >> 20, bound >> 20);
            breaches.push(format!("memory: {max} MiB, at most {bound} MiB allowed"));
        }
        ensure!(
            breaches.is_empty(),
            "honest traffic exceeded its bounds:\n  {}\n{self}",
            breaches.join("\n  ")
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { honest, health, health_raw_max, machine_late, .. } = self;
        let (first, max) = (self.memory_first >> 20, self.memory_max >> 20);
        write!(
            f,
            "honest runs {honest}; health {health}, {health_raw_max:.1?} with the scheduling delay \
             of the machine (max {machine_late:.1?}); memory {first} MiB, maximum {max} MiB; {} \
             errors; slack {}",
            self.errors.len(),
            slack()
        )
    }
}

fn memory(stats: ProcessStats) -> Result<u64> {
    Ok(u64::try_from(stats.memory_kb("VmRSS")?)? * 1024)
}

/// One client of a host, on a connection of its own.
struct Caller {
    client: Client,
    url: String,
    namespace: String,
}

impl Caller {
    fn new(host: &Host, namespace: &str) -> Result<Caller> {
        let (client, url) = (host.client(REQUEST_TIMEOUT)?, host.url().to_owned());
        Ok(Caller { client, url, namespace: namespace.to_owned() })
    }

    fn path(&self, path: &str) -> String {
        format!("{}/v1/namespaces/{}{path}", self.url, self.namespace)
    }

    fn prepare(&self) -> Result<()> {
        let request = self.client.post(self.path("/plugins?name=lab"));
        good(request.body(component("lab")?).send()?)?;
        let graph = json!({"nodes": [{
            "node_name": "echo", "identifier": "only", "inputs": {"value": 1}, "next_nodes": [],
        }]});
        good(self.client.put(self.path("/graphs/work")).json(&graph).send()?)?;
        // The first run compiles nothing, but warms the caches of the later runs.
        self.run()
    }

    fn run(&self) -> Result<()> {
        let path = format!("/graphs/work/runs?wait_ms={}", RUN_WAIT.as_millis());
        let sent = self.client.post(self.path(&path)).json(&json!({})).send();
        let run = good(sent.context("an honest run was not answered")?)?;
        ensure!(run["status"] == "SUCCESS", "an honest run is {}: {run}", run["status"]);
        Ok(())
    }

    fn health(&self) -> Result<()> {
        let sent = self.client.get(format!("{}/health", self.url)).send();
        let health: Value = good(sent.context("/health was not answered")?)?;
        ensure!(health["status"] == "ok", "health is {health}");
        Ok(())
    }
}

/// The times of one cancel.
#[derive(Debug, Clone, Copy)]
pub struct Cancelled {
    /// Time from the request to its answer.
    pub answered: Duration,
    /// Time from the request until the host executes no state of the run.
    pub stopped: Duration,
}

impl Cancelled {
    /// Checks both times against [`CANCEL_MAX`] and one sync of the disk, with [`slack`].
    ///
    /// # Errors
    /// Both times, if one is longer.
    pub fn hold(&self) -> Result<()> {
        let bound = CANCEL_MAX.mul_f64(slack()) + sync_time()?;
        let slowest = self.answered.max(self.stopped);
        ensure!(slowest <= bound, "cancel: {self:.1?}, at most {bound:.1?} allowed");
        Ok(())
    }
}

/// Cancels a run, and waits for a moment in which the host has claimed no state. Honest runs leave
/// such moments.
pub fn cancel_time(tenant: &Tenant<'_>, run: &str) -> Result<Cancelled> {
    cancel_time_leaving(tenant, run, 0)
}

/// Cancels a run, and waits until the host has claimed at most `left` states of other runs.
pub fn cancel_time_leaving(tenant: &Tenant<'_>, run: &str, left: u64) -> Result<Cancelled> {
    let started = Instant::now();
    let path = tenant.path(&format!("/runs/{run}/cancel"));
    let found = tenant.host.send("POST", &path, &json!({}))?;
    let answered = started.elapsed();
    ensure!(found["status"] == "CANCELLED", "a cancelled run is {}: {found}", found["status"]);
    until("the host still holds states of a cancelled run", || {
        let holding = tenant.host.holding()?;
        Ok((holding <= left).then_some(()))
    })?;
    Ok(Cancelled { answered, stopped: started.elapsed() })
}

/// Sends SIGTERM. Returns the time until the host ended, and its exit status.
pub fn sigterm_time(host: &mut Host) -> Result<(Duration, ExitStatus)> {
    let started = Instant::now();
    host.terminate()?;
    let status = host.wait()?;
    Ok((started.elapsed(), status))
}

/// Returns the slowest of some syncs of a small file: one sync of this machine's disk.
pub fn sync_time() -> Result<Duration> {
    const SYNCS: usize = 5;
    let folder = tempfile::tempdir()?;
    let mut file = File::create(folder.path().join("sync"))?;
    let mut slowest = Duration::ZERO;
    for _ in 0..SYNCS {
        file.write_all(&[1; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        slowest = slowest.max(started.elapsed());
    }
    Ok(slowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(millis: &[u64]) -> Times {
        let sample =
            |millis: &u64| Sample { at: Instant::now(), elapsed: Duration::from_millis(*millis) };
        Times::from_samples(millis.iter().map(sample), Duration::from_millis(20))
    }

    #[test]
    fn a_stall_counts_every_delayed_request() {
        let latencies = [5; 99];
        assert_eq!(times(&latencies).p99, Duration::from_millis(5));
        // One sample of a thousand took a second, which delayed fifty requests.
        let mut stalled = vec![5; 999];
        stalled.push(1_000);
        let found = times(&stalled);
        assert_eq!((found.count, found.max), (1_000, Duration::from_secs(1)));
        assert!(found.p99 > Duration::from_millis(700), "{found}");
    }

    #[test]
    fn a_report_names_every_exceeded_bound() {
        let slow = Times {
            count: 9,
            max: Duration::from_secs(9),
            p99: Duration::from_secs(9),
            ..Times::default()
        };
        let report =
            Report { honest: slow, health: slow, memory_max: 9 << 20, ..Report::default() };
        let message = format!("{:#}", report.hold(Bounds::memory(8 << 20)).unwrap_err());
        for part in ["honest p99: 9.0s", "slowest /health: 9.0s", "memory: 9 MiB"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
