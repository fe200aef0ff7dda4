//! A few of the million hostile attempts (`src/bin/million.rs`): enough to show that each is a
//! typed failure and that honest runs go on beside them.

use anyhow::Result;
use exosphere_tests::soak;

#[test]
fn hostile_attempts_do_not_disturb_others() -> Result<()> {
    let report = soak::run(5_000)?;
    println!("{report}");
    report.verdict()
}
