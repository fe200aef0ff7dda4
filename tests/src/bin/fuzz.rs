//! `fuzz TARGET [--seconds N] [--seed N]` tries inputs by chance; `fuzz TARGET
//! --input FILE` tries one again. The targets are in `src/fuzz/`.

use anyhow::{Context, Result};
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let usage =
        || format!("fuzz {} [--seconds N] [--seed N] [--input FILE]", fuzz::TARGETS.join("|"));
    let target = words.next().with_context(usage)?;
    fuzz::command(&target, words)
}
