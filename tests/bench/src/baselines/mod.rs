//! The baselines of the machine: the disk, the sandbox and the database, each alone. A host cannot
//! be faster than the slowest of them.

pub mod database;
mod disk;
pub mod sandbox;

use std::cell::Cell;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use tempfile::TempDir;

use crate::graphs::{CHAIN_COUNT, CHAIN_LENGTH, CHAINS_NAME, FANOUT_SIZES, fanout_of};
use crate::results::{Results, Unit};
use database::StorePipeline;
use sandbox::SandboxLoop;

/// Numbers of states that one transaction ends in the baseline of the database.
const BATCHES: [usize; 3] = [16, 64, 256];

/// Number of states of the chains that one transaction ends: as many as a transaction of the
/// host (derived from its number of syncs).
const CHAINS_BATCH: usize = 60;
const RUST_NODE: &str = "a Rust node";

/// Returns the name of the baseline of a whole fanout, with the insertion of its branches and its
/// unite.
pub fn whole_fanout() -> String {
    format!("database alone, a whole {}", fanout_of(FANOUT_SIZES[1]))
}

/// Returns the name of the baseline that does the work of the chains.
pub fn chains() -> String {
    format!("database alone, {CHAINS_NAME}, {CHAINS_BATCH} states a transaction")
}

/// Returns the name of the database's baseline with `states` states in a transaction.
pub fn batch_of(states: usize) -> String {
    format!("database alone, {states} states a transaction")
}

/// Returns the possible rate by the results of this round: the lower of the sandbox's rate and the
/// database's. `database` names the load of the latter.
pub fn possible(results: &Results, subject: &str, database: &str) -> Option<f64> {
    let sandbox = results.latest(&sandbox_of(RUST_NODE), "two threads")?;
    Some(sandbox.min(results.latest(database, subject)?))
}

fn sandbox_of(node: &str) -> String {
    format!("sandbox alone, {node}")
}

/// The baselines.
pub struct Baselines<'a> {
    folder: TempDir,
    sandbox: SandboxLoop,
    postgres: &'a Postgres,
    /// The number of databases created so far.
    databases: Cell<u32>,
}

impl<'a> Baselines<'a> {
    pub fn new(postgres: &'a Postgres) -> Result<Baselines<'a>> {
        let folder = tempfile::tempdir()?;
        let sandbox = SandboxLoop::new(folder.path())?;
        Ok(Baselines { folder, sandbox, postgres, databases: Cell::new(0) })
    }

    /// Measures all baselines once.
    pub fn round(&self, results: &mut Results) -> Result<()> {
        let mut syncs = disk::syncs(self.folder.path())?;
        results.add_latencies("fsync of 4 KiB", "the disk", &mut syncs);
        for (node, rate) in self.sandbox.rates()? {
            results.add(&sandbox_of(node), "two threads", Unit::StatesPerSecond, rate);
        }
        for batch in BATCHES {
            let load = batch_of(batch);
            self.database(&load, results, |pipeline| pipeline.rate(batch))?;
        }
        self.database(&whole_fanout(), results, |pipeline| {
            pipeline.fanout(FANOUT_SIZES[1] as usize, BATCHES[2])
        })?;
        let (runs, length) = (CHAIN_COUNT as usize, CHAIN_LENGTH as usize);
        self.database(&chains(), results, |pipeline| pipeline.chains(runs, length, CHAINS_BATCH))
    }

    /// Creates a new database of each kind.
    fn database(
        &self,
        load: &str,
        results: &mut Results,
        rate: impl Fn(StorePipeline) -> Result<f64>,
    ) -> Result<()> {
        let sqlite = rate(StorePipeline::sqlite(self.folder.path())?)?;
        results.add(load, "SQLite", Unit::StatesPerSecond, sqlite);
        let number = self.databases.replace(self.databases.get() + 1);
        let url = self.postgres.create_database(&format!("baseline{number}"))?;
        let postgres = rate(StorePipeline::postgres(url)?)?;
        results.add(load, "Postgres", Unit::StatesPerSecond, postgres);
        Ok(())
    }
}
