//! The resources of a host: memory in a wide fanout, processor and memory when idle, time to start.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::Watch;
use exosphere_tests::{component, good};
use serde_json::json;

use crate::closed_loop::closed;
use crate::graphs;
use crate::results::{Figures, Unit};
use crate::system_under_test::Subject;

/// Branches of the fanout whose memory is watched.
const BRANCHES: u64 = 100_000;
/// Plugins of the idle host, and of the host whose start is timed.
const PLUGINS: (usize, usize) = (10, 100);
/// Time after its last work until a host counts as idle, and the time for which it is watched then.
const SETTLES: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

/// Measures all resources.
pub fn run(postgres: &Postgres, rounds: u32, figures: &mut Figures) -> Result<()> {
    let mut subjects = Subject::both(postgres, "resources")?;
    for subject in &subjects {
        upload(subject, 0..PLUGINS.0)?;
        for number in 0..PLUGINS.0 {
            subject.host.apply(&named(number), &graphs::tally(&named(number)))?;
        }
    }
    for number in 1..=rounds {
        eprintln!("resources: round {number} of {rounds}");
        for subject in &mut subjects {
            memory(subject, figures)?;
            idle(subject, figures)?;
        }
    }
    for subject in &subjects {
        upload(subject, PLUGINS.0..PLUGINS.1)?;
    }
    for _ in 0..rounds {
        for subject in &mut subjects {
            let took = subject.restart()?.as_secs_f64();
            let load = "start with 100 plugins in the code cache";
            figures.add(load, subject.name, Unit::Seconds, took);
        }
    }
    Ok(())
}

/// Measures the maximum memory of a fresh host in one wide fanout.
fn memory(subject: &mut Subject, figures: &mut Figures) -> Result<()> {
    subject.restart()?;
    closed(&subject.work("fanout", &json!({"n": BRANCHES})), 1, 1)?;
    let most = mebibytes(subject, "VmHWM")?;
    figures.add("fanout of 100,000, most memory of the host", subject.name, Unit::Mebibytes, most);
    Ok(())
}

/// Measures the memory and processor of an idle host that has done a little of everything before.
fn idle(subject: &mut Subject, figures: &mut Figures) -> Result<()> {
    subject.restart()?;
    for graph in ["single", "chain", "store", "wide"] {
        closed(&subject.work(graph, &json!({})), 4, 20)?;
    }
    for number in 0..PLUGINS.0 {
        closed(&subject.work(&named(number), &json!({})), 1, 1)?;
    }
    let watch = Watch(subject.host.pid());
    sleep(SETTLES);
    let before = watch.cpu_seconds()?;
    sleep(IDLE);
    let used = (watch.cpu_seconds()? - before) / IDLE.as_secs_f64();
    figures.add("idle host with ten plugins", subject.name, Unit::Core, used * 100.0);
    let resident = mebibytes(subject, "VmRSS")?;
    figures.add("idle host with ten plugins", subject.name, Unit::Mebibytes, resident);
    Ok(())
}

fn mebibytes(subject: &Subject, what: &str) -> Result<f64> {
    Ok(Watch(subject.host.pid()).kilobytes(what)? as f64 / 1024.0)
}

/// Returns the name of such a plugin, and the graph that runs it.
fn named(number: usize) -> String {
    format!("tally{number}")
}

/// Uploads plugins that differ only in an unused number.
fn upload(subject: &Subject, numbers: Range<usize>) -> Result<()> {
    let plugin = component("tally")?;
    for number in numbers {
        good(subject.host.upload(&named(number), numbered(&plugin, number)?)?)?;
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
