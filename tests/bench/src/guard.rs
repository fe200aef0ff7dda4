//! A guard against becoming slow: the host's rates beside the yardsticks of the
//! same minute, with much room for noise, in whatever build this is. The database's
//! is by the store's own transactions: what makes those slower shows in a benchmark
//! alone. Not a benchmark.

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::closed::closed;
use crate::figures::Figures;
use crate::graphs::CHAIN;
use crate::loads::fanout;
use crate::subject::Subject;
use crate::yardsticks::database::Street;
use crate::yardsticks::sandbox::Loop;

/// Branches of the fanout, and chains.
const BRANCHES: u64 = 5_000;
const RUNS: u64 = 100;
/// States that one transaction ends, where the database is alone.
const BATCH: usize = 64;
/// The least part of the slower yardstick that the host must reach.
const LEAST: f64 = 0.1;
/// How often it is tried: another program may come in between.
const TRIES: u32 = 3;

/// Measures, and fails if the host is far below what it could do.
pub fn run(postgres: &Postgres) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sandbox = Loop::new(folder.path())?;
    let subjects = Subject::both(postgres, "guard")?;
    for (on_postgres, subject) in subjects.iter().enumerate() {
        let name = subject.name;
        let mut best: f64 = 0.0;
        for turn in 0..TRIES {
            let calls = sandbox.rates()?.last().context("no node")?.1;
            let street = match on_postgres {
                0 => Street::sqlite(folder.path())?,
                _ => Street::postgres(postgres.create_database(&format!("guard{turn}"))?)?,
            };
            let commits = street.rate(BATCH)?;
            let mut found = Figures::default();
            fanout(subject, "fanout", BRANCHES, "fanout", &mut found)?;
            let fanned = found.latest("fanout", name).context("no rate")?;
            let chains = closed(&subject.work("chain", &json!({})), RUNS, RUNS)?;
            let chained = chains.rate((RUNS * CHAIN) as f64);
            let part = fanned.min(chained) / calls.min(commits);
            println!(
                "{name}: fanout {fanned:.0} states/s, chains {chained:.0}; sandbox alone \
                 {calls:.0}, database alone {commits:.0}: {part:.2}"
            );
            best = best.max(part);
            if best >= LEAST {
                break;
            }
        }
        ensure!(
            best >= LEAST,
            "on {name} the host reaches {best:.2} of what the slower of sandbox and database can \
             do, and should reach {LEAST} at least: something on a state's way has become slow"
        );
    }
    println!("the host is as fast beside the yardsticks as it should be");
    Ok(())
}
