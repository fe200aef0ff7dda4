//! The hostile corpus: every case of `tests/hostile`, one after the other on one
//! host. Each gets the answer that it says and nothing else; after each the
//! host is as it was.
//!
//! `CASE=part-of-a-name` does only those.

#![allow(clippy::unwrap_used, clippy::panic)]

mod case;
mod recipes;
mod report;
mod origin;
mod bed;
mod isolation;
mod stop;
mod trial;

use std::time::Instant;

use anyhow::{Result, anyhow};

use bed::Bed;
use case::Expect;
use report::Table;

/// Text that is nested deep takes a stack to make.
const STACK: usize = 256 << 20;

#[test]
fn every_hostile_case_has_the_answer_that_it_says() -> Result<()> {
    let cases = std::thread::Builder::new().stack_size(STACK).spawn(every_case)?;
    cases.join().map_err(|_| anyhow!("a case made the test panic"))?
}

fn every_case() -> Result<()> {
    let only = std::env::var("CASE").unwrap_or_default();
    let begun = Instant::now();
    let bed = Bed::start()?;
    let mut table = Table::default();
    let mut cases = case::all(&bed.origin.address().to_string())?;
    cases.retain(|case| case.name.contains(&only));
    let mut trials = Vec::new();
    for case in &cases {
        if let Expect::Trial(trial) = &case.said.expect {
            trials.push((case, trial));
            continue;
        }
        let done = bed.try_case(case).and_then(|row| bed.is_as_before().map(|()| row));
        table.add(&case.name, done);
    }
    let peak = bed.watch.kilobytes("VmHWM")? / 1024;
    for (name, test) in isolation::CASES.iter().filter(|case| case.0.contains(&only)) {
        table.add(name, isolation::row(name, *test));
    }
    if only.is_empty() || stop::is_one_of(&only) {
        for (name, row) in stop::rows()? {
            table.add(name, row);
        }
    }
    // After all that is on the first host, whose rest would disturb them.
    drop(bed);
    for (case, trial) in trials {
        table.add(&case.name, trial::row(case, trial));
    }
    println!("in {:.0?}; the host of most of them had {peak} MB at most", begun.elapsed());
    table.verdict()
}
