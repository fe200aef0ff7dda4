//! The counters against the database: after a load of every outcome, on both databases, with two
//! hosts, and with connections that are cut while commits are under way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, until};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::scrape::Scrape;

/// The kinds of failures that the loads bring about.
const KINDS: [&str; 7] =
    ["retryable", "trap", "timeout", "limit", "blocked", "host-lost", "invalid-output"];

/// A database that the test looks into.
enum Rows<'a> {
    Sqlite(&'a Path),
    Postgres(&'a str),
}

impl Rows<'_> {
    fn number(&self, sql: &str) -> Result<f64> {
        let number: i64 = match self {
            Rows::Sqlite(data) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let database = Connection::open_with_flags(data.join("exosphere.db"), flags)?;
                database.query_row(sql, [], |row| row.get(0))?
            }
            Rows::Postgres(database) => Postgres::shared()?.psql(database, sql)?.trim().parse()?,
        };
        Ok(number as f64)
    }

    /// Returns what differs between the counters of some hosts, and the database.
    fn differences(&self, scrapes: &[Scrape]) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, labels: &[(&str, &str)], expected: f64| {
            let counted: f64 = scrapes.iter().map(|scrape| scrape.sum(name, labels)).sum();
            if counted != expected {
                differences
                    .push(format!("{name}{labels:?}: {counted}, the database has {expected}"));
            }
        };
        compare("exosphere_runs_started_total", &[], self.number("SELECT COUNT(*) FROM run")?);
        for status in ["SUCCESS", "FAILED", "CANCELLED"] {
            let sql = format!("SELECT COUNT(*) FROM run WHERE status = '{status}'");
            compare("exosphere_runs_ended_total", &[("status", status)], self.number(&sql)?);
        }
        let ended = self.number("SELECT COUNT(*) FROM run WHERE ended_at IS NOT NULL")?;
        compare("exosphere_run_seconds_count", &[], ended);
        let states = "exosphere_states_ended_total";
        for outcome in ["success", "pruned", "cancelled", "errored"] {
            let status = outcome.to_uppercase();
            let sql = format!("SELECT COUNT(*) FROM state WHERE status = '{status}'");
            compare(states, &[("outcome", outcome)], self.number(&sql)?);
        }
        for kind in KINDS {
            let errored = format!("SELECT COUNT(*) FROM state WHERE kind = '{kind}'");
            let errored = self.number(&errored)?;
            compare(states, &[("outcome", "errored"), ("kind", kind)], errored);
            if kind == "blocked" {
                continue;
            }
            // Each failed attempt has a row; the last one ended its state.
            let failed = format!("SELECT COUNT(*) FROM attempt WHERE kind = '{kind}'");
            let retried = self.number(&failed)? - errored;
            compare("exosphere_attempts_retried_total", &[("kind", kind)], retried);
        }
        let requeues = self.number("SELECT CAST(SUM(requeues) AS BIGINT) FROM run")?;
        compare("exosphere_states_requeued_total", &[], requeues);
        let breaches = "SELECT COUNT(*) FROM attempt WHERE kind IN ('limit', 'timeout')";
        compare("exosphere_limit_breaches_total", &[], self.number(breaches)?);
        Ok(differences)
    }

    /// Waits until the counters of some hosts equal the database. The last commit of a run may be
    /// counted a moment after it is read.
    fn hold(&self, hosts: &[&Host]) -> Result<()> {
        let end = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let scrapes = hosts.iter().map(|host| Scrape::of(host)).collect::<Result<Vec<_>>>()?;
            let differences = self.differences(&scrapes)?;
            if differences.is_empty() {
                return Ok(());
            }
            ensure!(std::time::Instant::now() < end, "{}", differences.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns a graph of `n` chores, of which each fifth requeues itself, is pruned or fails, and a
/// unite that their failures block.
fn chores(n: usize) -> Value {
    let inputs = json!({"i": "${{ splitter.outputs.i }}", "key": "n", "ms": 1,
                        "turns": ["go", "requeue", "prune", "fail", "go"]});
    json!({"retry_policy": {"max_retries": 1, "strategy": "FIXED", "backoff_factor": 1}, "nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["worker"]},
        {"node_name": "chore", "identifier": "worker", "inputs": inputs, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "unites": {"identifier": "splitter"},
         "inputs": {"values": "${{ splitter.outputs.i }}"}, "next_nodes": []},
    ]})
}

/// Returns a graph of one node, which is retried once.
fn one(node: &str, inputs: &Value, limits: &Value) -> Value {
    json!({"retry_policy": {"max_retries": 1, "strategy": "FIXED", "backoff_factor": 1}, "limits": limits, "nodes": [
        {"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []},
    ]})
}

/// Waits until nothing of a run is open: a cancelled run is swept after its end.
fn settled(host: &Host, run: &str) -> Result<Value> {
    host.wait_until(run, |run| run["status"] != "RUNNING" && run["counts"]["open"] == 0)
}

/// Starts runs of every outcome, and waits for their ends.
fn load(host: &Host) -> Result<()> {
    host.push("lab")?;
    host.push("hostile")?;
    let graphs = [
        ("chores", chores(60)),
        // Its children are staged.
        ("wide", chores(1_500)),
        ("trap", one("panic", &json!({"message": "a test"}), &json!({}))),
        ("slow", one("wait", &json!({"ms": 20_000, "value": 1}), &json!({"timeout_ms": 200}))),
        ("many", one("fan", &json!({"n": 20}), &json!({"outputs": 10}))),
        ("hang", one("wait", &json!({"ms": 20_000, "value": 1}), &json!({}))),
        ("good", one("echo", &json!({"value": 1}), &json!({}))),
    ];
    for (name, graph) in &graphs {
        host.apply(name, graph)?;
    }
    let start = |name: &str| host.run(name, &json!({}), &json!({}));
    let mut runs = Vec::new();
    for name in ["chores", "wide", "trap", "slow", "many", "good", "good"] {
        runs.push(start(name)?);
    }
    let cancelled = start("hang")?;
    host.send("POST", &format!("/runs/{cancelled}/cancel"), &json!({}))?;
    let late = host.send("POST", "/graphs/hang/runs", &json!({"deadline_ms": 300}))?;
    runs.push(cancelled);
    runs.push(late["run"].as_str().unwrap_or_default().to_owned());
    // A wide run that is cancelled in the middle.
    let wide = start("wide")?;
    host.wait_until(&wide, |run| run["counts"]["success"].as_i64() > Some(20))?;
    let _ = host.request("POST", &format!("/runs/{wide}/cancel"))?.json(&json!({})).send()?;
    runs.push(wide);
    runs.iter().try_for_each(|run| settled(host, run).map(drop))
}

#[test]
fn counters_equal_the_database() -> Result<()> {
    on_both("metricstruth", &["--slots", "8"], |host| {
        load(host)?;
        let on_postgres = !host.data().join("exosphere.db").is_file();
        let rows =
            if on_postgres { Rows::Postgres("metricstruth") } else { Rows::Sqlite(host.data()) };
        rows.hold(&[host])?;
        let scrape = Scrape::of(host)?;
        // None of them is 0, or the comparison would mean little.
        for (kind, least) in [("retryable", 300.0), ("trap", 1.0), ("timeout", 1.0), ("limit", 1.0)]
        {
            let errored = [("outcome", "errored"), ("kind", kind)];
            let errored = scrape.sum("exosphere_states_ended_total", &errored);
            ensure!(errored >= least, "{kind}: {errored}");
        }
        let of_good = [("namespace", "default"), ("graph", "good"), ("status", "SUCCESS")];
        ensure!(scrape.sum("exosphere_runs_ended_total", &of_good) == 2.0, "{}", scrape.text);
        let outputs = [("limit", "outputs")];
        ensure!(scrape.sum("exosphere_limit_breaches_total", &outputs) == 1.0, "{}", scrape.text);
        ensure!(scrape.sum("exosphere_guest_cpu_seconds_total", &[]) > 0.0, "{}", scrape.text);
        let claims = scrape.sum("exosphere_claim_wait_seconds_count", &[]);
        let invoked = scrape.sum("exosphere_invoke_seconds_count", &[]);
        ensure!(claims >= invoked && invoked > 1_000.0, "{claims} claims, {invoked} invocations");
        // A retry by hand counts another end of the same state.
        let failed = host.get("/runs?graph=trap&limit=1")?["runs"][0]["run"].clone();
        let failed = failed.as_str().unwrap_or_default();
        host.send("POST", &format!("/runs/{failed}/redrive"), &json!({}))?;
        settled(host, failed)?;
        until("the second end", || {
            let ended = [("graph", "trap"), ("status", "FAILED")];
            let ended = Scrape::of(host)?.sum("exosphere_runs_ended_total", &ended);
            Ok((ended == 2.0).then_some(()))
        })
    })
}

#[test]
fn counters_of_two_hosts_add_up() -> Result<()> {
    with_cluster(Postgres::shared()?, "metricshosts", &vec![Setup::slots(4); 2], |cluster| {
        load(cluster.host(0)?)?;
        let hosts = [cluster.host(0)?, cluster.host(1)?];
        Rows::Postgres("metricshosts").hold(&hosts)?;
        for host in hosts {
            let scrape = Scrape::of(host)?;
            let ended = scrape.sum("exosphere_states_ended_total", &[]);
            ensure!(ended > 0.0, "a host has done nothing");
            ensure!(scrape.value("exosphere_hosts_alive") == Some(2.0), "{}", scrape.text);
        }
        Ok(())
    })
}

#[test]
fn cut_commits_count_once() -> Result<()> {
    let setup = Setup { proxied: true, ..Setup::slots(8) };
    with_cluster(Postgres::shared()?, "metricscuts", &[setup], |cluster| {
        let host = cluster.host(0)?;
        host.push("lab")?;
        host.apply("chores", &chores(400))?;
        let mut cuts = 0;
        for _ in 0..4 {
            let run = until("a start", || Ok(host.run("chores", &json!({}), &json!({})).ok()))?;
            // Often enough that some connections are cut between a COMMIT and its answer.
            until("the end of the run", || {
                cluster.members()[0].proxy()?.cut();
                cuts += 1;
                std::thread::sleep(Duration::from_millis(60));
                let found = host.get(&format!("/runs/{run}")).ok();
                Ok(found.filter(|run| run["status"] != "RUNNING" && run["counts"]["open"] == 0))
            })?;
        }
        println!("{cuts} cuts");
        // The next commits learn how the lost ones have ended.
        until("a run without cuts", || {
            let Ok(run) = host.run("chores", &json!({}), &json!({})) else { return Ok(None) };
            settled(host, &run).map(Some)
        })?;
        Rows::Postgres("metricscuts").hold(&[host])
    })
}
