//! `budget-fuzz [--seconds N] [--seed N]` looks for work that a host does for
//! strangers outside of their limits; `budget-fuzz --input FILE` tries one case
//! again. The cases are made in `src/fuzz/budget/`.

use anyhow::Result;
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    fuzz::command("budget", std::env::args().skip(1))
}
