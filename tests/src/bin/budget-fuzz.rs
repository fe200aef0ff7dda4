//! `budget-fuzz [--seconds N] [--seed N]` searches for unbounded work: work that a host does for a
//! namespace outside its limits. `budget-fuzz --input FILE` repeats one case. The cases are made in
//! `src/fuzz/budget/`.

use anyhow::Result;
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    fuzz::command("budget", std::env::args().skip(1))
}
