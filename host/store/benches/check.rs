//! The cost of a check, on both databases: `cargo bench -p exosphere-store --bench
//! check`, which takes minutes. docs/guides/check.md has the figures.

#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/check/harness.rs"]
mod harness;
#[path = "../tests/check/runs.rs"]
mod runs;

use std::process::Command;
use std::time::Instant;

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{ClaimMode, Database, check};

use crate::harness::{Harness, Kind, TestDatabase};

#[tokio::main(worker_threads = 2)]
async fn main() {
    match std::env::var(DATABASE) {
        Ok(database) => one_check(database).await,
        Err(_) => figures().await,
    }
}

async fn figures() {
    let shapes = [
        ("100,000 states in one run", 1, 99_996),
        ("1,000,000 states in one run", 1, 999_996),
        ("1,000,000 states in 10,000 runs", 10_000, 96),
    ];
    for kind in [Kind::Sqlite, Kind::Postgres] {
        for (at, (shape, runs, branches)) in shapes.into_iter().enumerate() {
            let database = TestDatabase::new(kind, &format!("figures{at}"));
            let mut harness = Harness::new(&database).await;
            for _ in 0..runs {
                run(&mut harness, &runs::fan(), branches).await;
            }
            harness.close().await;
            // By itself, so that nothing but the check uses memory.
            for _ in 0..2 {
                println!("{kind:?}, {shape}: {}", alone(&database));
            }
        }
    }
}

/// Names the database to a process that only checks it.
const DATABASE: &str = "EXOSPHERE_FIGURES";

/// Checks a database in a process of its own.
fn alone(database: &TestDatabase) -> String {
    let database = match &database.location {
        Database::Sqlite(file) => file.display().to_string(),
        Database::Postgres(url) => url.clone(),
    };
    let mut check = Command::new(std::env::current_exe().unwrap());
    let output = check.env(DATABASE, database).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn one_check(database: String) {
    let database = match database.starts_with("postgres:") {
        true => Database::Postgres(database),
        false => Database::Sqlite(database.into()),
    };
    let from = Instant::now();
    let report = check(&database).await.unwrap();
    let elapsed = from.elapsed();
    assert_eq!(report.violations, []);
    println!("{elapsed:.2?}, {} MB, {:?}", memory("VmHWM") / 1024, report.checked);
}

/// Executes a run whose outputs have a body of 100 bytes each.
async fn run(harness: &mut Harness, builder: &GraphBuilder, branches: usize) {
    let run = harness.start("fan", builder, &[]).await;
    let body = format!("{{\"v\":\"{}\"}}", "x".repeat(92));
    let all = branches.max(2_000);
    while !harness.held.is_empty() {
        let mut held = std::mem::take(&mut harness.held).into_iter().peekable();
        while held.peek().is_some() {
            let mut members = Vec::new();
            for state in held.by_ref().take(all.min(10_000)) {
                let count = if state.place.path.as_str() == "00" { branches } else { 1 };
                let outcome = Outcome::Outputs(vec![body.clone(); count]);
                members.push(harness.finish(&run, &state, outcome, Journal::default()).await);
            }
            harness.commit(members, ClaimMode::NewOnly(2_000_000)).await;
        }
    }
}

/// Returns a memory figure of this process, in KiB.
fn memory(field: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
