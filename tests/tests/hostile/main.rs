//! The hostile corpus: every case of `tests/hostile`, one after the other on one
//! host. Each gets the answer that it says and nothing else; after each the
//! host is as it was.
//!
//! `CASE=part-of-a-name` does only those.

#![allow(clippy::unwrap_used, clippy::panic)]

mod case;
mod frame;
mod recipes;
mod watch;
mod report;
mod bed;

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use bed::Bed;

/// Text that is nested deep takes a stack to make.
const STACK: usize = 256 << 20;

#[test]
fn every_hostile_case_has_the_answer_that_it_says() -> Result<()> {
    let cases = std::thread::Builder::new().stack_size(STACK).spawn(every_case)?;
    cases.join().map_err(|_| anyhow!("a case made the test panic"))?
}

fn every_case() -> Result<()> {
    let only = std::env::var("CASE").unwrap_or_default();
    let bed = Bed::start()?;
    let begun = Instant::now();
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for case in case::all()?.iter().filter(|case| case.name.contains(&only)) {
        let done = bed.try_case(case).and_then(|row| bed.is_as_before().map(|()| row));
        match done {
            Ok(row) => {
                println!("{row}");
                rows.push(row);
            }
            Err(error) => {
                println!("{:<44} WRONG", case.name);
                wrong.push(format!("{}: {error:#}", case.name));
            }
        }
    }
    let peak = bed.watch.kilobytes("VmHWM")? / 1024;
    println!("{} cases in {:.0?}; the host had {peak} MB at most", rows.len(), begun.elapsed());
    ensure!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
