//! Peers of Exosphere: Restate and DBOS, installed from their registries. They run the same shapes
//! of work, written the way their docs advise and as durable as Exosphere. A peer that cannot be
//! installed is left out, and the report says so.
//!
//! Not here: the programs of a peer, which are in `tests/bench/peers`; the same loads on the host,
//! which are in `loads`.

mod install;
mod process;
mod restate;
mod dbos;

use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result};
use exosphere_tests::postgres::Postgres;

use crate::results::{Results, Unit};
use dbos::Dbos;
use restate::Restate;

/// A run of [`BRANCHES`] steps in parallel and the sum of their results.
pub const FANOUT: &str = "fanout, beside peers";
/// [`CHAIN_RUNS`] concurrent runs, each of [`CHAIN_LENGTH`] steps.
pub const CHAINS: &str = "chains, beside peers";
/// [`SINGLE_RUNS`] runs of one step, by [`CLIENTS`] clients.
pub const SINGLES: &str = "one-state runs, 64 clients, beside peers";
/// [`LATENCY_RUNS`] runs of one step, one after the other.
pub const LATENCY: &str = "one-state run, idle, beside peers";

/// The sizes of the loads: small enough that the slowest peer ends each in some fifteen
/// seconds.
pub const BRANCHES: u64 = 2_000;
pub const CHAIN_RUNS: u64 = 100;
pub const CHAIN_LENGTH: u64 = 50;
pub const SINGLE_RUNS: u64 = 2_000;
pub const CLIENTS: u64 = 64;
pub const LATENCY_RUNS: u64 = 200;

/// The peers that could be installed.
pub struct Peers {
    restate: Option<Restate>,
    dbos: Option<Dbos>,
}

impl Peers {
    /// Installs missing peers in the folder, which is kept. Returns sentences on the version and
    /// settings of each, and on those that are left out and why.
    pub fn prepare(folder: &Path, postgres: &Postgres) -> (Peers, Vec<String>) {
        let mut notes = Vec::new();
        let restate = Restate::install(&folder.join("restate"));
        let restate = installed("Restate", restate, Restate::describe, &mut notes);
        // DBOS makes the databases that it is given by name.
        let dbos = Dbos::install(&folder.join("dbos"), postgres.url("peers_dbos"));
        let dbos = installed("DBOS", dbos, Dbos::describe, &mut notes);
        (Peers { restate, dbos }, notes)
    }

    /// Runs every shape once on every peer. Each peer is started and warmed up before its
    /// measurement, and stopped afterwards, so that it uses no resources during the others.
    /// Returns a sentence for each peer that failed, which is left out from then on.
    pub fn round(&mut self, number: u32, results: &mut Results) -> Vec<String> {
        let mut failed = Vec::new();
        let mut leave_out = |name: &str, cause: Error| {
            failed.push(format!(
                "{name} is left out from round {number} on, for it failed: {cause:#}."
            ));
        };
        if let Some(restate) = &self.restate
            && let Err(cause) = restate.round().map(|times| times.add_to("Restate", results))
        {
            leave_out("Restate", cause);
            self.restate = None;
        }
        if let Some(dbos) = &mut self.dbos
            && let Err(cause) = dbos.round(results)
        {
            leave_out("DBOS", cause);
            self.dbos = None;
        }
        failed
    }
}

/// Returns a peer if it is installed, and adds a sentence either way.
fn installed<P>(
    name: &str,
    peer: Result<P>,
    describe: impl Fn(&P) -> String,
    notes: &mut Vec<String>,
) -> Option<P> {
    notes.push(match &peer {
        Ok(peer) => describe(peer),
        Err(cause) => format!("{name} is left out, for it could not be installed: {cause:#}."),
    });
    peer.ok()
}

/// The times of the loads, in the sizes above.
struct Times {
    fanout: Duration,
    chains: Duration,
    singles: Duration,
    /// Latencies in milliseconds.
    latencies: Vec<f64>,
}

impl Times {
    /// Adds the results. A step counts as a state.
    fn add_to(mut self, subject: &str, results: &mut Results) {
        let rate = |count: u64, elapsed: Duration| count as f64 / elapsed.as_secs_f64();
        let (fanout, chains) =
            (rate(BRANCHES, self.fanout), rate(CHAIN_RUNS * CHAIN_LENGTH, self.chains));
        results.add(FANOUT, subject, Unit::StatesPerSecond, fanout);
        results.add(CHAINS, subject, Unit::StatesPerSecond, chains);
        let singles = rate(SINGLE_RUNS, self.singles);
        results.add(SINGLES, subject, Unit::RunsPerSecond, singles);
        results.add_latencies(LATENCY, subject, &mut self.latencies);
    }
}
