//! Differential test: the same random operations on both databases. Their answers are compared at
//! each step, and all rows every 250 operations.
//!
//! The operations follow from a seed, which a failure prints:
//! `SEED=.. cargo test -p exosphere-store --test conformance differential`
//! repeats it, and `OPERATIONS=..` makes it longer or shorter.
//!
//! Not here: the right answers. If both are wrong in the same way, the other cases and the check at
//! the end must find it.

mod database_pair;
mod outcomes;
mod random_ops;

use std::time::Instant;

use database_pair::DatabasePair;
use random_ops::RandomOps;

/// Number of operations of a test, without `OPERATIONS` in the environment.
const OPERATIONS: usize = 2_000;

/// Number of operations between two comparisons of all rows.
const COMPARE_INTERVAL: usize = 250;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_ops_agree_on_both_databases() {
    history(from_environment("SEED").unwrap_or(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_random_ops_agree_on_both_databases() {
    // A given seed is used as it is.
    if from_environment("SEED").is_none() {
        history(2).await;
    }
}

async fn history(seed: u64) {
    let operations = from_environment("OPERATIONS").map_or(OPERATIONS, |number| number as usize);
    // Shown if the test fails.
    println!("SEED={seed} OPERATIONS={operations}");
    let started = Instant::now();
    let mut ops = RandomOps::new(DatabasePair::new().await, seed).await;
    let mut next_comparison = COMPARE_INTERVAL;
    while ops.operations < operations {
        ops.step().await;
        if ops.operations >= next_comparison {
            ops.databases.compare().await;
            next_comparison += COMPARE_INTERVAL;
        }
    }
    ops.databases.compare().await;
    ops.databases.check().await;
    println!("{} in {:?}", ops.answer_counts(), started.elapsed());
}
