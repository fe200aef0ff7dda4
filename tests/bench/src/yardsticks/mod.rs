//! What the machine could do: the disk alone, the sandbox alone, the database
//! alone. A host can be no faster than the slowest of these.

pub mod database;
mod disk;
pub mod sandbox;

use std::cell::Cell;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use tempfile::TempDir;

use crate::figures::{Figures, Unit};
use crate::graphs::{CHAIN, CHAINS, CHAINS_OF, FANOUTS, fanout_of};
use database::Street;
use sandbox::Loop;

/// How many states one transaction ends, where the database is alone.
const BATCHES: [usize; 3] = [16, 64, 256];

/// As many of the chains' states as a transaction of the host ends (its syncs
/// counted).
const CHAINS_BATCH: usize = 60;
const RUST_NODE: &str = "a Rust node";

/// The name of the yardstick that has the births of a fanout in it, and its unite.
pub fn whole() -> String {
    format!("database alone, a whole {}", fanout_of(FANOUTS[1]))
}

/// The name of the yardstick that does what the chains do.
pub fn chains() -> String {
    format!("database alone, {CHAINS_OF}, {CHAINS_BATCH} states a transaction")
}

/// The name of the database's yardstick with so many states in a transaction.
pub fn batch_of(states: usize) -> String {
    format!("database alone, {states} states a transaction")
}

/// What is possible by the figures of this round: the lower of the sandbox's rate
/// alone and of that of the database, which does what `database` names.
pub fn possible(figures: &Figures, subject: &str, database: &str) -> Option<f64> {
    let sandbox = figures.latest(&sandbox_of(RUST_NODE), "two threads")?;
    Some(sandbox.min(figures.latest(database, subject)?))
}

fn sandbox_of(node: &str) -> String {
    format!("sandbox alone, {node}")
}

/// Everything that is needed to measure them.
pub struct Yardsticks<'a> {
    folder: TempDir,
    sandbox: Loop,
    postgres: &'a Postgres,
    /// How many databases there have been.
    databases: Cell<u32>,
}

impl<'a> Yardsticks<'a> {
    pub fn new(postgres: &'a Postgres) -> Result<Yardsticks<'a>> {
        let folder = tempfile::tempdir()?;
        let sandbox = Loop::new(folder.path())?;
        Ok(Yardsticks { folder, sandbox, postgres, databases: Cell::new(0) })
    }

    /// Measures all of them once.
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

    /// A new database of each kind.
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
