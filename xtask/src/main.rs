//! Tasks for developers: `cargo xtask demo`, `cargo xtask test`, and so on.
//!
//! Not here: anything that a host needs. This program builds and starts the other
//! programs, and uses a host only through the `exosphere` command, as a person would.

mod project;
mod command;
mod clock;
mod toolchain;
mod build;
mod postgres;
mod demo;
mod tidy;
mod docs;
mod schemathesis;
mod promtool;
mod test;
mod bench;
mod audit;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;

/// Build, try and test Exosphere
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Get a Rust that compiles for wasm32-wasip2 (the others do it by themselves)
    Setup {
        /// Do not use rustup's target: build one from Debian's packages
        #[arg(long)]
        no_rustup: bool,
    },
    /// Compile the example plugins to components
    Plugins,
    /// Count the words of a text on a host of its own, from source to result
    Demo {
        /// A text of up to 16 MiB [default: ARCHITECTURE.md]
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Check the format, the lints and every test
    ///
    /// With a filter, only the tests whose name contains it are run, and
    /// nothing else is checked.
    Test {
        /// A part of the names of the tests to run
        filter: Option<String>,
        /// Do without schemathesis, which needs Python 3 and a package index
        #[arg(long)]
        without_schemathesis: bool,
        /// Do without promtool, which needs Debian's packages
        #[arg(long)]
        without_promtool: bool,
    },
    /// Test the API against its OpenAPI document with random requests
    Schemathesis {
        /// The time on each of the two databases, in seconds
        #[arg(long, default_value_t = 300)]
        seconds: u64,
    },
    /// Get promtool, with which tests check metrics and alert rules
    Promtool,
    /// Check sources and documents against the rules that no lint knows
    Tidy,
    /// Write the reference of the command line and of the HTTP API
    Docs,
    /// Measure a release build of the host beside what the machine could do
    ///
    /// All arguments go to the benchmark: `cargo xtask bench --help` lists them.
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check the licences, the sources and the known faults of the dependencies
    ///
    /// The exit status is 3 if all is well but the database of known faults could
    /// not be reached.
    Audit {
        /// Accept that the database of known faults cannot be reached
        #[arg(long)]
        allow_unreachable: bool,
    },
}

/// The exit status of an audit that could not look up known faults.
const FAULTS_UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    match run(Args::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let project = Project::find()?;
    let done = match task {
        Task::Setup { no_rustup } => toolchain::setup(&project, !no_rustup).map(drop),
        Task::Plugins => build::plugins(&project, &[]).map(drop),
        Task::Demo { file } => demo::run(&project, file),
        Task::Test { filter, without_schemathesis, without_promtool } => {
            let tools =
                test::Tools { schemathesis: !without_schemathesis, promtool: !without_promtool };
            test::run(&project, filter.as_deref(), tools)
        }
        Task::Promtool => promtool::installed(&project).map(drop),
        Task::Schemathesis { seconds } => schemathesis::run(&project, seconds),
        Task::Tidy => tidy::run(&project),
        Task::Docs => docs::write(&project),
        Task::Bench { arguments } => bench::run(&project, &arguments),
        Task::Audit { allow_unreachable } => {
            let faults = audit::run(&project)?;
            let is_unknown = faults == audit::Faults::Unknown && !allow_unreachable;
            return Ok(if is_unknown { ExitCode::from(FAULTS_UNKNOWN) } else { ExitCode::SUCCESS });
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
