//! The yardsticks of the machine: the disk alone, the sandbox alone, the database alone. A host can
//! be no faster than the slowest of these.

pub mod database;
mod disk;
pub mod sandbox;

use std::cell::Cell;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use tempfile::TempDir;

use crate::graphs::{CHAIN, CHAINS, CHAINS_OF, FANOUTS, fanout_of};
use crate::results::{Figures, Unit};
use database::Street;
use sandbox::Loop;

/// States that one transaction ends in the database's yardstick.
const BATCHES: [usize; 3] = [16, 64, 256];

/// As many states of the chains as a transaction of the host ends (derived from its number of
/// syncs).
const CHAINS_BATCH: usize = 60;
const RUST_NODE: &str = "a Rust node";

/// Returns the name of the yardstick that includes the births of a fanout, and its unite.
pub fn whole() -> String {
    format!("database alone, a whole {}", fanout_of(FANOUTS[1]))
}

/// Returns the name of the yardstick that does the work of the chains.
pub fn chains() -> String {
    format!("database alone, {CHAINS_OF}, {CHAINS_BATCH} states a transaction")
}

/// Returns the name of the database's yardstick with `states` states in a transaction.
pub fn batch_of(states: usize) -> String {
    format!("database alone, {states} states a transaction")
}

/// Returns the possible rate by the figures of this round: the lower of the sandbox's rate and the
/// database's. `database` names the load of the latter.
pub fn possible(figures: &Figures, subject: &str, database: &str) -> Option<f64> {
    let sandbox = figures.latest(&sandbox_of(RUST_NODE), "two threads")?;
    Some(sandbox.min(figures.latest(database, subject)?))
}

fn sandbox_of(node: &str) -> String {
    format!("sandbox alone, {node}")
}

/// Everything that the yardsticks need.
pub struct Yardsticks<'a> {
    folder: TempDir,
    sandbox: Loop,
    postgres: &'a Postgres,
    /// Databases made so far.
    databases: Cell<u32>,
}

impl<'a> Yardsticks<'a> {
    pub fn new(postgres: &'a Postgres) -> Result<Yardsticks<'a>> {
        let folder = tempfile::tempdir()?;
        let sandbox = Loop::new(folder.path())?;
        Ok(Yardsticks { folder, sandbox, postgres, databases: Cell::new(0) })
    }

    /// Measures all yardsticks once.
    pub fn round(&self, figures: &mut Figures) -> Result<()> {
        let mut syncs = disk::syncs(self.folder.path())?;
        figures.add_latencies("fsync of 4 KiB", "the disk", &mut syncs);
        for (node, rate) in self.sandbox.rates()? {
            figures.add(&sandbox_of(node), "two threads", Unit::StatesPerSecond, rate);
        }
        for batch in BATCHES {
            let load = batch_of(batch);
            self.database(&load, figures, |street| street.rate(batch))?;
        }
        self.database(&whole(), figures, |street| street.fanout(FANOUTS[1] as usize, BATCHES[2]))?;
        let (runs, length) = (CHAINS as usize, CHAIN as usize);
        self.database(&chains(), figures, |street| street.chains(runs, length, CHAINS_BATCH))
    }

    /// Creates a new database of each kind.
    fn database(
        &self,
        load: &str,
        figures: &mut Figures,
        rate: impl Fn(Street) -> Result<f64>,
    ) -> Result<()> {
        let sqlite = rate(Street::sqlite(self.folder.path())?)?;
        figures.add(load, "SQLite", Unit::StatesPerSecond, sqlite);
        let number = self.databases.replace(self.databases.get() + 1);
        let url = self.postgres.create_database(&format!("yardstick{number}"))?;
        let postgres = rate(Street::postgres(url)?)?;
        figures.add(load, "Postgres", Unit::StatesPerSecond, postgres);
        Ok(())
    }
}
