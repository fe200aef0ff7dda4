//! A short budget fuzz with a fixed seed (`src/fuzz/budget/`). A long one:
//! `cargo run -p exosphere-tests --bin budget-fuzz`.

use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::fuzz;

#[test]
fn random_tenant_work_stays_within_budget() -> Result<()> {
    let tried = fuzz::run("budget", 1, Duration::from_secs(25))?;
    println!("{tried:?}");
    // If each case were rejected, nothing would be tested.
    ensure!(tried.accepted > 0, "{tried:?}");
    Ok(())
}
