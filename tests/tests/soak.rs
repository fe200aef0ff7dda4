//! A few of the million hostile attempts (`src/bin/million.rs`): enough to show that each is a
//! typed failure and that honest runs go on beside them.

use anyhow::Result;
use exosphere_tests::soak;

#[test]
fn thousands_of_hostile_attempts_disturb_nobody() -> Result<()> {
    let report = soak::run(5_000)?;
    println!("{report}");
    report.verdict()
}
