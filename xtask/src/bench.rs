//! `cargo xtask bench`: compiles everything as it is shipped and runs the
//! benchmark, which is `tests/bench`.

use anyhow::Result;

use crate::build;
use crate::clock::Clock;
use crate::command;
use crate::postgres;
use crate::project::Project;

/// Measures; what is measured is up to the arguments.
pub fn run(project: &Project, arguments: &[String]) -> Result<()> {
    let mut clock = Clock::default();
    postgres::ensure()?;
    clock.step("plugins compiled", || build::plugins(project))?;
    clock.step("host compiled for release", || {
        // Everything at once, so that the engine is compiled with the same
        // features by whatever comes next.
        command::run(project.cargo().args(["build", "--release", "--workspace", "--bins"]))
    })?;
    let bench = ["run", "--release", "--workspace", "--bin", "exosphere-bench", "--"];
    command::run(project.cargo().args(bench).args(arguments))
}
