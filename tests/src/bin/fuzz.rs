//! `fuzz TARGET [--seconds N] [--seed N]` tries random inputs; `fuzz TARGET --input FILE` repeats
//! one. The targets are in `src/fuzz/`.

use anyhow::{Context, Result};
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage =
        || format!("fuzz {} [--seconds N] [--seed N] [--input FILE]", fuzz::TARGETS.join("|"));
    let target = arguments.next().with_context(usage)?;
    fuzz::command(&target, arguments)
}
