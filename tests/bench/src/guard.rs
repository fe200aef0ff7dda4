//! A guard against large slowdowns: compares the host's rates with the baselines of the same
//! minute, with much room for noise, in any build. The baseline of the database uses the store's
//! own transactions, so that only the benchmark shows a slowdown of these.

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use serde_json::json;

use crate::baselines::database::StorePipeline;
use crate::baselines::sandbox::SandboxLoop;
use crate::closed_loop::closed;
use crate::graphs::CHAIN_LENGTH;
use crate::loads::fanout;
use crate::results::Results;
use crate::system_under_test::SystemUnderTest;

/// Number of branches of the fanout, and number of chains.
const FANOUT_BRANCHES: u64 = 5_000;
const CHAINS: u64 = 100;
/// Number of states that one transaction ends in the baseline of the database.
const BASELINE_BATCH: usize = 64;
/// Minimum ratio of the host's rate to the slower baseline.
const MIN_RATIO: f64 = 0.1;
/// Maximum number of tries, since another program may interfere.
const MAX_TRIES: u32 = 3;

/// Measures the ratios, and fails if one is below the minimum.
pub fn run(postgres: &Postgres) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let sandbox = SandboxLoop::new(folder.path())?;
    let systems = SystemUnderTest::both(postgres, "guard")?;
    for (on_postgres, system) in systems.iter().enumerate() {
        let name = system.name;
        let mut best: f64 = 0.0;
        for turn in 0..MAX_TRIES {
            let calls = sandbox.rates()?.last().context("no node")?.1;
            let pipeline = match on_postgres {
                0 => StorePipeline::sqlite(folder.path())?,
                _ => StorePipeline::postgres(postgres.create_database(&format!("guard{turn}"))?)?,
            };
            let commits = pipeline.rate(BASELINE_BATCH)?;
            let mut found = Results::default();
            fanout(system, "fanout", FANOUT_BRANCHES, "fanout", &mut found)?;
            let fanout_rate = found.latest("fanout", name).context("no rate")?;
            let chains = closed(&system.work("chain", &json!({})), CHAINS, CHAINS)?;
            let chained = chains.rate((CHAINS * CHAIN_LENGTH) as f64);
            let part = fanout_rate.min(chained) / calls.min(commits);
            println!(
                "{name}: fanout {fanout_rate:.0} states/s, chains {chained:.0}; sandbox alone \
                 {calls:.0}, database alone {commits:.0}: {part:.2}"
            );
            best = best.max(part);
            if best >= MIN_RATIO {
                break;
            }
        }
        ensure!(
            best >= MIN_RATIO,
            "on {name} the host reaches {best:.2} of the rate of the slower of sandbox and database \
             alone, and should reach {MIN_RATIO}: a part of the execution path has become slow"
        );
    }
    println!("the host is fast enough compared with the baselines");
    Ok(())
}
