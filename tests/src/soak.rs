//! A soak test: hostile attempts in one namespace, with honest runs in another; checks the outcome
//! of each attempt and the host's resources.
//!
//! The caller chooses the number: the program `soak` a million, a test a few thousand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::Host;
use crate::honest_traffic::slack;
use crate::process_stats::{ProcessResources, ProcessStats};
use crate::tenant::Tenant;

/// The mix of attempts: name, share in percent, and the expected kind of failure.
const ATTEMPT_MIX: [(&str, usize, &str); 14] = [
    ("trap", 34, "trap"),
    ("panic", 15, "trap"),
    ("exit", 10, "exit"),
    ("bad-output", 10, "invalid-output"),
    ("eat-memory", 8, "limit"),
    ("flood-log", 7, "trap"),
    ("flood-store", 3, "limit"),
    ("bad-key", 2, "store"),
    ("spin", 2, "limit"),
    ("sleep", 2, "timeout"),
    ("overflow-stack", 1, "limit"),
    ("heavy-outputs", 2, "limit"),
    ("large-output", 2, "limit"),
    ("log-secret", 2, "trap"),
];

/// Length of the logged secret: equal letters, so that a search starts at each of them.
const SECRET_LETTERS: usize = 60_000;

/// Number of attempts of one run: the branches of its fanout.
const BRANCHES: u64 = 10_000;

/// Number of attempts after which the host should need no more memory.
const WARM_UP_ATTEMPTS: u64 = 100_000;

/// Kilobytes by which the memory may still grow, in addition to 5 %.
const MAX_GROWTH_KB: i64 = 20 * 1024;

/// Timeout of one run.
const RUN_TIMEOUT: Duration = Duration::from_secs(1_200);

/// Returns the deadline of an attempt, in milliseconds. A debug build has more time: 48 guests
/// share the processors.
fn deadline_ms() -> u64 {
    const RELEASE_DEADLINE_MS: f64 = 100.0;
    (RELEASE_DEADLINE_MS * slack()) as u64
}

/// Tolerance for descriptors and threads.
const MAX_EXTRA_RESOURCES: usize = 10;

/// A sample of the host's memory, descriptors and threads.
#[derive(Debug, Clone, Copy)]
struct Sample {
    attempts: u64,
    at: Duration,
    rss: i64,
    resources: ProcessResources,
}

/// The results of the honest runs.
#[derive(Debug, Default)]
struct Honest {
    runs: u64,
    slowest: Duration,
}

/// The results of all attempts and of the honest runs.
#[derive(Debug, Default)]
pub struct Report {
    attempts: u64,
    kinds: BTreeMap<String, u64>,
    samples: Vec<Sample>,
    honest: Honest,
    peak: i64,
}

/// Performs `attempts` attempts on a new host.
///
/// # Errors
/// If an honest run was lost or has another result, or an attempt did not end in a typed failure.
pub fn run(attempts: u64) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &[], |command| {
        command.env("EXOSPHERE_LOG", "error");
    })?;
    let attacker = Tenant { host: &host, name: "evil" };
    let honest = Tenant { host: &host, name: "honest" };
    for (tenant, plugins) in [(attacker, &["lab", "hostile"][..]), (honest, &["lab"])] {
        plugins.iter().try_for_each(|plugin| tenant.push(plugin).map(drop))?;
    }
    let grants = "//v1/operator/namespaces/evil/grants/hostile";
    host.send("PUT", grants, &json!({"secrets": ["token"]}))?;
    attacker.apply("attack", &attack(attempts.min(BRANCHES)))?;
    honest.apply("work", &work())?;
    let has_ended = AtomicBool::new(false);
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let honest_result = scope.spawn(|| work_on(honest, &has_ended));
        let attack_result = report.attack(attacker, attempts);
        has_ended.store(true, Ordering::Relaxed);
        report.honest = honest_result.join().map_err(|_| anyhow!("the honest runs panicked"))??;
        attack_result
    })?;
    report.peak = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    Ok(report)
}

/// Returns a fanout whose branches misbehave in turn, and a unite that accepts all failures.
fn attack(branches: u64) -> Value {
    let plan: Vec<&str> =
        ATTEMPT_MIX.iter().flat_map(|(attack, times, _)| vec![*attack; *times]).collect();
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": branches}, "next_nodes": ["attack"]},
            {"node_name": "mix", "identifier": "attack", "next_nodes": ["merger"],
             "inputs": {"i": "${{ splitter.outputs.i }}", "plan": plan},
             "limits": {"cpu_ms": 20, "memory_bytes": 4 << 20, "output_bytes_each": 1 << 20},
             "timeout_ms": deadline_ms()},
            {"node_name": "whoami", "identifier": "merger", "inputs": {}, "next_nodes": [],
             "unites": {"identifier": "splitter", "strategy": "ALL_DONE"}},
        ],
        "retry_policy": {"max_retries": 0},
        "secrets": {"token": "a".repeat(SECRET_LETTERS)},
    })
}

fn work() -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 20}, "next_nodes": ["worker"]},
        {"node_name": "echo", "identifier": "worker",
         "inputs": {"value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
        {"node_name": "sum", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]})
}

/// Performs honest runs, one after the other, and checks the result of each.
fn work_on(tenant: Tenant<'_>, has_ended: &AtomicBool) -> Result<Honest> {
    let mut honest = Honest::default();
    while !has_ended.load(Ordering::Relaxed) {
        let started = Instant::now();
        let run = tenant.begin("work")?;
        let found = tenant.result(&run)?;
        ensure!(found["status"] == "SUCCESS" && found["counts"]["success"] == 22, "{found:#}");
        let sum = tenant.output(&run, "merger")?["sum"].as_f64();
        ensure!(sum == Some(190.0), "the sum of an honest run is {sum:?}");
        honest.runs += 1;
        honest.slowest = honest.slowest.max(started.elapsed());
    }
    Ok(honest)
}

/// Waits for the end of a run, which may take long on a shared machine.
fn wait_for_end(attacker: Tenant<'_>, run: &str) -> Result<Value> {
    let end = Instant::now() + RUN_TIMEOUT;
    loop {
        if let Some(found) = attacker.ended_run(run)? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "timed out: the run is still {}", attacker.run(run)?);
    }
}

impl Report {
    fn attack(&mut self, attacker: Tenant<'_>, attempts: u64) -> Result<()> {
        let started = Instant::now();
        let stats = ProcessStats(attacker.host.pid());
        while self.attempts < attempts {
            let run = attacker.begin("attack")?;
            let found = wait_for_end(attacker, &run)?;
            ensure!(found["status"] == "SUCCESS", "the unite did not accept failures: {found:#}");
            let failed = found["counts"]["errored"].as_u64().context("the run has no counts")?;
            ensure!(failed == attempts.min(BRANCHES), "{failed} attempts failed: {found:#}");
            self.count(attacker, &run)?;
            self.attempts += failed;
            let (rss, resources) = (stats.memory_kb("VmRSS")?, stats.resources()?);
            let sample = Sample { attempts: self.attempts, at: started.elapsed(), rss, resources };
            println!("{sample}");
            self.samples.push(sample);
        }
        Ok(())
    }

    fn count(&mut self, attacker: Tenant<'_>, run: &str) -> Result<()> {
        for state in attacker.list(run, "identifier=attack&status=ERRORED")? {
            let kind = state["failure"]["kind"].as_str().context("a failure has no kind")?;
            let known = kind == "timeout" || ATTEMPT_MIX.iter().any(|(.., wanted)| *wanted == kind);
            ensure!(known, "an attempt failed with an unexpected kind: {state:#}");
            *self.kinds.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    /// Checks the outcomes, and that the host has not grown.
    ///
    /// # Errors
    ///
    /// If the host has grown, or the attempts ended in unexpected ways.
    pub fn verdict(&self) -> Result<()> {
        ensure!(self.honest.runs > 0, "no honest run has ended");
        for (kind, number) in &self.kinds {
            // Any attempt may run out of time on a busy machine.
            let planned: usize = ATTEMPT_MIX
                .iter()
                .filter(|(.., wanted)| wanted == kind)
                .map(|(_, times, _)| times)
                .sum();
            let max = planned as u64 * self.attempts / 100;
            ensure!(
                kind == "timeout" || *number <= max,
                "{number} attempts failed with {kind}, at most {max} expected"
            );
        }
        let late = self.kinds.get("timeout").copied().unwrap_or(0);
        ensure!(late <= self.attempts / 10, "{late} of {} attempts timed out", self.attempts);
        let warm_sample = self.samples.iter().find(|sample| sample.attempts >= WARM_UP_ATTEMPTS);
        let (Some(first), Some(last)) = (warm_sample.or(self.samples.first()), self.samples.last())
        else {
            return Ok(());
        };
        let max = first.rss + first.rss / 20 + MAX_GROWTH_KB;
        ensure!(warm_sample.is_none() || last.rss <= max, "RSS grew: {first}; {last}");
        let (before, after) = (first.resources, last.resources);
        ensure!(
            after.descriptors <= before.descriptors + MAX_EXTRA_RESOURCES,
            "descriptors: {first}; {last}"
        );
        ensure!(after.threads <= before.threads + MAX_EXTRA_RESOURCES, "threads: {first}; {last}");
        ensure!(after.children <= before.children, "children: {first}; {last}");
        Ok(())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { attempts, at, rss, resources } = self;
        write!(
            f,
            "{attempts:>9} attempts {:>7.0} s {:>6} MB {resources}",
            at.as_secs_f64(),
            rss / 1024
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, number) in &self.kinds {
            writeln!(f, "{kind:<16} {number:>9}")?;
        }
        if let Some(last) = self.samples.last() {
            let rate = self.attempts as f64 / last.at.as_secs_f64();
            writeln!(f, "{last}; {rate:.0} attempts a second")?;
        }
        writeln!(f, "maximum memory of the host: {} MB", self.peak / 1024)?;
        let Honest { runs, slowest } = &self.honest;
        write!(f, "{runs} honest runs, all correct, the slowest in {slowest:.1?}")
    }
}
