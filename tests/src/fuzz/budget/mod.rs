//! Target `budget`: the host's work for namespaces, which must stay within their limits. Runs
//! random cases (schemas, secrets, graphs, outputs, logs) on one host over HTTP, with honest runs
//! of another namespace beside them.
//!
//! Promises: no honest run and no answer of `/health` takes longer than a second. Memory stays
//! under its bound, a cancel ends executions within a second, and no internal error occurs.

mod case;
mod schema;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::case::Case;
use super::{Acceptance, Mutator, Target};
use crate::acts;
use crate::expand::expand;
use crate::honest_traffic::{self, Bounds, HonestTraffic};
use crate::{Host, until};

/// Maximum bytes of a graph that a host accepts (`host/api/src/body.rs`).
const MAX_GRAPH_BYTES: usize = 4 << 20;

/// Bound for an honest run, an answer of `/health`, and a cancel.
const MAX_ATTEMPT_TIME: Duration = Duration::from_secs(1);

/// Bound for the host's memory in bytes: its idle memory, the guests of a few runs, and JSON.
const MAX_HOST_BYTES: u64 = 1536 << 20;

/// Time for which runs continue before they are cancelled.
const RUN_TIME: Duration = Duration::from_millis(1_500);

/// Timeout of the attacker's own requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of honest states that a host may have claimed when nothing else runs.
const HONEST_STATES: u64 = 2;

/// The plugin and the graph of every case.
const NAME: &str = "attack";

/// One host, and the honest runs on it.
pub struct Budgets {
    traffic: HonestTraffic,
    host: Host,
    client: Client,
    _folder: TempDir,
}

impl Budgets {
    pub(super) fn new() -> Result<Budgets> {
        let folder = tempfile::tempdir()?;
        let host = Host::start_with(folder.path(), &[], |command| {
            command.env("EXOSPHERE_LOG", "error");
        })?;
        host.push("lab")?;
        let traffic = HonestTraffic::start(&host)?;
        let client = host.client(REQUEST_TIMEOUT)?;
        Ok(Budgets { traffic, host, client, _folder: folder })
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<Response> {
        let url = format!("{}/v1/namespaces/default{path}", self.host.url());
        let request = self.client.request(method.parse()?, url);
        let sent = request.header("content-type", "application/json").body(body.to_owned()).send();
        let response = sent.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        // A 503 asks the client to retry; it is not an internal error.
        ensure!(status != 500, "{method} {path}: {status}: {}", response.text()?);
        Ok(response)
    }

    /// Performs a case up to the start of its runs, and returns them; empty if it was rejected.
    fn begin(&self, case: &Case) -> Result<Vec<String>> {
        let description = expand(&case.description())?;
        let guest = acts::component(&description, &case.acts)?;
        if !self.host.upload(NAME, guest)?.status().is_success() {
            return Ok(Vec::new());
        }
        self.host.grant(NAME, &json!({"secrets": case.secrets.keys().collect::<Vec<_>>()}))?;
        let graph = expand(&case.whole_graph())?.to_string();
        if graph.len() > MAX_GRAPH_BYTES {
            // Rejected by its length; the host also closes the connection.
            return Ok(Vec::new());
        }
        std::thread::scope(|scope| {
            let validate = || self.send("POST", "/graphs/attack/validate", &graph).map(drop);
            let sent: Vec<_> = (0..case.validations).map(|_| scope.spawn(validate)).collect();
            sent.into_iter()
                .try_for_each(|sent| sent.join().map_err(|_| anyhow!("a request panicked"))?)
        })?;
        if !self.send("PUT", "/graphs/attack", &graph)?.status().is_success() {
            return Ok(Vec::new());
        }
        let start = json!({"inputs": expand(&case.start)?}).to_string();
        let mut runs = Vec::new();
        for _ in 0..case.runs {
            let response = self.send("POST", "/graphs/attack/runs", &start)?;
            if response.status().is_success() {
                let run: Value = serde_json::from_str(&response.text()?)?;
                runs.push(run["run"].as_str().context("no id")?.to_owned());
            }
        }
        Ok(runs)
    }

    fn read_is_over(&self, run: &str) -> Result<bool> {
        let response = self.send("GET", &format!("/runs/{run}"), "")?;
        let found: Value = serde_json::from_str(&response.text()?)?;
        let failures = found["failures"].as_array().map(Vec::as_slice).unwrap_or_default();
        let internal = failures.iter().find(|one| one["failure"]["kind"] == "internal");
        ensure!(internal.is_none(), "internal error: {internal:?}");
        Ok(found["status"] != "RUNNING")
    }

    fn run(&self, runs: &[String]) -> Result<()> {
        let end = Instant::now() + RUN_TIME;
        while Instant::now() < end {
            let open = runs.iter().map(|run| self.read_is_over(run)).collect::<Result<Vec<_>>>()?;
            if open.iter().all(|over| *over) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for run in runs {
            for path in ["states?limit=1000", "states/1"] {
                self.send("GET", &format!("/runs/{run}/{path}"), "")?.bytes()?;
            }
        }
        Ok(())
    }

    /// Cancels the runs, and waits for the end of their executions.
    fn cancel(&self, runs: &[String]) -> Result<()> {
        let started = Instant::now();
        for run in runs {
            self.send("POST", &format!("/runs/{run}/cancel"), "{}")?;
        }
        until("the end of cancelled runs", || {
            let holding = self.host.holding()?;
            Ok((holding <= HONEST_STATES).then_some(()))
        })?;
        let (elapsed, max) = (started.elapsed(), MAX_ATTEMPT_TIME.mul_f64(honest_traffic::slack()));
        ensure!(elapsed <= max, "the cancel of {} runs took {elapsed:.1?}", runs.len());
        Ok(())
    }
}

impl Target for Budgets {
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8> {
        // A case is a tree of texts and numbers, which always becomes JSON.
        serde_json::to_vec_pretty(&Case::random(mutator)).unwrap_or_default()
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance> {
        let case: Case = serde_json::from_slice(input)?;
        let runs = self.begin(&case);
        let done = runs.and_then(|runs| {
            self.run(&runs)?;
            self.cancel(&runs)?;
            Ok(runs.len())
        });
        let report = self.traffic.take()?;
        let started = done.with_context(|| format!("beside it: {report}"))?;
        let shortest = Bounds {
            honest_p99: MAX_ATTEMPT_TIME,
            health: MAX_ATTEMPT_TIME,
            memory: Some(MAX_HOST_BYTES),
        };
        // A single slow honest run counts here, and not only the slowest hundredth.
        let mut strict = report;
        strict.honest.p99 = strict.honest.max;
        strict.hold(shortest)?;
        Ok(if started > 0 { Acceptance::Accepted } else { Acceptance::Rejected })
    }
}
