//! The cost of observers: a wide fanout with readers of its live view, a scraper of the metrics, or a
//! collector of traces, in proportion to the same fanout without any.
//!
//! Not here: how soon readers see an end, and the memory that they hold (tests/tests/live.rs).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{binary, good};
use serde_json::{Value, json};

use crate::results::{Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// Number of branches of the fanout.
const BRANCHES: u64 = 100_000;
/// Number of readers of the run's live view, and of those among them that never read.
const READERS: usize = 200;
const STOPPED_READERS: usize = 20;
/// The delay of a run, in which its observers come.
const DELAY: Duration = Duration::from_secs(1);
/// Time between two requests of the scraper, far less than the usual 15 s.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// An observer of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observer {
    None,
    Readers,
    Scraper,
    /// The collector of the host that sends traces.
    Collector,
}

const OBSERVERS: [Observer; 4] =
    [Observer::None, Observer::Readers, Observer::Scraper, Observer::Collector];

impl Observer {
    fn name(self) -> String {
        match self {
            Observer::None => "fanout of 100,000, unobserved".into(),
            Observer::Readers => format!("fanout of 100,000, {READERS} readers"),
            Observer::Scraper => "fanout of 100,000, metrics each second".into(),
            Observer::Collector => "fanout of 100,000, traces of all runs".into(),
        }
    }
}

/// Measures a fanout with each observer, on both databases. The order turns with each round.
pub fn run(postgres: &Postgres, rounds: u32, results: &mut Results) -> Result<()> {
    let collector = start_collector()?;
    let arguments = ["--otlp-endpoint", &collector];
    for database in [None, Some(postgres)] {
        let silent = SystemUnderTest::start(database, "silent")?;
        let traced = SystemUnderTest::start_with(&binary()?, database, "traced", &arguments)?;
        for number in 0..=rounds {
            eprintln!("observers: {}, round {number} of {rounds}", silent.name);
            let mut found = [(0.0, 0.0); OBSERVERS.len()];
            for at in 0..OBSERVERS.len() {
                let at = (at + number as usize) % OBSERVERS.len();
                let observer = OBSERVERS[at];
                let system = if observer == Observer::Collector { &traced } else { &silent };
                found[at] = observed(system, observer, number)?;
            }
            if number > 0 {
                add(silent.name, &found, results);
            }
        }
    }
    Ok(())
}

/// Adds the rates and the CPU times of a round, and their ratios to those of the unobserved fanout.
fn add(database: &str, found: &[(f64, f64)], results: &mut Results) {
    let (alone, alone_cpu) = found[0];
    for (observer, (rate, cpu)) in OBSERVERS.iter().zip(found) {
        let name = observer.name();
        results.add(&name, database, Unit::StatesPerSecond, *rate);
        if *observer != Observer::None {
            results.add(&name, database, Unit::Ratio, rate / alone);
            let load = format!("{name}, CPU time of the host");
            results.add(&load, database, Unit::Ratio, cpu / alone_cpu);
        }
    }
}

/// Runs the fanout, and returns its states per second and the CPU seconds of the host.
fn observed(system: &SystemUnderTest, observer: Observer, round: u32) -> Result<(f64, f64)> {
    let key = &format!("{observer:?}-{round}");
    let run = start(system, key, 0)?;
    let run = run["run"].as_str().context("the run has no id")?.to_owned();
    let has_ended = Arc::new(AtomicBool::new(false));
    let threads = match observer {
        Observer::None | Observer::Collector => Vec::new(),
        Observer::Readers => {
            let path = format!("/v1/namespaces/default/runs/{run}/live");
            let reader = |at| read(system, &path, at < STOPPED_READERS, Arc::clone(&has_ended));
            (0..READERS).map(reader).collect::<Result<_>>()?
        }
        Observer::Scraper => vec![scrape(system, Arc::clone(&has_ended))?],
    };
    let stats = ProcessStats(system.host.pid());
    let before = stats.cpu_seconds()?;
    let ended = start(system, key, 60_000)?;
    let cpu = stats.cpu_seconds()? - before;
    has_ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().ok().context("an observer panicked")??;
    }
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    let time = |of: &str| ended[of].as_i64().with_context(|| format!("the run has no {of}"));
    let elapsed = (time("ended_at")? - time("due_at")?) as f64 / 1000.0;
    Ok(((BRANCHES + 2) as f64 / elapsed, cpu))
}

/// Starts the run, or waits for the end of the one that was started with the key: such a request
/// sees none of the run's progress, so it costs nothing meanwhile.
fn start(system: &SystemUnderTest, key: &str, wait_ms: u64) -> Result<Value> {
    let delay = u64::try_from(DELAY.as_millis())?;
    let body = json!({"inputs": {"n": BRANCHES}, "delay_ms": delay});
    let path = format!("/graphs/fanout/runs?wait_ms={wait_ms}");
    let request = system.host.request("POST", &path)?.header("idempotency-key", key);
    good(request.timeout(Duration::from_secs(90)).json(&body).send()?)
}

type ObserverThread = std::thread::JoinHandle<Result<()>>;

/// Opens a stream and reads it to the end of the run, or holds it until then and reads nothing.
fn read(
    system: &SystemUnderTest,
    path: &str,
    is_stopped: bool,
    has_ended: Arc<AtomicBool>,
) -> Result<ObserverThread> {
    let address = system.host.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(&address)?;
    let authorization = system.host.authorization();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: {authorization}\r\n\
         accept: text/event-stream\r\n\r\n"
    )?;
    Ok(spawn(move || {
        if is_stopped {
            while !has_ended.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("the stream is empty")??;
        ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
        // The stream continues after the end, since a run may be retried.
        for line in lines {
            if line?.contains("\"status\":\"SUCCESS\"") {
                return Ok(());
            }
        }
        bail!("the stream ended before the run")
    }))
}

/// Reads the metrics again and again.
fn scrape(system: &SystemUnderTest, has_ended: Arc<AtomicBool>) -> Result<ObserverThread> {
    let request = system.host.request("GET", "//metrics")?;
    Ok(spawn(move || {
        while !has_ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            let request = request.try_clone().context("the request has a stream for a body")?;
            request.send()?.error_for_status()?;
            sleep(SCRAPE_INTERVAL.saturating_sub(began.elapsed()));
        }
        Ok(())
    }))
}

/// Starts a collector that accepts every request and decodes none, and returns its URL.
fn start_collector() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends with an error when the host closes it.
            spawn(move || accept_all(stream));
        }
    });
    Ok(url)
}

/// Answers all requests of a connection.
fn accept_all(mut stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "closed");
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
