//! An open loop: runs start when they are due, even if earlier ones are still running, as in real
//! traffic. A latency counts from the due time, so that a stalled host is charged for each run that
//! had to wait (no coordinated omission).

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::Connection;
use crate::closed_loop::{Work, succeed};
use crate::results::Results;
use crate::system_under_test::SystemUnderTest;

/// Percentages of the highest rate.
const RATE_PERCENTS: [u32; 3] = [25, 50, 75];
/// Duration of the measurement at each rate.
const TIME_PER_RATE: Duration = Duration::from_secs(6);
/// Maximum number of connections. A run that finds none free waits for one, and the wait
/// counts.
const MAX_CONNECTIONS: usize = 256;

/// Measures latencies at percentages of the rate that 64 clients reached.
pub fn run(system: &SystemUnderTest, max_rate: f64, results: &mut Results) -> Result<()> {
    for percent in RATE_PERCENTS {
        let rate = max_rate * f64::from(percent) / 100.0;
        let mut latencies = at_rate(&system.work("single", &json!({})), rate)?;
        let load = format!("open loop at {percent} % of the highest rate");
        results.add_latencies(&load, system.name, &mut latencies);
    }
    Ok(())
}

fn at_rate(work: &Work, rate: f64) -> Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (returned, mut free) = mpsc::channel(MAX_CONNECTIONS);
        for _ in 0..MAX_CONNECTIONS {
            returned.send(Connection::open(&work.url, &work.authorization).await?).await?;
        }
        let (started, mut tasks) = (Instant::now(), Vec::new());
        for due in arrivals(rate) {
            tokio::time::sleep_until((started + due).into()).await;
            let Some(mut connection) = free.recv().await else { break };
            let (work, returned) = (work.clone(), returned.clone());
            tasks.push(tokio::spawn(async move {
                succeed(&mut connection, &work.path, work.body).await?;
                let latency = (started.elapsed() - due).as_secs_f64() * 1000.0;
                let _ = returned.send(connection).await;
                anyhow::Ok(latency)
            }));
        }
        let mut latencies = Vec::with_capacity(tasks.len());
        for task in tasks {
            latencies.push(task.await??);
        }
        Ok(latencies)
    })
}

/// Returns the times at which runs are due: arrivals of independent clients (a Poisson process),
/// the same in each measurement.
fn arrivals(rate: f64) -> impl Iterator<Item = Duration> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut at = 0.0;
    std::iter::from_fn(move || {
        let uniform: f64 = random.random();
        at -= (1.0 - uniform).ln() / rate;
        (at < TIME_PER_RATE.as_secs_f64()).then(|| Duration::from_secs_f64(at))
    })
}
