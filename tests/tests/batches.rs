//! Batches are bounded by bytes: results, inputs and logs of one tenant, however large, do
//! not hold up another's runs, nor the cancel of their own, on both databases.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use exosphere_tests::beside::{Beside, Bounds, alone, cancel_time};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, check, component, good, until};
use serde_json::{Value, json};

/// Bytes of one of the large outputs: under the limit of 4 MiB, and eight of them under that
/// of 32 MiB for all.
const LARGE: usize = 3_900_000;

/// Runs a test on a host on SQLite and on one on Postgres; afterwards every invariant is
/// recounted.
fn on_both(name: &str, test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let _alone = alone();
    let url = Postgres::shared()?.create_database(name)?;
    for database in [None, Some(url.as_str())] {
        let folder = tempfile::tempdir()?;
        let arguments = database.map(|url| vec!["--database", url]).unwrap_or_default();
        let host = Host::start_with(folder.path(), &arguments, |_| ())?;
        let named = || format!("on {}", database.unwrap_or("SQLite"));
        test(&host).with_context(named)?;
        drop(host);
        match database {
            Some(url) => check(&["--database", url])?,
            None => check(&["--data", &folder.path().to_string_lossy()])?,
        }
    }
    Ok(())
}

fn attacker<'a>(host: &'a Host, plugins: &[&str]) -> Result<Tenant<'a>> {
    let tenant = Tenant { host, name: "attacker" };
    for plugin in plugins {
        tenant.push(plugin)?;
    }
    Ok(tenant)
}

fn begin(tenant: &Tenant<'_>, graph: &str, inputs: &Value) -> Result<String> {
    let path = tenant.path(&format!("/graphs/{graph}/runs"));
    let run = tenant.host.send("POST", &path, &json!({ "inputs": inputs }))?;
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

/// Nodes that return eight outputs of 4 MB each, so many at a time.
fn large_outputs(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "large", "inputs": {"value": 0}, "next_nodes": ["many"]},
        {"node_name": "fan", "identifier": "many", "inputs": {"n": branches}, "next_nodes": ["heavy"]},
        {"node_name": "fan", "identifier": "heavy",
         "inputs": {"n": 8, "value": "${{ large.outputs.value }}"}, "next_nodes": []},
    ]})
}

#[test]
fn large_outputs_hold_up_nobody() -> Result<()> {
    on_both("large_outputs", |host| {
        let tenant = attacker(host, &["lab"])?;
        tenant.apply("large", &large_outputs(100))?;
        let honest = Beside::start(host)?;
        let run = begin(&tenant, "large", &json!({"value": "x".repeat(LARGE)}))?;
        until("the first large results", || {
            let found = tenant.run(&run)?;
            Ok((found["counts"]["success"].as_u64() > Some(6)).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(4));
        let cancelled = cancel_time(&tenant, &run)?;
        let report = honest.finish()?;
        println!("{report}; {cancelled:?}");
        // 48 slots, each with a result of 32 MB, its inputs and a guest; and the budget of
        // what waits.
        report.hold(Bounds { memory: Some(4 << 30), ..Bounds::default() })?;
        ensure!(cancelled.answered < Duration::from_millis(500), "{cancelled:?}");
        cancelled.hold()
    })
}

#[test]
fn large_starts_hold_up_nobody() -> Result<()> {
    on_both("large_starts", |host| {
        let tenant = attacker(host, &["lab"])?;
        let echo = json!({"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []});
        tenant.apply("echo", &json!({ "nodes": [echo] }))?;
        let honest = Beside::start(host)?;
        let body =
            format!(r#"{{"inputs":{{"value":"{}"}},"delay_ms":600000}}"#, "x".repeat(20 << 20));
        let path = tenant.path("/graphs/echo/runs");
        std::thread::scope(|scope| {
            let start = || -> Result<()> {
                let request = host.request("POST", &path)?.body(body.clone());
                good(request.header("content-type", "application/json").send()?).map(drop)
            };
            let starts: Vec<_> =
                (0..4).map(|_| scope.spawn(move || (0..4).try_for_each(|_| start()))).collect();
            starts
                .into_iter()
                .try_for_each(|it| it.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
        })?;
        let report = honest.finish()?;
        println!("{report}");
        report.hold(Bounds::default())
    })
}

#[test]
fn logs_of_retries_hold_up_nobody() -> Result<()> {
    on_both("logs", |host| {
        let tenant = Tenant { host, name: "attacker" };
        let path = tenant.path("/plugins?name=hostile");
        good(host.request("POST", &path)?.body(component("hostile")?).send()?)?;
        tenant.push("lab")?;
        // It fails after 250 kB of log.
        tenant.apply("logs", &json!({
            "nodes": [
                {"node_name": "fan", "identifier": "many", "inputs": {"n": 200}, "next_nodes": ["logs"]},
                {"node_name": "log_flood", "identifier": "logs", "next_nodes": [],
                 "inputs": {"lines": 500, "bytes": 500}, "limits": {"host_calls": 499}},
            ],
            "retry_policy": {"max_retries": 1000, "strategy": "FIXED", "backoff_factor": 0},
        }))?;
        let honest = Beside::start(host)?;
        let run = tenant.begin("logs")?;
        std::thread::sleep(Duration::from_secs(5));
        let cancelled = cancel_time(&tenant, &run)?;
        let report = honest.finish()?;
        println!("{report}; {cancelled:?}");
        report.hold(Bounds::default())?;
        cancelled.hold()
    })
}
