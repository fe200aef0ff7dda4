//! The hostile corpus: each case of `tests/hostile`, one after the other on one host. Each gets
//! exactly the answer of its file, and leaves the host unchanged.
//!
//! `CASE=part-of-a-name` selects cases.

#![allow(clippy::unwrap_used, clippy::panic)]

mod case;
mod generated_uploads;
mod report;
mod http_server;
mod harness;
mod isolation;
mod cancellation;
mod trial;

use std::time::Instant;

use anyhow::{Result, anyhow};
use exosphere_tests::honest_traffic;

use case::{Case, Expect};
use harness::Harness;
use report::Table;

/// Building deeply nested text needs a large stack.
const STACK_BYTES: usize = 256 << 20;

#[test]
fn every_hostile_case_gets_its_answer() -> Result<()> {
    with_a_large_stack(every_case)
}

#[test]
fn every_trial_leaves_honest_runs_alone() -> Result<()> {
    with_a_large_stack(every_trial)
}

fn with_a_large_stack(test: fn() -> Result<()>) -> Result<()> {
    // Both tests measure times.
    let _alone = honest_traffic::alone();
    let cases = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(test)?;
    cases.join().map_err(|_| anyhow!("a case made the test panic"))?
}

/// Returns the selected cases that are trials, or that are not.
fn cases(origin: &str, trials: bool) -> Result<Vec<Case>> {
    let filter = std::env::var("CASE").unwrap_or_default();
    let mut cases = case::all(origin)?;
    cases.retain(|case| {
        case.name.contains(&filter) && matches!(case.file.expect, Expect::Trial(_)) == trials
    });
    Ok(cases)
}

fn every_case() -> Result<()> {
    let filter = std::env::var("CASE").unwrap_or_default();
    let started = Instant::now();
    let harness = Harness::start()?;
    let mut table = Table::default();
    for case in cases(&harness.origin.address().to_string(), false)? {
        let done = harness.try_case(&case).and_then(|row| harness.ensure_unchanged().map(|()| row));
        table.add(&case.name, done);
    }
    let peak = harness.stats.memory_kb("VmHWM")? / 1024;
    for (name, test) in isolation::CASES.iter().filter(|case| case.0.contains(&filter)) {
        table.add(name, isolation::row(name, *test));
    }
    if filter.is_empty() || cancellation::is_one_of(&filter) {
        for (name, row) in cancellation::rows()? {
            table.add(name, row);
        }
    }
    println!("in {:.0?}; maximum memory of the shared host: {peak} MB", started.elapsed());
    table.verdict()
}

fn every_trial() -> Result<()> {
    let started = Instant::now();
    let mut table = Table::default();
    // No trial calls the HTTP server.
    for case in cases("127.0.0.1:9", true)? {
        if let Expect::Trial(trial) = &case.file.expect {
            table.add(&case.name, trial::row(&case, trial));
        }
    }
    println!("trials in {:.0?}", started.elapsed());
    table.verdict()
}
