//! `/healthz`, `/readyz` and `/metrics` while the database is away, and while a host stops.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

use crate::scrape::Scrape;

/// The longest time of an answer during an outage. Each is made without the database.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(1);

/// Returns the status and the answer of a probe, without a key.
fn probe(host: &Host, path: &str) -> Result<(u16, Value)> {
    let client = reqwest::blocking::Client::new();
    let began_at = Instant::now();
    let answer = client.get(format!("{}{path}", host.url())).send()?;
    let status = answer.status().as_u16();
    let found = serde_json::from_str(&answer.text()?)?;
    ensure!(began_at.elapsed() < MAX_ANSWER_TIME, "{path} took {:?}", began_at.elapsed());
    Ok((status, found))
}

#[test]
fn probes_tell_an_outage() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("probes")?;
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--database", &url], |_| ())?;
    ensure!(probe(&host, "/healthz")? == (200, json!({"status": "ok"})));
    ensure!(probe(&host, "/readyz")? == (200, json!({"status": "ready"})));
    until("the figures of the database", || {
        let scrape = Scrape::of(&host)?;
        let is_up = scrape.value("exosphere_db_up") == Some(1.0);
        Ok((is_up && scrape.value("exosphere_db_bytes") > Some(1e6)).then_some(()))
    })?;
    postgres.stop(Mode::Immediate)?;
    let (status, problem) =
        until("the outage", || Ok(Some(probe(&host, "/readyz")?).filter(|(it, _)| *it != 200)))?;
    ensure!(status == 503 && problem["type"] == "/problems/unavailable", "{problem}");
    ensure!(problem.to_string().contains("the database is unavailable"), "{problem}");
    ensure!(probe(&host, "/healthz")?.0 == 200, "a restart would not help");
    let began_at = Instant::now();
    let scrape = Scrape::of(&host)?;
    ensure!(began_at.elapsed() < MAX_ANSWER_TIME, "{:?}", began_at.elapsed());
    let found = ["exosphere_db_up", "exosphere_ready"].map(|name| scrape.value(name));
    ensure!(found == [Some(0.0), Some(0.0)], "{}", scrape.text);
    postgres.start_again()?;
    until("the end of the outage", || Ok((probe(&host, "/readyz")?.0 == 200).then_some(())))
}

#[test]
fn a_stopping_host_is_not_ready() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({"nodes": [{"node_name": "wait", "identifier": "only", "next_nodes": [],
                                  "inputs": {"ms": 4_000, "value": 1}}]});
    host.apply("wait", &graph)?;
    host.run("wait", &json!({}), &json!({}))?;
    until("the execution", || {
        Ok((Scrape::of(&host)?.value("exosphere_slots_used") == Some(1.0)).then_some(()))
    })?;
    host.terminate()?;
    let (status, problem) =
        until("the stop", || Ok(Some(probe(&host, "/readyz")?).filter(|(it, _)| *it != 200)))?;
    ensure!(status == 503 && problem.to_string().contains("stopping"), "{problem}");
    ensure!(probe(&host, "/healthz")?.0 == 200);
    ensure!(Scrape::of(&host)?.value("exosphere_ready") == Some(0.0));
    Ok(())
}
