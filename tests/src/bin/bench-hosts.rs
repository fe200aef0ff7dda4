//! A benchmark of several hosts on one Postgres, compared with one host on SQLite. `cargo xtask
//! bench` does not run it. Loads are interleaved in rounds; medians are printed as a table. Hosts,
//! Postgres and load share the cores of one machine. The arguments select parts: throughput,
//! history, recovery, idle.
//!
//! Not here: a verdict. docs/reference/performance.md says what the figures mean.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Number of rounds of each load.
const ROUNDS: usize = 5;
/// Number of branches of the fanout of trivial nodes.
const TRIVIAL_RUNS: i64 = 10_000;
/// Number of branches of the fanout of waiting nodes, the milliseconds that each waits, and how
/// many of them a host runs at a time.
const WAITING_LOAD: (i64, i64, u32) = (800, 50, 8);
/// Number of finished states in the database.
const FINISHED_STATES: i64 = 1_000_000;
/// Time for which idle hosts are watched.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Number of timed host deaths.
const KILLS: usize = 3;

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let postgres = Postgres::start()?;
    println!("| figure | unit | median | least | most |");
    println!("|---|---|---|---|---|");
    let parts: [(&str, Part); 4] = [
        ("throughput", throughput),
        ("history", beside_history),
        ("recovery", recovery),
        ("idle", idle),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part(&postgres)?;
        }
    }
    Ok(())
}

/// A part of the benchmark.
type Part = fn(&Postgres) -> Result<()>;

/// Some hosts on one database: on Postgres, or one host on SQLite if there is none.
struct Hosts {
    name: String,
    hosts: Vec<Host>,
    _folders: TempDir,
}

impl Hosts {
    fn start(name: &str, postgres: Option<&Postgres>, count: usize, slots: u32) -> Result<Hosts> {
        let folders = tempfile::tempdir()?;
        let slots = slots.to_string();
        // Hosts of one database have one key.
        let key = folders.path().join("key").to_string_lossy().into_owned();
        let mut arguments = vec!["--slots", &slots, "--namespace-slots", &slots, "--key", &key];
        let database: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let url = postgres.map(|postgres| postgres.create_database(&database)).transpose()?;
        if let Some(url) = &url {
            arguments.extend(["--database", url]);
        }
        let start =
            |at: usize| Host::start_with(&folders.path().join(at.to_string()), &arguments, |_| ());
        let hosts: Vec<Host> = (0..count).map(start).collect::<Result<_>>()?;
        hosts[0].push("lab")?;
        let fan = |n: i64, node: &str, inputs: Value| {
            json!({"nodes": [
                {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["worker"]},
                {"node_name": node, "identifier": "worker", "inputs": inputs, "next_nodes": ["merger"]},
                {"node_name": "sum", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
                 "unites": {"identifier": "splitter"}, "next_nodes": []},
            ]})
        };
        let value = "${{ splitter.outputs.i }}";
        hosts[0].apply("trivial", &fan(TRIVIAL_RUNS, "echo", json!({"value": value})))?;
        let (branches, ms, _) = WAITING_LOAD;
        hosts[0].apply("waiting", &fan(branches, "wait", json!({"ms": ms, "value": value})))?;
        hosts[0].apply("single", &json!({"nodes": [
            {"node_name": "wait", "identifier": "only", "inputs": {"ms": 20_000}, "next_nodes": []},
        ]}))?;
        Ok(Hosts { name: name.to_owned(), hosts, _folders: folders })
    }

    /// Returns the states per second of one run, by the clock of its database.
    fn rate(&self, graph: &str) -> Result<f64> {
        let run = self.hosts[0].run(graph, &json!({}), &json!({}))?;
        let ended = self.hosts[0].wait_for(&run)?;
        ensure!(ended["status"] == "SUCCESS", "{ended:#}");
        let at = |key: &str| ended[key].as_f64().unwrap_or_default();
        let states = ended["counts"]["states"].as_f64().context("a run counts its states")?;
        Ok(states / (at("ended_at") - at("created_at")).max(1.0) * 1000.0)
    }
}

/// Runs one load on several hosts, in turn, after an uncounted round.
fn rounds(all: &[Hosts], graph: &str) -> Result<Vec<Vec<f64>>> {
    let mut rates = vec![Vec::new(); all.len()];
    for round in 0..=ROUNDS {
        for (hosts, rates) in all.iter().zip(&mut rates) {
            let rate = hosts.rate(graph)?;
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    Ok(rates)
}

fn print(name: &str, unit: &str, figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let (min, max) = (figures[0], figures[figures.len() - 1]);
    let median = figures[figures.len() / 2];
    println!("| {name} | {unit} | {median:.2} | {min:.2} | {max:.2} |");
    median
}

fn throughput(postgres: &Postgres) -> Result<()> {
    for (graph, slots) in [("trivial", 64), ("waiting", WAITING_LOAD.2)] {
        let name = |count: usize| match count {
            1 => format!("{graph} nodes, Postgres, 1 host"),
            many => format!("{graph} nodes, Postgres, {many} hosts"),
        };
        let mut all = vec![Hosts::start(&format!("{graph} nodes, SQLite"), None, 1, slots)?];
        for count in [1, 2, 4] {
            all.push(Hosts::start(&name(count), Some(postgres), count, slots)?);
        }
        let mut medians = Vec::new();
        for (hosts, figures) in all.iter().zip(&mut rounds(&all, graph)?) {
            medians.push(print(&hosts.name, "states/s", figures));
        }
        println!("| {graph} nodes, 4 hosts : 1 host | | {:.2} | | |", medians[3] / medians[1]);
    }
    Ok(())
}

/// Runs the same load on an empty database and beside a million finished states.
fn beside_history(postgres: &Postgres) -> Result<()> {
    let all = [
        Hosts::start("trivial nodes, empty database", Some(postgres), 1, 64)?,
        Hosts::start("trivial nodes, beside 1,000,000 finished states", Some(postgres), 1, 64)?,
    ];
    all[1].rate("trivial")?;
    let database: String = all[1].name.chars().filter(char::is_ascii_alphanumeric).collect();
    postgres.psql(&database, &prefill())?;
    let mut rates = rounds(&all, "trivial")?;
    let medians: Vec<f64> = all
        .iter()
        .zip(&mut rates)
        .map(|(hosts, figures)| print(&hosts.name, "states/s", figures))
        .collect();
    println!("| beside 1,000,000 finished states : empty | | {:.2} | | |", medians[1] / medians[0]);
    Ok(())
}

/// Returns the SQL that copies the rows of the existing run until there are enough finished states:
/// runs of their own, with outputs.
fn prefill() -> String {
    let copies = FINISHED_STATES / (TRIVIAL_RUNS + 2);
    let mut sql = String::from("SET client_min_messages = warning;");
    // The columns that name a run or a state; the copies get ids of their own.
    let tables = [
        ("run", "id = id + n * 100000000, uuid = gen_random_uuid()::TEXT"),
        ("state", "id = id + n * 100000000, run = run + n * 100000000"),
        ("output", "state = state + n * 100000000"),
    ];
    for (table, numbers) in tables {
        sql.push_str(&format!(
            "CREATE TEMP TABLE copy_of_{table} AS SELECT t.*, n \
             FROM {table} t, generate_series(1::BIGINT, {copies}) n; \
             UPDATE copy_of_{table} SET {numbers}; \
             ALTER TABLE copy_of_{table} DROP COLUMN n; \
             INSERT INTO {table} SELECT * FROM copy_of_{table};"
        ));
    }
    sql.push_str("ANALYZE;");
    sql
}

/// Measures the time from the death of a host until another host executes its states.
fn recovery(postgres: &Postgres) -> Result<()> {
    let mut durations = Vec::new();
    for turn in 0..KILLS {
        let mut all = Hosts::start(&format!("recovery {turn}"), Some(postgres), 2, 8)?;
        let run = all.hosts[0].run("single", &json!({}), &json!({}))?;
        let holder = until("an execution", || {
            let holders = all.hosts.iter().map(Host::holding).collect::<Result<Vec<_>>>()?;
            Ok(holders.iter().position(|held| *held > 0))
        })?;
        all.hosts.remove(holder).kill()?;
        let killed_at = Instant::now();
        until("the other host", || Ok((all.hosts[0].holding()? > 0).then_some(())))?;
        durations.push(killed_at.elapsed().as_secs_f64());
        all.hosts[0].send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    }
    print("kill -9 of a host, until another executes what it had", "s", &mut durations);
    Ok(())
}

/// Measures the transactions of idle hosts.
fn idle(postgres: &Postgres) -> Result<()> {
    let hosts = Hosts::start("idle", Some(postgres), 4, 64)?;
    let query_rate = || -> Result<f64> {
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'idle'";
        Ok(postgres.psql("postgres", sql)?.trim().parse()?)
    };
    // The statements of the start reach the statistics a little later.
    std::thread::sleep(Duration::from_secs(12));
    let before = query_rate()?;
    std::thread::sleep(IDLE_TIME);
    let queries =
        (query_rate()? - before) / hosts.hosts.len() as f64 / IDLE_TIME.as_secs_f64() * 60.0;
    println!("| idle host on Postgres | queries/min | {queries:.1} | | |");
    Ok(())
}
