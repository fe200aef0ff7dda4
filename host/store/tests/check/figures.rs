//! What a check costs. Not a test: run it by itself, for release.
//!
//! ```sh
//! cargo test --release -p exosphere-store --test check -- --ignored --nocapture figures
//! ```

use std::time::Instant;

use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::Want;

use crate::bed::{Bed, Kind, Place};
use crate::runs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and is no test"]
async fn figures() {
    let shapes = [
        ("100,000 states in one run", 1, 99_996),
        ("1,000,000 states in one run", 1, 999_996),
        ("1,000,000 states in 10,000 runs", 10_000, 96),
    ];
    for kind in [Kind::Sqlite, Kind::Postgres] {
        for (at, (words, runs, branches)) in shapes.into_iter().enumerate() {
            let place = Place::new(kind, &format!("figures{at}"));
            let mut bed = Bed::new(&place).await;
            for _ in 0..runs {
                run(&mut bed, &runs::fan(), branches).await;
            }
            bed.close().await;
            for _ in 0..2 {
                // Forget the most memory that was ever used.
                std::fs::write("/proc/self/clear_refs", "5").unwrap();
                let (before, from) = (memory("VmRSS"), Instant::now());
                let report = place.check().await;
                let (took, used) = (from.elapsed(), memory("VmHWM") - before);
                assert_eq!(report.violations, []);
                println!("{kind:?}, {words}: {took:.2?}, {} MB, {:?}", used / 1024, report.checked);
            }
            place.remove();
        }
    }
}

/// Each with a body of 100 bytes.
async fn run(bed: &mut Bed, sketch: &Sketch, branches: usize) {
    let run = bed.start("fan", sketch, &[]).await;
    let body = format!("{{\"v\":\"{}\"}}", "x".repeat(92));
    let all = branches.max(2_000);
    while !bed.held.is_empty() {
        let mut held = std::mem::take(&mut bed.held).into_iter().peekable();
        while held.peek().is_some() {
            let mut members = Vec::new();
            for state in held.by_ref().take(all.min(10_000)) {
                let count = if state.place.path.as_str() == "00" { branches } else { 1 };
                let outcome = Outcome::Outputs(vec![body.clone(); count]);
                members.push(bed.finished(&run, &state, outcome, Journal::default()).await);
            }
            bed.commit(members, Want::Births(2_000_000)).await;
        }
    }
}

/// Of this process, in KiB.
fn memory(what: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
