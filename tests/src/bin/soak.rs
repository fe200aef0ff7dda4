//! `soak [N]`: makes a million hostile attempts, or N, beside honest runs. Fails if an honest run
//! is lost or the host grows (`src/soak.rs`).

use anyhow::Result;
use exosphere_tests::soak;

fn main() -> Result<()> {
    let attempts = std::env::args().nth(1).map_or(Ok(1_000_000), |number| number.parse())?;
    let report = soak::run(attempts)?;
    println!("{report}");
    report.verdict()
}
