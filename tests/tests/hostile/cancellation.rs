//! Cancellation latency: the time until guests in a loop or a blocking host call stop, after a
//! cancel or at a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

use crate::report::Row;

/// Bound from the answer to a cancel, or from the deadline, until no guest runs.
const MAX_CANCEL_TIME: Duration = Duration::from_millis(100);

/// Time for which CPU usage is measured afterwards.
const WATCH_TIME: Duration = Duration::from_millis(100);

/// CPU time that an idle host uses in that time.
const MAX_IDLE_CPU_TIME: Duration = Duration::from_millis(25);

/// Maximum number of tries of a case: a busy machine may spoil a measurement.
const MAX_TRIES: usize = 5;

/// The cause of the stop.
#[derive(Clone, Copy)]
enum StopCause {
    Cancel,
    Deadline,
}

/// Name, the endless node, the number of guests, and the cause of their stop.
const CASES: &[(&str, &str, usize, StopCause)] = &[
    ("stop-one-that-spins", "spin", 1, StopCause::Cancel),
    ("stop-one-that-sleeps", "sleep", 1, StopCause::Cancel),
    ("stop-60-that-spin", "spin", 60, StopCause::Cancel),
    ("stop-60-that-sleep", "sleep", 60, StopCause::Cancel),
    ("deadline-of-one-that-spins", "spin", 1, StopCause::Deadline),
    ("deadline-of-one-that-sleeps", "sleep", 1, StopCause::Deadline),
    ("deadline-of-60-that-sleep", "sleep", 60, StopCause::Deadline),
];

/// Returns whether the name of a case contains `part`.
pub fn is_one_of(part: &str) -> bool {
    CASES.iter().any(|case| case.0.contains(part))
}

/// Tries each case on a host of its own, and returns a row or an error for each.
pub fn rows() -> Result<Vec<(&'static str, Result<Row>)>> {
    let host = Host::start()?;
    for plugin in ["lab", "hostile"] {
        host.push(plugin)?;
    }
    // All slots, or the last guests wait for the first.
    host.namespace("default", &json!({"slots": 128}))?;
    Ok(CASES.iter().map(|case| (case.0, row(&host, case))).collect())
}

fn row(host: &Host, (name, node, count, by): &(&str, &str, usize, StopCause)) -> Result<Row> {
    let mut row = Row::new(name);
    for _ in 0..MAX_TRIES {
        row.times.push(match by {
            StopCause::Cancel => cancelled(host, name, node, *count)?,
            StopCause::Deadline => overdue(host, name, node, *count)?,
        });
    }
    let shortest = row.times.iter().min().copied().unwrap_or_default();
    ensure!(shortest < MAX_CANCEL_TIME, "stopped after {:?}", row.times);
    row.answer = "stopped".to_owned();
    Ok(row)
}

fn graph(node: &str, count: usize, timeout: Duration) -> Value {
    let inputs = if node == "sleep" { json!({"ms": 3_600_000}) } else { json!({}) };
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": count}, "next_nodes": ["guest"]},
            {"node_name": node, "identifier": "guest", "inputs": inputs, "next_nodes": [],
             "timeout_ms": timeout.as_millis() as u64},
        ],
        "retry_policy": {"max_retries": 0},
    })
}

/// Returns the time from the answer to the cancel until no state is claimed and no guest computes.
fn cancelled(host: &Host, name: &str, node: &str, count: usize) -> Result<Duration> {
    host.apply(name, &graph(node, count, Duration::from_secs(25)))?;
    let run = host.run(name, &json!({}), &json!({}))?;
    until("the guests to run", || Ok((host.holding()? == count as u64).then_some(())))?;
    // Until each guest has reached its endless part.
    std::thread::sleep(Duration::from_millis(200));
    let found = host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    let started = Instant::now();
    ensure!(found["status"] == "CANCELLED", "{found:#}");
    until("no slot to be held", || Ok((host.holding()? == 0).then_some(())))?;
    let stopped = started.elapsed();
    let used = used_from_now(host)?;
    ensure!(
        used < MAX_IDLE_CPU_TIME,
        "the host used {used:?} of CPU time in {WATCH_TIME:?} afterwards"
    );
    Ok(stopped)
}

/// Returns the time from the deadline until the last guest has ended.
fn overdue(host: &Host, name: &str, node: &str, count: usize) -> Result<Duration> {
    const TIMEOUT: Duration = Duration::from_millis(300);
    host.apply(name, &graph(node, count, TIMEOUT))?;
    let run = host.run(name, &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    let failure = &found["failures"][0]["failure"];
    ensure!(failure["kind"] == "timeout", "{found:#}");
    ensure!(found["counts"]["errored"] == count, "{found:#}");
    let at = |value: &Value, key: &str| value[key].as_i64().context("no time in the answer");
    // The deadline counts from the splitter's end: a delay of this host counts as well.
    let splitter = &host.list(&run, "identifier=splitter")?[0];
    let elapsed = u64::try_from(at(&found, "ended_at")? - at(splitter, "ended_at")?)?;
    let used = used_from_now(host)?;
    ensure!(
        used < MAX_IDLE_CPU_TIME,
        "the host used {used:?} of CPU time in {WATCH_TIME:?} afterwards"
    );
    Ok(Duration::from_millis(elapsed).saturating_sub(TIMEOUT))
}

fn used_from_now(host: &Host) -> Result<Duration> {
    let stats = ProcessStats(host.pid());
    let before = stats.cpu_nanos()?;
    std::thread::sleep(WATCH_TIME);
    Ok(Duration::from_nanos(stats.cpu_nanos()?.saturating_sub(before)))
}
