//! The cases of `tests/cases`: each a folder with a graph, the inputs of its start, and the
//! expected results. A host on each database runs all of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check as check_database, checkout, path_of};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The case's subject, for its readers.
    #[serde(rename = "what")]
    _what: String,
    plugins: Vec<String>,
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    store: Map<String, Value>,
    steps: Vec<Step>,
}

/// An optional action on the run, and the expected results after it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// The identifier of the failed states to retry.
    retry: Option<String>,
    /// Maximum number of states to retry.
    only: Option<usize>,
    /// A part of the message, if the retry must be rejected.
    refused: Option<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: String,
    /// Some of the run's counts.
    #[serde(default)]
    counts: Map<String, Value>,
    /// The number of states at an identifier by status: all of them.
    #[serde(default)]
    statuses: BTreeMap<String, BTreeMap<String, usize>>,
    /// The outputs of the successful states at an identifier, in path order.
    #[serde(default)]
    outputs: BTreeMap<String, Vec<Vec<Value>>>,
    /// The failure of the first failed state at an identifier.
    #[serde(default)]
    failures: BTreeMap<String, Failure>,
    store: Option<Value>,
}

#[derive(Deserialize)]
struct Failure {
    kind: String,
    /// A part of the message.
    message: String,
}

#[test]
fn every_case_matches_its_expectation() -> Result<()> {
    let host = Host::start()?;
    every_case(&host)?;
    check_database(&["--data", &host.data().to_string_lossy()])
}

/// Runs the cases on Postgres, with the same expectations.
#[test]
fn every_case_matches_on_postgres() -> Result<()> {
    let url = Postgres::shared()?.create_database("cases")?;
    let folder = tempfile::tempdir()?;
    every_case(&Host::start_with(folder.path(), &["--database", &url], |_| ())?)?;
    check_database(&["--database", &url])
}

fn every_case(host: &Host) -> Result<()> {
    let mut pushed = BTreeSet::new();
    let mut failed = Vec::new();
    let mut folders: Vec<_> =
        std::fs::read_dir(checkout().join("tests/cases"))?.collect::<Result<_, _>>()?;
    folders.sort_by_key(std::fs::DirEntry::file_name);
    ensure!(!folders.is_empty(), "there are no cases");
    for folder in &folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        if let Err(error) = run(host, &name, &folder.path(), &mut pushed) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    println!("{} cases", folders.len());
    ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

fn run(host: &Host, name: &str, folder: &Path, pushed: &mut BTreeSet<String>) -> Result<()> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file));
    let case: Case = serde_json::from_str(&read("case.json")?).context("case.json")?;
    let graph: Value = serde_json::from_str(&read("graph.json")?).context("graph.json")?;
    for plugin in &case.plugins {
        if pushed.insert(plugin.clone()) {
            host.push(plugin)?;
        }
    }
    host.apply(name, &graph)?;
    let run = host.run(name, &json!(case.inputs), &json!(case.store))?;
    for (number, step) in case.steps.iter().enumerate() {
        perform(host, &run, step).with_context(|| format!("step {number}"))?;
    }
    Ok(())
}

fn perform(host: &Host, run: &str, step: &Step) -> Result<()> {
    if let Some(identifier) = &step.retry {
        let failed = host.list(run, &format!("identifier={identifier}&status=ERRORED"))?;
        ensure!(!failed.is_empty(), "nothing at {identifier} has failed");
        for state in failed.iter().take(step.only.unwrap_or(usize::MAX)) {
            let path = format!("/runs/{run}/states/{}/retry", path_of(state)?);
            match &step.refused {
                None => drop(host.send("POST", &path, &json!({}))?),
                Some(message) => {
                    let (status, problem) = host.refused("POST", &path, &json!({}))?;
                    ensure!(status == 409, "{problem}");
                    ensure!(problem["detail"].as_str().unwrap().contains(message), "{problem}");
                }
            }
        }
    }
    let found = host.wait_for(run)?;
    check(host, run, &found, &step.expect)
}

fn check(host: &Host, run: &str, found: &Value, expect: &Expect) -> Result<()> {
    ensure!(found["status"] == expect.status, "not {} but {found:#}", expect.status);
    ensure!(found["counts"]["open"] == 0, "something is open: {found:#}");
    for (count, number) in &expect.counts {
        ensure!(&found["counts"][count] == number, "{count}: {:#}", found["counts"]);
    }
    if let Some(store) = &expect.store {
        ensure!(&found["store"] == store, "the store: {}", found["store"]);
    }
    for (identifier, statuses) in &expect.statuses {
        let mut all: BTreeMap<String, usize> = BTreeMap::new();
        for state in host.list(run, &format!("identifier={identifier}"))? {
            *all.entry(state["status"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        ensure!(&all == statuses, "{identifier}: {all:?}");
    }
    for (identifier, outputs) in &expect.outputs {
        let states = host.states(run, identifier)?;
        let succeeded = states.iter().filter(|state| state["status"] == "SUCCESS");
        let all: Vec<&Value> = succeeded.map(|state| &state["outputs"]).collect();
        ensure!(json!(all) == json!(outputs), "{identifier}: {}", json!(all));
    }
    for (identifier, failure) in &expect.failures {
        let Some(state) =
            host.list(run, &format!("identifier={identifier}&status=ERRORED"))?.into_iter().next()
        else {
            bail!("nothing at {identifier} has failed");
        };
        let found = &state["failure"];
        let message = found["message"].as_str().unwrap();
        let is_match = found["kind"] == failure.kind && message.contains(&failure.message);
        ensure!(is_match, "{identifier}: {found}");
    }
    Ok(())
}
