//! A short and constant piece of the budgeted fuzz (`src/fuzz/budget/`). The long one is
//! `cargo run -p exosphere-tests --bin budget-fuzz`.

use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::fuzz;

#[test]
fn random_tenant_work_stays_within_budget() -> Result<()> {
    let tried = fuzz::run("budget", 1, Duration::from_secs(25))?;
    println!("{tried:?}");
    // A target whose every case is refused tests nothing.
    ensure!(tried.accepted > 0, "{tried:?}");
    Ok(())
}
