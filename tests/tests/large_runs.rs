//! Large runs, on both databases: a fanout of 200,000, its cancel, and a redrive of many states.
//! They are written in pieces, delay no other run, and survive a crash of the host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use exosphere_tests::honest_traffic::{Bounds, HonestTraffic, alone, cancel_time};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, check, until};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Maximum number of outputs that a state may return.
const BRANCHES: u32 = 200_000;

/// A database on which hosts are started one after the other.
struct Harness<'a> {
    name: &'a str,
    folder: &'a std::path::Path,
    database: Option<&'a str>,
}

impl Harness<'_> {
    fn host(&self) -> Result<Host> {
        let database = self.database.map(|url| vec!["--database", url]).unwrap_or_default();
        let timeout = ["--limit", "timeout_ms=600s"];
        let arguments: Vec<_> = database.into_iter().chain(timeout).collect();
        Host::start_with(self.folder, &arguments, |_| ())
    }

    /// Checks all invariants, also while a host is running.
    fn check(&self) -> Result<()> {
        match self.database {
            Some(url) => check(&["--database", url]),
            None => check(&["--data", &self.folder.to_string_lossy()]),
        }
    }

    /// Counts the rows of a table.
    fn count(&self, table: &str) -> Result<i64> {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        match self.database {
            Some(_) => Ok(Postgres::shared()?.psql(self.name, &sql)?.trim().parse()?),
            None => {
                let file = self.folder.join("exosphere.db");
                let database =
                    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                database.busy_timeout(Duration::from_secs(10))?;
                Ok(database.query_row(&sql, [], |row| row.get(0))?)
            }
        }
    }
}

/// Runs a test on both databases, and then checks all invariants.
fn on_both(name: &str, test: impl Fn(&Harness) -> Result<()>) -> Result<()> {
    let _alone = alone();
    let url = Postgres::shared()?.create_database(name)?;
    for database in [None, Some(url.as_str())] {
        let folder = tempfile::tempdir()?;
        let harness = Harness { name, folder: folder.path(), database };
        test(&harness)
            .and_then(|()| harness.check())
            .with_context(|| format!("on {database:?}"))?;
    }
    Ok(())
}

fn owner(host: &Host) -> Result<Tenant<'_>> {
    let tenant = Tenant { host, name: "large" };
    tenant.push("lab")?;
    Ok(tenant)
}

/// Returns a fanout whose branches wait for a minute.
fn wide(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": branches}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter",
         "inputs": {"ms": 60_000, "value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ waiter.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]})
}

#[test]
fn a_wide_fanout_does_not_delay_others() -> Result<()> {
    on_both("wide", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        tenant.apply("wide", &wide(BRANCHES))?;
        let honest = HonestTraffic::start(&host)?;
        let run = tenant.begin("wide")?;
        let states = until("the fan", || {
            let found = tenant.run(&run)?;
            let states = found["counts"]["states"].as_u64().unwrap_or_default();
            Ok((states > 1).then_some(states))
        })?;
        // A state is finished together with its children and unites, so all states exist now.
        ensure!(states == u64::from(BRANCHES) + 2, "{states} states");
        let cancelled = cancel_time(&tenant, &run)?;
        until("the sweep", || {
            let open = tenant.run(&run)?["counts"]["open"].as_u64();
            Ok((open == Some(0)).then_some(()))
        })?;
        let report = honest.finish()?;
        println!("{report}; {cancelled:?}");
        report.hold(Bounds::default())?;
        cancelled.hold()
    })
}

#[test]
fn a_cancel_ends_a_staged_fanout() -> Result<()> {
    on_both("halfway", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        tenant.apply("wide", &wide(BRANCHES))?;
        let run = tenant.begin("wide")?;
        until("a piece of the fan", || Ok((harness.count("staged")? > 0).then_some(())))?;
        ensure!(tenant.list(&run, "")?.len() == 1, "a staged state is visible");
        harness.check()?;
        let cancelled = cancel_time(&tenant, &run)?;
        println!("{cancelled:?}");
        until("the removal of the pieces", || Ok((harness.count("staged")? == 0).then_some(())))?;
        let found = tenant.run(&run)?;
        ensure!(found["counts"]["states"] == 1 && harness.count("state")? == 1, "{found}");
        ensure!(harness.count("output")? == 0);
        cancelled.hold()
    })
}

#[test]
fn a_killed_host_leaves_no_partial_fanout() -> Result<()> {
    on_both("fan_killed", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        let mut graph = wide(20_000);
        graph["nodes"][1]["inputs"]["ms"] = json!(0);
        tenant.apply("wide", &graph)?;
        let run = tenant.begin("wide")?;
        until("a piece of the fan", || Ok((harness.count("staged")? > 0).then_some(())))?;
        host.kill()?;
        ensure!(harness.count("staged")? == 1, "the host was not killed during staging");
        harness.check()?;
        let host = harness.host()?;
        let tenant = Tenant { host: &host, name: "large" };
        let ended = tenant.result(&run)?;
        ensure!(ended["status"] == "SUCCESS" && ended["counts"]["success"] == 20_002, "{ended}");
        let merged = tenant.output(&run, "merger")?;
        ensure!(merged["values"] == json!((0..20_000).collect::<Vec<_>>()), "in order");
        ensure!(harness.count("staged")? == 0);
        Ok(())
    })
}

/// Returns a graph with `branches` branches, each of which fails once.
fn failing(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": branches}, "next_nodes": ["worker"]},
        {"node_name": "fail_when", "identifier": "worker", "next_nodes": ["merger"],
         "inputs": {"value": "x", "equals": "x", "until_attempt": 1}},
        {"node_name": "collect", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]})
}

fn redrive(tenant: &Tenant<'_>, run: &str) -> Result<Value> {
    tenant.host.send("POST", &tenant.path(&format!("/runs/{run}/redrive")), &json!({}))
}

#[test]
fn a_large_redrive_does_not_delay_others() -> Result<()> {
    const FAILED_BRANCHES: u32 = 20_000;
    on_both("redriven", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        let run = tenant.start("failing", &failing(FAILED_BRANCHES))?;
        let failed = tenant.result(&run)?;
        ensure!(failed["counts"]["errored"] == FAILED_BRANCHES + 1, "{failed}");
        let honest = HonestTraffic::start(&host)?;
        let redriven = redrive(&tenant, &run)?;
        ensure!(redriven["retried"] == FAILED_BRANCHES && redriven["late"] == 0, "{redriven}");
        let healed = tenant.result(&run)?;
        let report = honest.finish()?;
        println!("{report}");
        ensure!(
            healed["status"] == "SUCCESS" && healed["counts"]["success"] == FAILED_BRANCHES + 2
        );
        report.hold(Bounds::default())
    })
}

#[test]
fn a_killed_host_leaves_no_partial_redrive() -> Result<()> {
    const FAILED_BRANCHES: u32 = 5_000;
    on_both("redrive_killed", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        let run = tenant.start("failing", &failing(FAILED_BRANCHES))?;
        tenant.result(&run)?;
        let held_back = "state WHERE status = 'CREATED' AND held_back = 1";
        std::thread::scope(|scope| -> Result<()> {
            let redrive_thread = scope.spawn(|| redrive(&tenant, &run));
            until("the first states to be open", || {
                Ok((harness.count(held_back)? > 0).then_some(()))
            })?;
            host.signal(rustix::process::Signal::KILL)?;
            ensure!(
                redrive_thread.join().is_ok_and(|answer| answer.is_err()),
                "the host was not killed during the redrive"
            );
            Ok(())
        })?;
        host.kill()?;
        let open = harness.count(held_back)?;
        ensure!((1..i64::from(FAILED_BRANCHES)).contains(&open), "{open} are open");
        harness.check()?;
        let host = harness.host()?;
        let tenant = Tenant { host: &host, name: "large" };
        let redriven = until("the end of the redrive", || {
            let found = tenant.run(&run)?;
            Ok((found["status"] == "SUCCESS").then_some(found))
        })?;
        ensure!(redriven["counts"]["success"] == FAILED_BRANCHES + 2, "{redriven}");
        Ok(())
    })
}

#[test]
fn a_run_cannot_exceed_its_state_limit() -> Result<()> {
    on_both("run_states", |harness| {
        let host = harness.host()?;
        let tenant = owner(&host)?;
        let mut graph = wide(30_000);
        graph["limits"] = json!({"run_states": 20_000});
        let run = tenant.start("limited", &graph)?;
        let ended = tenant.result(&run)?;
        let failure = &ended["failures"][0]["failure"];
        ensure!(
            ended["status"] == "FAILED" && failure["details"]["limit"] == "run_states",
            "{ended}"
        );
        ensure!(ended["counts"]["states"] == 1 && ended["counts"]["retries"] == 0, "{ended}");
        Ok(())
    })
}
