//! The load of the chaos test: runs that are started and watched through any host that answers,
//! with their exact expected results.
//!
//! Not here: faults (`fault_injector`). A request without an answer is repeated at the next host.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::host::client;
use exosphere_tests::{Host, cluster::Cluster, path_of};
use reqwest::blocking::Client;
use serde_json::{Value, json};

/// Numbers of branches of the outer fanout, and of each inner one.
const GROUPS: i64 = 10;
const BRANCHES: i64 = 50;
/// The ends of the branches of an inner fanout, in turn.
const BRANCH_ENDS: [&str; 10] =
    ["go", "go", "requeue", "go", "prune", "go", "fail", "go", "requeue", "go"];
/// Number of events of a run after which it is read again, at the latest after a second.
const EVENTS_BETWEEN_READS: i64 = 200;
/// Number of requeues of a branch that requeues, and of retries of one that fails.
const REQUEUES: i64 = 2;
const RETRIES: i64 = 2;
/// Number of branches of an inner fanout that continue.
const CONTINUING_BRANCHES: i64 = BRANCHES * 8 / 10;
/// Number of states of a run. Of each group: inner, guard, guarded, joined, the workers, the
/// counters.
const STATES: i64 = 5 + GROUPS * (4 + BRANCHES + CONTINUING_BRANCHES);

/// Returns the branches of an inner fanout: the number of each, and its end.
fn branch_ends() -> impl Iterator<Item = (i64, &'static str)> {
    (0..BRANCHES).zip(BRANCH_ENDS.into_iter().cycle())
}

/// Returns a nested fanout. Each worker counts its committed executions in its own key, and ends as
/// `BRANCH_ENDS` says; `joined` accepts failures. Each guard fails until the opener, on another branch,
/// has run.
fn graph() -> Value {
    json!({
        "nodes": [
            {"node_name": "echo", "identifier": "begin", "inputs": {"value": 1},
             "next_nodes": ["pause", "outer"]},
            {"node_name": "wait", "identifier": "pause", "inputs": {"ms": 1200},
             "next_nodes": ["opener"]},
            {"node_name": "kv", "identifier": "opener",
             "inputs": {"ops": [["set", "open", "yes"]]}, "next_nodes": []},
            {"node_name": "fan", "identifier": "outer", "inputs": {"n": GROUPS},
             "next_nodes": ["guard", "inner"]},
            {"node_name": "fail_when", "identifier": "guard", "next_nodes": ["guarded"],
             "inputs": {"value": 1, "equals": 1, "permanent": false, "unless_store_key": "open"},
             "retry_policy": {"max_retries": 200, "strategy": "EXPONENTIAL",
                              "backoff_factor": 200, "exponent": 2, "max_delay": 2000}},
            {"node_name": "tally", "identifier": "guarded",
             "inputs": {"key": "guarded-${{ outer.outputs.i }}"}, "next_nodes": ["final"]},
            {"node_name": "fan", "identifier": "inner", "next_nodes": ["worker"],
             "inputs": {"n": BRANCHES, "value": "${{ outer.outputs.i }}"}},
            {"node_name": "chore", "identifier": "worker", "next_nodes": ["counter"],
             "inputs": {"i": "${{ inner.outputs.i }}", "turns": BRANCH_ENDS, "ms": 20,
                        "requeues": REQUEUES, "requeue_ms": 50,
                        "key": "w-${{ inner.outputs.value }}-${{ inner.outputs.i }}"},
             "retry_policy": {"max_retries": RETRIES, "strategy": "FIXED", "backoff_factor": 100}},
            {"node_name": "tally", "identifier": "counter", "next_nodes": ["joined"],
             "inputs": {"key": "told", "value": "${{ worker.outputs.value }}"}},
            {"node_name": "tally", "identifier": "joined", "next_nodes": ["final"],
             "inputs": {"key": "joined-${{ outer.outputs.i }}",
                        "value": "${{ counter.outputs.value }}"},
             "unites": {"identifier": "inner", "strategy": "ALL_DONE"}},
            {"node_name": "tally", "identifier": "final", "next_nodes": [],
             "inputs": {"key": "merged", "value": "${{ joined.outputs.value }}"},
             "unites": {"identifier": "outer"}},
        ],
        "store_config": {"keep": true},
    })
}

/// Returns the expected final store, with a count of each effect.
fn expected_store() -> BTreeMap<String, String> {
    let mut ledger = BTreeMap::new();
    let mut note = |key: String, n: i64| ledger.insert(key, n.to_string());
    for group in 0..GROUPS {
        note(format!("guarded-{group}"), 1);
        note(format!("joined-{group}"), 1);
        for (i, end) in branch_ends() {
            match end {
                "fail" => continue,
                "requeue" => note(format!("w-{group}-{i}"), 1 + REQUEUES),
                _ => note(format!("w-{group}-{i}"), 1),
            };
        }
    }
    note("told".to_owned(), GROUPS * CONTINUING_BRANCHES);
    note("merged".to_owned(), 1);
    ledger.insert("open".to_owned(), "yes".to_owned());
    ledger
}

/// Returns the inputs that `final` gathers.
fn expected_answer() -> Value {
    let value_of = |(i, end)| match end {
        "prune" => None,
        "fail" => Some(Value::Null),
        _ => Some(json!(i)),
    };
    let values: Vec<Value> = branch_ends().filter_map(value_of).collect();
    json!(vec![values; GROUPS as usize])
}

/// Counts the branches of an inner fanout with one of these ends.
fn count_ends(wanted: &[&str]) -> i64 {
    branch_ends().filter(|(_, end)| wanted.contains(end)).count() as i64
}

/// Uploads the plugins and applies the graph.
pub fn prepare(host: &Host) -> Result<()> {
    host.push("lab")?;
    host.push("tally")?;
    host.apply("chaos", &graph())?;
    Ok(())
}

/// URLs of the hosts that the injector has not stopped or frozen.
#[derive(Debug)]
pub struct HostUrls {
    urls: Mutex<Vec<Option<String>>>,
    /// The admin key of the hosts' database.
    key: String,
}

impl HostUrls {
    pub fn from_cluster(cluster: &Cluster) -> Result<HostUrls> {
        let url = |member: &exosphere_tests::cluster::Member| Ok(Some(member.host()?.url().into()));
        let urls = Mutex::new(cluster.members().iter().map(url).collect::<Result<_>>()?);
        let first = cluster.members().first().context("the cluster has no host")?;
        Ok(HostUrls { urls, key: first.host()?.key().to_owned() })
    }

    /// Creates the list of one host.
    pub fn of_one(host: &Host) -> HostUrls {
        let urls = Mutex::new(vec![Some(host.url().to_owned())]);
        HostUrls { urls, key: host.key().to_owned() }
    }

    pub fn add(&self, at: usize, url: &str) {
        self.urls.lock()[at] = Some(url.to_owned());
    }

    pub fn remove(&self, at: usize) {
        self.urls.lock()[at] = None;
    }

    /// Returns the URL of the host at `host_number`, if it is up.
    fn url(&self, host_number: usize) -> Option<String> {
        let urls = self.urls.lock();
        urls[host_number % urls.len()].clone()
    }
}

/// Counts of the finished runs.
#[derive(Debug, Default)]
pub struct Totals {
    pub runs: u64,
    pub states: u64,
    /// Number of executions that all the runs take without any fault.
    pub executions: u64,
}

/// The open runs.
pub struct Load<'a> {
    host_urls: &'a HostUrls,
    seed: u64,
    /// The deadlines for starting runs, and for the end of all runs.
    time: (Instant, Instant),
    runs_started: AtomicU64,
    totals: Mutex<Totals>,
    failed: AtomicBool,
}

impl<'a> Load<'a> {
    pub fn new(host_urls: &'a HostUrls, seed: u64, until: Instant, end: Instant) -> Self {
        let (runs_started, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Load { host_urls, seed, time: (until, end), runs_started, totals: Mutex::default(), failed }
    }

    pub fn states(&self) -> u64 {
        self.totals.lock().states
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Starts no more runs.
    pub fn stop(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub fn into_totals(self) -> Totals {
        self.totals.into_inner()
    }

    /// Starts one run after the other, until the time is up and there are enough.
    pub fn runs(&self, runner: usize, enough: u64) -> Result<()> {
        while !self.has_failed() {
            let number = self.runs_started.fetch_add(1, Ordering::Relaxed);
            if Instant::now() >= self.time.0 && number * STATES as u64 >= enough {
                break;
            }
            let done = self.run(runner, number);
            done.inspect_err(|_| self.stop())?;
        }
        Ok(())
    }

    /// Performs a run from its start to its end, and checks its result.
    pub fn run(&self, host_number: usize, number: u64) -> Result<()> {
        let client = client(&self.host_urls.key, Duration::from_secs(4))?;
        let mut failover =
            FailoverClient { host_urls: self.host_urls, client, host_number, end: self.time.1 };
        let from = Instant::now();
        let key = format!("{}-{number}", self.seed);
        let done = run(&mut failover, &key).with_context(|| format!("run {key}"))?;
        println!("run {number} took {:.2} s", from.elapsed().as_secs_f64());
        let mut totals = self.totals.lock();
        totals.runs += 1;
        totals.states += done.states;
        totals.executions += done.executions;
        Ok(())
    }
}

/// Performs a run from its start to its end, and returns its result.
fn run(failover: &mut FailoverClient<'_>, key: &str) -> Result<Totals> {
    // A caller without an answer starts again, with the same key.
    let start = json!({"inputs": {}, "idempotency_key": key});
    let run = failover.request("POST", "/graphs/chaos/runs", Some(&start))?;
    let run = run["run"].as_str().context("a run has an id")?.to_owned();
    let mut found = failover.get(&format!("/runs/{run}"))?;
    while found["status"] == "RUNNING" {
        found["store"] = Value::Null;
        ensure!(Instant::now() < failover.end, "the run does not end: {found:#}");
        // A read after each event would take the processors from the hosts.
        let next_read = found["version"].as_i64().unwrap_or_default() + EVENTS_BETWEEN_READS;
        found = failover.get(&format!("/runs/{run}?after={next_read}&wait_ms=1000"))?;
    }
    verify(failover, &run, &found).with_context(|| run.clone())
}

fn verify(failover: &mut FailoverClient<'_>, run: &str, found: &Value) -> Result<Totals> {
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    let (pruned, errored) = (GROUPS * count_ends(&["prune"]), GROUPS * count_ends(&["fail"]));
    let counts = &found["counts"];
    for (count, number) in [
        ("states", STATES),
        ("open", 0),
        ("success", STATES - pruned - errored),
        ("pruned", pruned),
        ("errored", errored),
        ("cancelled", 0),
        ("requeues", GROUPS * count_ends(&["requeue"]) * REQUEUES),
    ] {
        ensure!(counts[count] == number, "{count} is not {number}: {counts:#}");
    }
    check_store(&found["store"])?;
    let states = failover.states(run)?;
    let executions = states.iter().map(executions_of).sum::<Result<i64>>()?;
    check_answer(failover, run, &states)?;
    for state in states.iter().filter(|state| state["identifier"] == "worker") {
        let retries = if state["status"] == "ERRORED" { RETRIES } else { 0 };
        if state["retries"] != retries {
            let state = failover.get(&format!("/runs/{run}/states/{}", path_of(state)?))?;
            bail!("not {retries} retries: {state:#}");
        }
    }
    Ok(Totals { runs: 1, states: states.len() as u64, executions: executions as u64 })
}

/// Returns the number of executions that a state takes without any fault.
fn executions_of(state: &Value) -> Result<i64> {
    let number = |name: &str| state[name].as_i64().with_context(|| name.to_owned());
    Ok(1 + number("retries")? + number("requeues")?)
}

fn check_store(store: &Value) -> Result<()> {
    let found: BTreeMap<String, String> = serde_json::from_value(store.clone())?;
    let expected = expected_store();
    let keys = found.keys().chain(expected.keys());
    let mut mismatches: Vec<String> = keys
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key}: {:?} and not {:?}", found.get(key), expected.get(key)))
        .collect();
    mismatches.dedup();
    ensure!(mismatches.is_empty(), "the store is wrong:\n{}", mismatches.join("\n"));
    Ok(())
}

fn check_answer(failover: &mut FailoverClient<'_>, run: &str, states: &[Value]) -> Result<()> {
    let mut final_states = states.iter().filter(|state| state["identifier"] == "final");
    let (Some(state), None) = (final_states.next(), final_states.next()) else {
        bail!("`final` does not have exactly one state");
    };
    let state = failover.get(&format!("/runs/{run}/states/{}", path_of(state)?))?;
    ensure!(state["outputs"].as_array().is_some_and(|outputs| outputs.len() == 1), "{state:#}");
    let found = &state["outputs"][0]["value"];
    ensure!(*found == expected_answer(), "the answer is {found}, not {}", expected_answer());
    Ok(())
}

/// A client that tries one host after the other.
struct FailoverClient<'a> {
    host_urls: &'a HostUrls,
    client: Client,
    host_number: usize,
    /// The timeout of all requests.
    end: Instant,
}

impl FailoverClient<'_> {
    fn get(&mut self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    /// Returns the first successful answer. A rejection by a host is final.
    fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut last = String::from("all hosts are down");
        while Instant::now() < self.end {
            self.host_number += 1;
            let Some(url) = self.host_urls.url(self.host_number) else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let url = format!("{url}/v1/namespaces/default{path}");
            let mut request = self.client.request(method.parse()?, &url);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().and_then(|answer| {
                let status = answer.status();
                answer.text().map(|text| (status, text))
            });
            match answer {
                Ok((status, text)) if status.is_success() => {
                    return Ok(serde_json::from_str(&text)?);
                }
                Ok((status, text)) if status.is_client_error() => bail!("{url}: {status}: {text}"),
                Ok((status, text)) => last = format!("{url}: {status}: {text}"),
                Err(error) => last = format!("{url}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no host answers: {last}")
    }

    /// Returns all states of a run.
    fn states(&mut self, run: &str) -> Result<Vec<Value>> {
        let page = self.get(&format!("/runs/{run}/states?limit=1000"))?;
        let states = page["states"].as_array().context("states")?.clone();
        ensure!(page["next"].is_null(), "more states than fit a page");
        Ok(states)
    }
}
