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
use database::Street;
use sandbox::Loop;

/// How many states one transaction ends, where the database is alone.
const BATCHES: [usize; 3] = [16, 64, 256];

/// The name of the yardstick that has the births of a fanout in it, and its unite.
pub const WHOLE: &str = "database alone, a whole fanout of 20,000";
/// The name of the yardstick that does what the chains do, so many at a time as the
/// host does of them (its syncs counted).
pub const CHAINS_ALONE: &str = "database alone, 200 chains of 50, 75 states a transaction";
/// How many, how long, and how many states a transaction ends.
const CHAINS: (usize, usize, usize) = (200, 50, 75);
const RUST_NODE: &str = "a Rust node";

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
        self.database(WHOLE, figures, |street| street.fanout(20_000, BATCHES[2]))?;
        let (chains, length, batch) = CHAINS;
        self.database(CHAINS_ALONE, figures, |street| street.chains(chains, length, batch))
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
