//! A guard against large slowdowns: the host's rates beside the yardsticks of the same minute, with
//! much room for noise, in any build. The database's yardstick uses the store's own transactions,
//! so a slowdown of those shows in a benchmark alone. Not a benchmark.

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::baselines::database::Street;
use crate::baselines::sandbox::Loop;
use crate::closed_loop::closed;
use crate::graphs::CHAIN;
use crate::loads::fanout;
use crate::results::Figures;
use crate::system_under_test::Subject;

/// Branches of the fanout, and chains.
const BRANCHES: u64 = 5_000;
const RUNS: u64 = 100;
/// States that one transaction ends in the database's yardstick.
const BATCH: usize = 64;
/// Minimum ratio of the host's rate to the slower yardstick.
const LEAST: f64 = 0.1;
/// Maximum of tries, since another program may interfere.
const TRIES: u32 = 3;

/// Measures the ratios, and fails if one is below the minimum.
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
