//! What the machine could do: the disk alone, the sandbox alone, the database
//! alone. A host can be no faster than the slowest of these.

pub mod database;
mod disk;
pub mod sandbox;

use anyhow::Result;
use exosphere_tests::postgres::Postgres;
use tempfile::TempDir;

use crate::figures::{Figures, Unit};
use database::Street;
use sandbox::Loop;

/// How many states one transaction ends, where the database is alone.
const BATCHES: [usize; 3] = [16, 64, 256];

/// Everything that is needed to measure them.
pub struct Yardsticks<'a> {
    folder: TempDir,
    sandbox: Loop,
    postgres: &'a Postgres,
    turn: std::cell::Cell<u32>,
}

impl<'a> Yardsticks<'a> {
    pub fn new(postgres: &'a Postgres) -> Result<Yardsticks<'a>> {
        let folder = tempfile::tempdir()?;
        let sandbox = Loop::new(folder.path())?;
        Ok(Yardsticks { folder, sandbox, postgres, turn: std::cell::Cell::new(0) })
    }

    /// Measures all of them once.
    pub fn round(&self, figures: &mut Figures) -> Result<()> {
        let turn = self.turn.replace(self.turn.get() + 1);
        let mut syncs = disk::syncs(self.folder.path())?;
        figures.add_latencies("fsync of 4 KiB", "the disk", &mut syncs);
        for (node, rate) in self.sandbox.rates()? {
            let load = format!("sandbox alone, {node}");
            figures.add(&load, "two threads", Unit::StatesPerSecond, rate);
        }
        for batch in BATCHES {
            let load = format!("database alone, {batch} states a transaction");
            let sqlite = tempfile::tempdir_in(self.folder.path())?;
            let rate = Street::sqlite(sqlite.path())?.rate(batch)?;
            figures.add(&load, "SQLite", Unit::StatesPerSecond, rate);
            let url = self.postgres.create_database(&format!("yardstick{turn}x{batch}"))?;
            let rate = Street::postgres(url)?.rate(batch)?;
            figures.add(&load, "Postgres", Unit::StatesPerSecond, rate);
        }
        Ok(())
    }
}
