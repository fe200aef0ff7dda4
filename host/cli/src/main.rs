//! The `exosphere` binary: a host (`serve`), and the client of one (the rest).
//!
//! Not here: what a host does. That is `exosphere-orchestrator` behind
//! `exosphere-api`; the client knows a host by its HTTP API alone.

mod args;
mod error;
mod clean;
mod show;
mod wire;
mod client;
mod output;
mod commands;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::commands::Session;
use crate::error::Error;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    match args.command {
        Command::Serve(serve) => serve::run(serve)?,
        Command::Plugin(command) => command.run(&Session::new(&args.global)?)?,
        Command::Graph(command) => command.run(&Session::new(&args.global)?)?,
        Command::Run(command) => command.run(&Session::new(&args.global)?)?,
    }
    Ok(())
}
