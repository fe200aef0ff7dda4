//! A short soak test (a long one: `src/bin/soak.rs`): each hostile attempt ends in a typed failure,
//! and honest runs continue.

use anyhow::Result;
use exosphere_tests::soak;

#[test]
fn hostile_attempts_do_not_disturb_others() -> Result<()> {
    let report = soak::run(5_000)?;
    println!("{report}");
    report.verdict()
}
