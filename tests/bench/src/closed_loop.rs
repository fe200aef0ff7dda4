//! A closed loop: each client starts a run and waits for its end before it starts another. Measures
//! the maximum rate at a concurrency.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;

use crate::client::Connection;

/// The request that every client repeats.
#[derive(Clone)]
pub struct Work {
    /// The host's URL.
    pub url: String,
    /// The header `Authorization` of each request.
    pub authorization: String,
    /// The path of a request that starts a run; the response comes when the run has ended.
    pub path: String,
    /// The request's body.
    pub body: Bytes,
}

/// The times of a closed loop.
pub struct LoopTimes {
    /// Time from the first request to the last answer.
    pub elapsed: Duration,
    /// The latency of each request, in milliseconds.
    pub latencies: Vec<f64>,
}

impl LoopTimes {
    /// Returns the rate per second of `things`.
    pub fn rate(&self, operations: f64) -> f64 {
        operations / self.elapsed.as_secs_f64()
    }
}

/// Sends the request `total` times in all, from `clients` clients.
pub fn closed(work: &Work, clients: u64, total: u64) -> Result<LoopTimes> {
    // One thread suffices: the load generator shares the processors with the host.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(Connection::open(&work.url, &work.authorization).await?);
        }
        let started = Instant::now();
        let clients: Vec<_> = connections
            .into_iter()
            .map(|connection| {
                tokio::spawn(client(connection, work.clone(), Arc::clone(&next), total))
            })
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await??);
        }
        Ok(LoopTimes { elapsed: started.elapsed(), latencies })
    })
}

async fn client(
    mut connection: Connection,
    work: Work,
    next: Arc<AtomicU64>,
    total: u64,
) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    while next.fetch_add(1, Ordering::Relaxed) < total {
        let started = Instant::now();
        succeed(&mut connection, &work.path, work.body.clone()).await?;
        latencies.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(latencies)
}

/// Sends the request `total` times, with a `pause` before each. Returns the latencies in
/// milliseconds.
pub fn run_sequentially(work: &Work, total: u64, pause: Duration) -> Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = Connection::open(&work.url, &work.authorization).await?;
        let mut latencies = Vec::new();
        for _ in 0..total {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            succeed(&mut connection, &work.path, work.body.clone()).await?;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(latencies)
    })
}

/// Starts a run and waits for its end, which must be a success.
pub async fn succeed(connection: &mut Connection, path: &str, body: Bytes) -> Result<()> {
    let mut answer = connection.call("POST", path, body).await?;
    // After a timeout of the wait, the client asks again.
    loop {
        let run: Value = serde_json::from_slice(&answer)?;
        match run["status"].as_str() {
            Some("RUNNING") => {
                let (id, version) =
                    (run["run"].as_str().context("the run has no id")?, &run["version"]);
                let path =
                    format!("/v1/namespaces/default/runs/{id}?after={version}&wait_ms=30000");
                answer = connection.call("GET", &path, Bytes::new()).await?;
            }
            status => {
                ensure!(status == Some("SUCCESS"), "{run:#}");
                return Ok(());
            }
        }
    }
}
