//! The resources of a host: memory in a wide fanout, processor and memory when idle, time to start.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{component, good};
use serde_json::json;

use crate::closed_loop::closed;
use crate::graphs;
use crate::results::{Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// Number of branches of the fanout whose memory is watched.
const BRANCHES: u64 = 100_000;
/// Numbers of plugins of the idle host, and of the host whose start is timed.
const PLUGIN_COUNTS: (usize, usize) = (10, 100);
/// Time after the last work of a host until it counts as idle.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Time for which an idle host is watched.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Measures the memory, the idle cost and the start time of hosts.
pub fn run(postgres: &Postgres, rounds: u32, results: &mut Results) -> Result<()> {
    let mut systems = SystemUnderTest::both(postgres, "resources")?;
    for system in &systems {
        upload(system, 0..PLUGIN_COUNTS.0)?;
        for number in 0..PLUGIN_COUNTS.0 {
            system.host.apply(&named(number), &graphs::tally(&named(number)))?;
        }
    }
    for number in 1..=rounds {
        eprintln!("resources: round {number} of {rounds}");
        for system in &mut systems {
            memory(system, results)?;
            idle(system, results)?;
        }
    }
    for system in &systems {
        upload(system, PLUGIN_COUNTS.0..PLUGIN_COUNTS.1)?;
    }
    for _ in 0..rounds {
        for system in &mut systems {
            let elapsed = system.restart()?.as_secs_f64();
            let load = "start with 100 plugins in the code cache";
            results.add(load, system.name, Unit::Seconds, elapsed);
        }
    }
    Ok(())
}

/// Measures the maximum memory of a fresh host in one wide fanout.
fn memory(system: &mut SystemUnderTest, results: &mut Results) -> Result<()> {
    system.restart()?;
    closed(&system.work("fanout", &json!({"n": BRANCHES})), 1, 1)?;
    let peak = mebibytes(system, "VmHWM")?;
    results.add("fanout of 100,000, most memory of the host", system.name, Unit::Mebibytes, peak);
    Ok(())
}

/// Measures the memory and processor of an idle host that has done a little of everything before.
fn idle(system: &mut SystemUnderTest, results: &mut Results) -> Result<()> {
    system.restart()?;
    for graph in ["single", "chain", "store", "wide"] {
        closed(&system.work(graph, &json!({})), 4, 20)?;
    }
    for number in 0..PLUGIN_COUNTS.0 {
        closed(&system.work(&named(number), &json!({})), 1, 1)?;
    }
    let stats = ProcessStats(system.host.pid());
    sleep(SETTLE_TIME);
    let before = stats.cpu_seconds()?;
    sleep(IDLE_TIME);
    let used = (stats.cpu_seconds()? - before) / IDLE_TIME.as_secs_f64();
    results.add("idle host with ten plugins", system.name, Unit::Core, used * 100.0);
    let resident = mebibytes(system, "VmRSS")?;
    results.add("idle host with ten plugins", system.name, Unit::Mebibytes, resident);
    Ok(())
}

fn mebibytes(system: &SystemUnderTest, field: &str) -> Result<f64> {
    Ok(ProcessStats(system.host.pid()).memory_kb(field)? as f64 / 1024.0)
}

/// Returns the name of a numbered plugin and of its graph.
fn named(number: usize) -> String {
    format!("tally{number}")
}

/// Uploads plugins that differ only in an unused number.
fn upload(system: &SystemUnderTest, numbers: Range<usize>) -> Result<()> {
    let plugin = component("tally")?;
    for number in numbers {
        good(system.host.upload(&named(number), numbered(&plugin, number)?)?)?;
    }
    Ok(())
}

/// Returns the component with a number in a custom section, which changes its digest.
pub fn numbered(component: &[u8], number: usize) -> Result<Vec<u8>> {
    let number = u32::try_from(number)?.to_le_bytes();
    let mut bytes = component.to_vec();
    // Section 0, 6 bytes: a name of one letter, and the number.
    bytes.extend([0, 6, 1, b'n']);
    bytes.extend(number);
    Ok(bytes)
}
