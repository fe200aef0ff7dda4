//! Tests of one host that run on both databases.
//!
//! Not here: several hosts on one Postgres (`cluster`).

use anyhow::{Context, Result};

use crate::postgres::Postgres;
use crate::{Host, check};

/// Runs a test on a host on SQLite and on one on Postgres, with further arguments, and then checks
/// all invariants. `name` names the database on Postgres.
///
/// # Errors
/// If the test fails on a database, or an invariant is violated there.
pub fn on_both(name: &str, arguments: &[&str], test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let url = Postgres::shared()?.create_database(name)?;
    for database in [None, Some(url.as_str())] {
        let folder = tempfile::tempdir()?;
        let of_database = database.map(|url| vec!["--database", url]).unwrap_or_default();
        let all = [arguments, &of_database].concat();
        let host = Host::start_with(folder.path(), &all, |_| ())?;
        test(&host).with_context(|| format!("on {}", database.unwrap_or("SQLite")))?;
        drop(host);
        match database {
            Some(url) => check(&["--database", url])?,
            None => check(&["--data", &folder.path().to_string_lossy()])?,
        }
    }
    Ok(())
}
