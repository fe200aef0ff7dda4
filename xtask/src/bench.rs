//! `cargo xtask bench`: compiles everything as it is shipped and runs the
//! benchmarks, which print tables. The programs themselves are
//! `tests/src/bin/` and `host/store/benches/writer.rs`.

use anyhow::Result;

use crate::build;
use crate::clock::Clock;
use crate::command;
use crate::postgres;
use crate::project::Project;

/// Measures.
pub fn run(project: &Project) -> Result<()> {
    let mut clock = Clock::default();
    postgres::ensure()?;
    clock.step("plugins compiled", || build::plugins(project))?;
    clock.step("host compiled for release", || {
        let build = ["build", "--release", "-p", "exosphere", "-p", "exosphere-tests"];
        command::run(project.cargo().args(build))
    })?;
    println!();
    let writer = ["bench", "-p", "exosphere-store", "--bench", "writer"];
    command::run(project.cargo().args(writer))?;
    println!();
    for program in ["bench", "bench-hosts"] {
        let run = ["run", "--release", "-p", "exosphere-tests", "--bin", program];
        command::run(project.cargo().args(run))?;
        println!();
    }
    println!("\n{}", clock.summary());
    Ok(())
}
