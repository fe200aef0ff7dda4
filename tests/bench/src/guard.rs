//! A guard against becoming slow: the host's rate beside the yardsticks of the
//! same minute, with much room for noise, in whatever build this is. Not a
//! benchmark.

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;

use crate::figures::Figures;
use crate::loads::fanout;
use crate::subject::Subject;
use crate::yardsticks::database::Street;
use crate::yardsticks::sandbox::Loop;

/// Branches of the fanout.
const BRANCHES: u64 = 5_000;
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
            let rate = found.latest("fanout", name).context("no rate")?;
            let part = rate / calls.min(commits);
            println!(
                "{name}: {rate:.0} states/s; sandbox alone {calls:.0}, database alone {commits:.0}: {part:.2}"
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
