//! `fuzz TARGET [--seconds N] [--seed N]` tries random inputs; `fuzz TARGET --input FILE` repeats
//! one. The targets are in `src/fuzz/`.

use anyhow::{Context, Result};
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let usage =
        || format!("fuzz {} [--seconds N] [--seed N] [--input FILE]", fuzz::TARGETS.join("|"));
    let target = words.next().with_context(usage)?;
    fuzz::command(&target, words)
}
