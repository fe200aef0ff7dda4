//! The harness of the hostile cases: one host, on which each case is sent, its answer is checked,
//! and the host is checked to be unchanged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::acts;
use exosphere_tests::expand::expand;
use exosphere_tests::guest::{self, Changes};
use exosphere_tests::process_stats::{ProcessResources, ProcessStats};
use exosphere_tests::{Host, problem, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::case::{Answer, Case, Expect, Failure, Log, Success};
use crate::http_server::HttpServer;
use crate::report::Row;

/// Number of descriptors and threads by which the host may exceed its first sample: connections
/// of the test, and idle threads.
const MAX_EXTRA_RESOURCES: usize = 10;

/// Maximum growth in kilobytes in a round of repetitions, after the first two.
const MAX_GROWTH_KB: i64 = 5 * 1024;

/// Maximum number of such rounds, of which one must stay below [`MAX_GROWTH_KB`].
const MAX_ROUNDS: usize = 4;

pub struct Harness {
    pub host: Host,
    pub origin: HttpServer,
    pub stats: ProcessStats,
    at_start: ProcessResources,
    _folder: TempDir,
}

impl Harness {
    pub fn start() -> Result<Harness> {
        let folder = tempfile::tempdir()?;
        let origin = HttpServer::start()?;
        // Guests may call the HTTP server, and nothing else on this machine.
        let allowed = format!("{}/32", origin.address().ip());
        let host = Host::start_with(
            folder.path(),
            &["--http-allow-net", &allowed, "--compile-cpu-seconds", "5"],
            |_| (),
        )?;
        let stats = ProcessStats(host.pid());
        for plugin in ["lab", "hostile", "web"] {
            host.push(plugin)?;
        }
        host.grant("lab", &json!({"secrets": ["token"]}))?;
        host.apply("healthy", &json!({
            "nodes": [
                {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 5}, "next_nodes": ["worker"]},
                {"node_name": "echo", "identifier": "worker",
                 "inputs": {"value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
                {"node_name": "sum", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
                 "unites": {"identifier": "splitter"}, "next_nodes": []},
            ],
        }))?;
        // Warms up until all threads and buffers exist.
        for _ in 0..20 {
            ensure_healthy(&host)?;
        }
        Ok(Harness { at_start: stats.resources()?, host, origin, stats, _folder: folder })
    }

    /// Runs a case with its number of repetitions.
    pub fn try_case(&self, case: &Case) -> Result<Row> {
        let uploads = uploads(case, &self.host)?;
        let mut row = Row::new(&case.name);
        if !matches!(case.file.expect, Expect::Upload(_)) {
            self.push(case, uploads.first())?;
            if let Expect::Apply(answer) = &case.file.expect {
                let path = format!("/graphs/{}", case.name);
                let (status, found) = self.host.refused("PUT", &path, &case.graph())?;
                row.answer = judge_answer(answer, status, &found)?;
                return Ok(row);
            }
            self.host.apply(&case.name, &case.graph())?;
        }
        self.repeat(case, &uploads, 2.min(case.file.repeat), &mut row)?;
        let repeats = case.file.repeat.saturating_sub(2);
        if repeats > 0 {
            self.adds_nothing(case, &uploads, repeats, &mut row)?;
        }
        Ok(row)
    }

    /// Uploads the guest of a case, and sets its grants.
    fn push(&self, case: &Case, bytes: Option<&Vec<u8>>) -> Result<()> {
        if let Some(bytes) = bytes {
            let response = self.host.upload(&case.name, bytes.clone())?;
            ensure!(
                response.status().is_success(),
                "the upload was rejected: {:#}",
                problem(response)?.1
            );
        }
        if let Some(grants) = &case.file.grants {
            self.host.grant(case.node().0, grants)?;
        }
        Ok(())
    }

    /// Checks that repetitions do not leak memory. The allocator and the database cache memory up
    /// to a bound, while a leak grows each time.
    fn adds_nothing(
        &self,
        case: &Case,
        uploads: &[Vec<u8>],
        times: u32,
        row: &mut Row,
    ) -> Result<()> {
        let mut growths = Vec::new();
        while growths.len() < MAX_ROUNDS {
            let before = self.stats.memory_kb("VmRSS")?;
            self.repeat(case, uploads, times, row)?;
            let growth = self.stats.memory_kb("VmRSS")? - before;
            row.growth = Some(growth);
            if growth < MAX_GROWTH_KB {
                return Ok(());
            }
            growths.push(growth);
        }
        bail!("memory grew in each round of {times} repetitions, in kB: {growths:?}")
    }

    fn repeat(&self, case: &Case, uploads: &[Vec<u8>], times: u32, row: &mut Row) -> Result<()> {
        for _ in 0..times {
            let (started, time) = (Instant::now(), row.times.len());
            let answer = match &case.file.expect {
                Expect::Upload(answer) => {
                    self.upload(&case.name, &uploads[time % uploads.len()], answer)
                }
                _ => self.run(case),
            };
            row.answer = answer.with_context(|| format!("time {}", time + 1))?;
            row.times.push(started.elapsed());
        }
        Ok(())
    }

    fn upload(&self, name: &str, bytes: &[u8], answer: &Answer) -> Result<String> {
        let response = match self.host.upload(name, bytes.to_vec()) {
            // An answer that comes before the whole request was sent may be lost.
            Err(_) if answer.status == [413] => return Ok("413".to_owned()),
            response => response?,
        };
        let status = response.status();
        if status.is_success() {
            return judge_answer(answer, status.as_u16(), &json!({}));
        }
        let (status, found) = problem(response)?;
        // Terminals and pages show the message.
        ensure!(has_no_controls(&found) && found.to_string().len() < 64 * 1024, "{found}");
        judge_answer(answer, status, &found)
    }

    fn run(&self, case: &Case) -> Result<String> {
        let run = self.host.run(&case.name, &json!({}), &json!({}))?;
        let found = self.host.wait_for(&run)?;
        let states = self.host.states(&run, "attack")?;
        let [state] = states.as_slice() else { bail!("{} states: {found:#}", states.len()) };
        ensure_clean(state)?;
        match &case.file.expect {
            Expect::Failure(failure) => judge_failure(failure, &found),
            Expect::Success(success) => judge_success(success, &found, state),
            Expect::Upload(_) | Expect::Apply(_) | Expect::Trial(_) => {
                bail!("a case with this expectation does not run")
            }
        }
    }

    /// Checks the conditions that must hold after every case.
    pub fn ensure_unchanged(&self) -> Result<()> {
        ensure_healthy(&self.host)?;
        let host = &self.host;
        until("the release of all slots", || Ok((host.holding()? == 0).then_some(())))?;
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let resources = self.stats.resources()?;
            let fits = resources.children <= self.at_start.children
                && resources.threads <= self.at_start.threads + MAX_EXTRA_RESOURCES
                && resources.descriptors <= self.at_start.descriptors + MAX_EXTRA_RESOURCES;
            if fits {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the host has {resources}; at first {}", self.at_start);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns the bytes of each upload of a case; empty if its node is of an existing plugin.
pub fn uploads(case: &Case, host: &Host) -> Result<Vec<Vec<u8>>> {
    let file = &case.file;
    if file.node.is_some() {
        return Ok(Vec::new());
    }
    if let Some(recipe) = &file.recipe {
        return recipe.make(host.data());
    }
    let guest_wat = case.folder.join("guest.wat");
    let functions = match &file.acts {
        Some(acts) => acts::functions(acts)?,
        None if guest_wat.exists() => std::fs::read_to_string(guest_wat)?,
        None => String::new(),
    };
    // A guest that is a whole component needs no frame.
    if functions.lines().any(|line| line.starts_with("(component") || line.starts_with("(module")) {
        return Ok(vec![wat::parse_str(&functions)?]);
    }
    let description = file.description.as_ref().map(|description| -> Result<Vec<u8>> {
        match description {
            Value::String(text) => Ok(text.clone().into_bytes()),
            value => Ok(expand(value)?.to_string().into_bytes()),
        }
    });
    let description: Option<Vec<u8>> = description.transpose()?;
    let changes = Changes {
        functions: &functions,
        component: "",
        description: description.as_deref(),
        edits: &file.edits,
    };
    Ok(vec![guest::component(&changes)?])
}

/// Checks that an honest workflow still succeeds.
fn ensure_healthy(host: &Host) -> Result<()> {
    let run = host.run("healthy", &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "a healthy run: {found:#}");
    ensure!(host.output(&run, "merger")?["sum"] == 10.0, "a healthy run has another result");
    Ok(())
}

/// Checks that no text of a guest has control characters, and that no failure is an internal error.
fn ensure_clean(state: &Value) -> Result<()> {
    ensure!(state["failure"]["kind"] != "internal", "{state:#}");
    let shown = [&state["failure"], &state["attempts"]];
    ensure!(shown.into_iter().all(has_no_controls), "a text has control characters: {state:#}");
    Ok(())
}

fn has_no_controls(shown: &Value) -> bool {
    match shown {
        Value::String(text) => !text.contains(|c: char| {
            c.is_control() && !matches!(c, '\n' | '\t') || ('\u{202a}'..='\u{202e}').contains(&c)
        }),
        Value::Array(list) => list.iter().all(has_no_controls),
        Value::Object(map) => map.values().all(has_no_controls),
        _ => true,
    }
}

/// Returns the beginning of a text.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(2_000)]
}

pub fn judge_answer(answer: &Answer, status: u16, found: &Value) -> Result<String> {
    let words = format!("{} {}", found["detail"].as_str().unwrap_or_default(), found["errors"]);
    ensure!(answer.status.contains(&status), "status {status}: {words}");
    ensure!(
        status < 300 || words.contains(&answer.words),
        "the message has no {:?}: {words}",
        answer.words
    );
    Ok(status.to_string())
}

fn judge_failure(failure: &Failure, found: &Value) -> Result<String> {
    ensure!(found["status"] == "FAILED", "the run is {}: {found:#}", found["status"]);
    let first = &found["failures"][0]["failure"];
    let message = first["message"].as_str().unwrap_or_default();
    ensure!(first["kind"] == failure.kind, "not {}: {first:#}", failure.kind);
    ensure!(message.contains(&failure.words), "the message has no {:?}: {first:#}", failure.words);
    ensure!(first.to_string().len() < 128 * 1024, "the failure is too long");
    ensure_store(failure.store.as_ref(), found)?;
    let limit = first["details"]["limit"].as_str();
    Ok(limit.map_or(failure.kind.clone(), |limit| format!("{} {limit}", failure.kind)))
}

fn judge_success(success: &Success, found: &Value, state: &Value) -> Result<String> {
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    let output = &state["outputs"][0];
    for (field, value) in &success.output {
        ensure!(&output[field] == value, "{field} is {}: {output:#}", output[field]);
    }
    if let Some(log) = &success.log {
        judge_log(log, &state["attempts"][0]["logs"])?;
    }
    ensure_store(success.store.as_ref(), found)?;
    Ok("success".to_owned())
}

fn judge_log(log: &Log, found: &Value) -> Result<()> {
    let lines: Vec<&str> = found
        .as_array()
        .context("no log")?
        .iter()
        .map(|line| line["message"].as_str().unwrap_or_default())
        .collect();
    ensure!(lines.len() <= log.most_lines, "{} lines", lines.len());
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    ensure!(bytes <= log.most_bytes, "{bytes} bytes");
    ensure!(
        lines.is_empty() || lines.iter().any(|line| line.contains(&log.has)),
        "no {:?}",
        log.has
    );
    let last = lines.last().copied().unwrap_or_default();
    ensure!(last.contains(&log.last), "the last line is {last:?}");
    Ok(())
}

fn ensure_store(store: Option<&Value>, found: &Value) -> Result<()> {
    match store {
        Some(store) => {
            ensure!(&found["store"] == store, "the store is {}", found["store"]);
            Ok(())
        }
        None => Ok(()),
    }
}
