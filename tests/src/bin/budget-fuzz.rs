//! `budget-fuzz [--seconds N] [--seed N]` looks for unbounded work: work that a host does for
//! tenants outside of their limits. `budget-fuzz --input FILE` repeats one case. The cases are made
//! in `src/fuzz/budget/`.

use anyhow::Result;
use exosphere_tests::fuzz;

fn main() -> Result<()> {
    fuzz::command("budget", std::env::args().skip(1))
}
