//! Tests of the honest traffic itself: it accepts a responsive host, and detects a frozen one.

use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::honest_traffic::{self, Bounds, Cancelled, HonestTraffic};
use exosphere_tests::tenant::Tenant;
use exosphere_tests::until;
use rustix::process::Signal;
use serde_json::json;

fn spin() -> serde_json::Value {
    json!({
        "nodes": [{"node_name": "spin", "identifier": "only", "inputs": {}, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    })
}

#[test]
fn a_spinning_guest_delays_no_honest_run() -> Result<()> {
    let _alone = honest_traffic::alone();
    let mut host = Host::start()?;
    host.push("hostile")?;
    host.apply("spin", &spin())?;
    let traffic = HonestTraffic::start(&host)?;
    let tenant = Tenant { host: &host, name: "default" };
    let run = tenant.begin("spin")?;
    until("a state to be held", || Ok((host.holding()? != 0).then_some(())))?;
    std::thread::sleep(Duration::from_secs(1));
    let cancelled: Cancelled = honest_traffic::cancel_time(&tenant, &run)?;
    let report = traffic.finish()?;
    println!("{report}; {cancelled:?}");
    report.hold(Bounds::memory(1 << 30))?;
    cancelled.hold()?;
    ensure!(report.honest.count > 10 && report.health.count > 10, "{report}");
    let (elapsed, status) = honest_traffic::sigterm_time(&mut host)?;
    ensure!(status.success() && elapsed < Duration::from_secs(5), "{status} after {elapsed:?}");
    Ok(())
}

#[test]
fn a_stopped_host_exceeds_the_bounds() -> Result<()> {
    let _alone = honest_traffic::alone();
    let host = Host::start()?;
    let traffic = HonestTraffic::start(&host)?;
    std::thread::sleep(Duration::from_millis(300));
    host.signal(Signal::STOP)?;
    std::thread::sleep(Duration::from_secs(2));
    host.signal(Signal::CONT)?;
    let report = traffic.finish()?;
    let message = report.hold(Bounds::default()).err().map(|error| error.to_string());
    let message = message.unwrap_or_default();
    ensure!(
        message.contains("honest p99:") && message.contains("slowest /health:"),
        "{message:?} {report}"
    );
    Ok(())
}
