//! `cargo xtask bench`: compiles the host and the benchmark, which is `tests/bench`,
//! in release mode, and runs it.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::clock::Clock;
use crate::command;
use crate::postgres;
use crate::project::Project;

/// The benchmark, and the host that it starts.
pub const PROGRAMS: [&str; 2] = ["exosphere-bench", "exosphere"];

/// Runs the benchmark with the given arguments.
pub fn run(project: &Project, arguments: &[String]) -> Result<()> {
    let mut clock = Clock::default();
    postgres::ensure()?;
    clock.step("plugins compiled", || build::plugins(project, &[]))?;
    let bench = clock
        .step("host compiled for release", || build::program(project, &PROGRAMS, &["--release"]))?;
    command::run(Command::new(bench).args(arguments).current_dir(project.at(".")))
}
