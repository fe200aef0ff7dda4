//! The `exosphere` binary: a host (`serve`), commands on its database (`check`, `secrets`), and
//! the client of a host (the rest).
//!
//! The modules are declared in this order: the command line and the output of every command;
//! the client and its commands, one file each; the host; the commands on its database.
//!
//! Not here: the implementation of a host. That is `exosphere-orchestrator`, called by
//! `exosphere-api`; the client uses only the HTTP API of a host.

mod args;
mod absence;
mod error;
mod events;
mod no_answer;
mod output;
mod sanitize;
mod format;
mod again;
mod progress;
mod time;
mod chart;
mod traces;
mod client;
mod commands;
mod credentials;
mod hardening;
mod log;
mod admission;
mod connections;
mod exposure;
mod serve;
mod database;
mod check;
mod secrets;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::commands::Context;
use crate::error::Error;
use crate::hardening::MasterKey;
use crate::output::Output;

/// The first word of the command line of a compiling process.
const COMPILE: &str = "compile";

fn main() -> ExitCode {
    disable_engine_backtraces();
    hardening::remove_empty_variables();
    let master_key = hardening::take_master_key();
    // Not a command for people: a host starts it with the limits of the compiling process.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == COMPILE) && words.len() > 0 {
        return exosphere_orchestrator::compile(words);
    }
    let args = Args::parse();
    match run(args, master_key) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args, master_key: Option<MasterKey>) -> Result<(), Error> {
    match args.command {
        Command::Serve(serve) => serve::run(serve, master_key)?,
        Command::Check(check) => check::run(check, Output::new(args.global.json))?,
        Command::Openapi => Output::new(true).report(&exosphere_api::openapi_document(), "")?,
        Command::Secrets(command) => {
            secrets::run(command, master_key, Output::new(args.global.json))?;
        }
        Command::Plugin(command) => command.run(&Context::new(&args.global)?)?,
        Command::Graph(command) => command.run(&Context::new(&args.global)?)?,
        Command::Secret(command) => command.run(&Context::new(&args.global)?)?,
        Command::Grant(command) => command.run(&Context::new(&args.global)?)?,
        Command::Key(command) => command.run(&Context::new(&args.global)?)?,
        Command::Quota(command) => command.run(&Context::new(&args.global)?)?,
        Command::Audit(command) => command.run(&Context::new(&args.global)?)?,
        Command::Host(command) => command.run(&Context::new(&args.global)?)?,
        Command::Namespace(command) => command.run(&Context::new(&args.global)?)?,
        Command::Run(command) => command.run(&Context::new(&args.global)?)?,
        Command::Bulk(command) => command.run(&Context::new(&args.global)?)?,
    }
    Ok(())
}

/// Disables the backtraces of the engine's errors, which it captures if the environment
/// enables backtraces: each takes 8 microseconds and a lock for a guest that fails. Panics
/// keep theirs.
fn disable_engine_backtraces() {
    // SAFETY: nothing else runs yet that could read the environment.
    #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
    unsafe {
        std::env::set_var("RUST_LIB_BACKTRACE", "0");
    }
}
