//! The benchmark that `cargo xtask bench` runs: the limits of the machine (baselines), the host's
//! rates (loads), the cost of history and plugins (growth), the pages of lists (lists), the host's
//! memory, idle cost and start time (resources), and other systems (peers). All run in interleaved
//! rounds, so that each result also has a ratio to a baseline of the same minute. The report is a
//! JSON and a Markdown file.
//!
//! Not here: a verdict, except for `--guard`. docs/reference/performance.md says what the figures
//! mean.

mod results;
mod report;
mod machine;
mod client;
mod closed_loop;
mod system_under_test;
mod graphs;
mod baselines;
mod loads;
mod open_loop;
mod table_growth;
mod list_pages;
mod resources;
mod observers;
mod guard;
mod build_comparison;
mod peers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
// The baselines use the same allocator as the host.
use exosphere_allocator as _;
use exosphere_tests::postgres::Postgres;

use report::Report;
use results::Results;

/// Measure Exosphere beside the limits of the machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
#[command(after_help = "\
Examples:
  cargo xtask bench                          everything but the peers (30 minutes)
  cargo xtask bench --only loads --rounds 1  a first look (four minutes)
  cargo xtask bench --only loads --peers     beside Restate and DBOS
  cargo xtask bench --baseline old/exosphere beside an earlier build (a minute a round)

Nothing else should run on the machine meanwhile. Results go to the terminal and,
with all values of all rounds, to target/bench/.")]
struct Arguments {
    /// Measure only these parts
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Number of counted rounds; one more goes before them
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measure Restate and DBOS, too: they are installed from their registries
    #[arg(long)]
    peers: bool,
    /// Maximum number of finished states in the database, for growth
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    history: u64,
    /// Number of runs, and of states of one run, for lists
    #[arg(long, default_value_t = 1_000_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    listed: u64,
    /// The folder for the report
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    out: PathBuf,
    /// Only compare a short load with the machine's baselines, and fail if the host has become much
    /// slower than these
    #[arg(long, conflicts_with_all = ["only", "peers"])]
    guard: bool,
    /// Compare the three main loads with those of another build of the host, in turn, and print the
    /// ratios
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["only", "peers", "guard"])]
    baseline: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The baselines of the machine, and the loads on the host
    Loads,
    /// The cost of finished states and plugins
    Growth,
    /// The pages of lists by each filter
    Lists,
    /// Memory, idle hosts, starts
    Resources,
    /// A fanout with readers of its live view, a scraper of metrics, a collector of traces
    Observers,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let postgres = Postgres::start()?;
    if arguments.guard {
        return guard::run(&postgres);
    }
    if let Some(binary) = &arguments.baseline {
        return build_comparison::run(&postgres, binary, arguments.rounds);
    }
    let is_selected = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let (mut results, mut notes) = (Results::default(), Vec::new());
    if is_selected(Part::Loads) {
        let peers = arguments.peers.then(|| {
            let (peers, remarks) = peers::Peers::prepare(&arguments.out.join("peers"), &postgres);
            notes.extend(remarks);
            peers
        });
        loads::run(&postgres, peers, arguments.rounds, &mut notes, &mut results)?;
    }
    if is_selected(Part::Growth) {
        table_growth::run(&postgres, arguments.history, arguments.rounds, &mut results)?;
    }
    if is_selected(Part::Lists) {
        list_pages::run(&postgres, arguments.listed, &mut results)?;
    }
    if is_selected(Part::Resources) {
        resources::run(&postgres, arguments.rounds, &mut results)?;
    }
    if is_selected(Part::Observers) {
        observers::run(&postgres, arguments.rounds, &mut results)?;
    }
    Report::new(machine::describe(&postgres)?, arguments.rounds, notes, results)
        .write(&arguments.out)
}
