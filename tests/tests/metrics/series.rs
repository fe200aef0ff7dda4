//! The number of series, and the time of a scrape, under a load of many runs and many graphs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::honest_traffic::{alone, slack};
use serde_json::{Value, json};

use crate::promtool;
use crate::scrape::Scrape;

const RUNS: usize = 10_000;

const GRAPHS: usize = 300;

/// The documented bound on the series of a host.
const MAX_SERIES: usize = 10_000;

/// Threads that start runs.
const STARTERS: usize = 4;

/// The documented bound on the time of a scrape.
const MAX_SCRAPE_TIME: Duration = Duration::from_millis(100);

fn echo() -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": 1}, "next_nodes": []},
    ]})
}

/// Waits until this many runs have ended.
fn ended(host: &Host, runs: usize) -> Result<Scrape> {
    let end = Instant::now() + exosphere_tests::MAX_WAIT;
    loop {
        let scrape = Scrape::of(host)?;
        if scrape.sum("exosphere_runs_ended_total", &[]) == runs as f64 {
            return Ok(scrape);
        }
        ensure!(Instant::now() < end, "{}", scrape.text);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts runs on several threads; returns the times of the scrapes meanwhile.
fn start_all(host: &Host) -> Result<Vec<Duration>> {
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let starter = || -> Result<()> {
            while next.fetch_add(1, Ordering::Relaxed) < RUNS {
                host.run("echo", &json!({}), &json!({}))?;
            }
            Ok(())
        };
        let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(starter)).collect();
        let scraper = scope.spawn(|| -> Result<Vec<Duration>> {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let began_at = Instant::now();
                Scrape::of(host)?;
                times.push(began_at.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(times)
        });
        let started: Result<()> = starters
            .into_iter()
            .try_for_each(|starter| starter.join().ok().context("a starter panicked")?);
        done.store(true, Ordering::Relaxed);
        let times = scraper.join().ok().context("the scraper panicked")?;
        started.and(times)
    })
}

#[test]
fn runs_and_graphs_add_few_series() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("echo", &echo())?;
    let first = host.run("echo", &json!({}), &json!({}))?;
    host.wait_for(&first)?;
    // A second scrape, so that the route of the metrics has its series, too.
    Scrape::of(&host)?;
    let before = ended(&host, 1)?;
    promtool::run(&["check", "metrics"], &before.text)?;

    let mut times = start_all(&host)?;
    let after = ended(&host, 1 + RUNS)?;
    let added: Vec<_> = after.series.keys().filter(|it| !before.series.contains_key(it)).collect();
    ensure!(added.is_empty(), "runs have added series: {added:?}");
    times.sort();
    let (median, p95) = (times[times.len() / 2], times[times.len() * 95 / 100]);
    println!("{} scrapes during the load: median {median:?}, p95 {p95:?}", times.len());
    ensure!(p95 <= MAX_SCRAPE_TIME.mul_f64(slack()), "{p95:?}");

    for graph in 0..GRAPHS {
        let name = format!("graph-{graph}");
        host.apply(&name, &echo())?;
        host.run(&name, &json!({}), &json!({}))?;
    }
    let after = ended(&host, 1 + RUNS + GRAPHS)?;
    let graphs = after.label_values("exosphere_runs_started_total", "graph").len();
    ensure!(graphs == 201, "{graphs} values of the label graph");
    ensure!(after.series.len() <= MAX_SERIES, "{} series", after.series.len());
    let other = [("namespace", "other"), ("graph", "other")];
    let others = after.sum("exosphere_runs_ended_total", &other);
    ensure!(others == (1 + GRAPHS - 200) as f64, "{others} runs of other graphs");
    let began_at = Instant::now();
    Scrape::of(&host)?;
    let elapsed = began_at.elapsed();
    println!("{} series, {} bytes, {elapsed:?}", after.series.len(), after.text.len());
    ensure!(elapsed <= MAX_SCRAPE_TIME.mul_f64(slack()), "{elapsed:?}");
    promtool::run(&["check", "metrics"], &after.text)
}
