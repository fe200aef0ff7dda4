//! Batches bounded by bytes, on both databases: large outputs and inputs of one namespace delay
//! neither the runs of another nor its own cancels.
//!
//! Not here: logs, which count with the rest (`committer/cost.rs`).

use std::time::Duration;

use anyhow::{Context, Result};
use exosphere_tests::honest_traffic::{Bounds, Cancelled, HonestTraffic, alone, cancel_time};
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, both_databases, good, until};
use serde_json::{Value, json};

/// Bytes of one large output: below the limit of 4 MiB; eight of them are below the limit of 32 MiB
/// for all outputs.
const LARGE_OUTPUT_BYTES: usize = 3_900_000;

/// Bound for the memory of a host with 48 slots of one namespace. Each slot has 32 MB of outputs,
/// its inputs and a guest; further operations wait for the committer.
const MEMORY_LIMIT_BYTES: u64 = 4 << 30;

/// The p99 of honest runs beside outputs of 30 MB each: a debug build takes many times as long to
/// render, read and send them.
const MAX_START_TIME: Duration = Duration::from_millis(500);

/// The slowest answer of `/health` here: to read 4 MB of JSON in a debug build occupies a thread
/// for longer than a request may take.
const MAX_HEALTH_TIME: Duration = Duration::from_millis(500);

/// Number of nodes with large outputs: enough that some are always executing.
const BRANCHES: u32 = 24;

/// Runs a test on both databases, while no other test runs.
fn on_both(name: &str, test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let _alone = alone();
    both_databases::on_both(name, &[], test)
}

fn attacker(host: &Host) -> Result<Tenant<'_>> {
    let tenant = Tenant { host, name: "attacker" };
    tenant.push("lab")?;
    Ok(tenant)
}

fn begin(tenant: &Tenant<'_>, graph: &str, inputs: &Value) -> Result<String> {
    let path = tenant.path(&format!("/graphs/{graph}/runs"));
    let run = tenant.host.send("POST", &path, &json!({ "inputs": inputs }))?;
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

/// Returns a graph of nodes that return eight outputs of 4 MB each, `branches` at a time.
fn large_outputs(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "large", "inputs": {"value": 0}, "next_nodes": ["many"]},
        {"node_name": "fan", "identifier": "many", "inputs": {"n": branches}, "next_nodes": ["heavy"]},
        {"node_name": "fan", "identifier": "heavy",
         "inputs": {"n": 8, "value": "${{ large.outputs.value }}"}, "next_nodes": []},
    ]})
}

#[test]
fn large_outputs_do_not_delay_others() -> Result<()> {
    on_both("large_outputs", |host| {
        let tenant = attacker(host)?;
        tenant.apply("large", &large_outputs(BRANCHES))?;
        let honest = HonestTraffic::start(host)?;
        let run = begin(&tenant, "large", &json!({"value": "x".repeat(LARGE_OUTPUT_BYTES)}))?;
        until("the first large results", || {
            let found = tenant.run(&run)?;
            Ok((found["counts"]["success"].as_u64() > Some(6)).then_some(()))
        })?;
        let cancelled = cancel_time(&tenant, &run)?;
        let report = honest.finish()?;
        println!("{report}; {cancelled:?}");
        report.hold(Bounds {
            honest_p99: MAX_START_TIME,
            health: MAX_HEALTH_TIME,
            memory: Some(MEMORY_LIMIT_BYTES),
        })?;
        // Outputs are checked in turns, so that executions end later.
        Cancelled { stopped: cancelled.answered, ..cancelled }.hold()
    })
}

#[test]
fn large_starts_do_not_delay_others() -> Result<()> {
    on_both("large_starts", |host| {
        let tenant = attacker(host)?;
        let echo = json!({"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []});
        tenant.apply("echo", &json!({ "nodes": [echo] }))?;
        let honest = HonestTraffic::start(host)?;
        let body =
            format!(r#"{{"inputs":{{"value":"{}"}},"delay_ms":600000}}"#, "x".repeat(8 << 20));
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
        report.hold(Bounds { health: MAX_HEALTH_TIME, ..Bounds::default() })
    })
}
