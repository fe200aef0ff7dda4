//! Memory of parsed JSON, which may be much more than its text: limited for each value, and shared
//! in turns by many.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, problem};
use serde_json::{Value, json};

/// Returns the list `[1,1,..]` as text of about `bytes` bytes.
fn ones(bytes: usize) -> String {
    format!("[{}1]", "1,".repeat(bytes / 2))
}

fn node(identifier: &str, value: &Value, next: &[&str]) -> Value {
    json!({"node_name": "echo", "identifier": identifier, "inputs": {"value": value}, "next_nodes": next})
}

fn host() -> Result<Host> {
    let host = Host::start()?;
    host.push("lab")?;
    let from_first = json!("${{ first.outputs.value }}");
    let nodes = [node("first", &json!(0), &["second"]), node("second", &from_first, &[])];
    host.apply("echo", &json!({ "nodes": nodes }))?;
    Ok(host)
}

fn start(host: &Host, list: &str) -> Result<reqwest::blocking::Response> {
    let body = format!(r#"{{"inputs":{{"value":{list}}}}}"#);
    let request = host.request("POST", "/graphs/echo/runs")?;
    Ok(request.header("content-type", "application/json").body(body).send()?)
}

#[test]
fn oversized_start_json_is_rejected_cheaply() -> Result<()> {
    let host = host()?;
    let (status, found) = problem(start(&host, &ones(30 << 20))?)?;
    let message = found["detail"].as_str().context("no detail")?;
    ensure!(status == 413 && message.contains("--limit json_bytes="), "{found}");
    let peak = ProcessStats(host.pid()).memory_kb("VmHWM")? / 1024;
    ensure!(peak < 250, "the rejection took {peak} MB");
    Ok(())
}

#[test]
fn runs_with_large_json_take_turns() -> Result<()> {
    let host = host()?;
    let list = ones(1 << 20);
    // One first, to measure its memory.
    let run = |host: &Host| -> Result<String> {
        let started: Value = exosphere_tests::good(start(host, &list)?)?;
        Ok(started["run"].as_str().context("no id")?.to_owned())
    };
    ensure!(host.wait_for(&run(&host)?)?["status"] == "SUCCESS");
    let baseline = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    let runs: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..12).map(|_| scope.spawn(|| run(&host))).collect();
        starts
            .into_iter()
            .map(|start| start.join().map_err(|_| anyhow::anyhow!("panicked"))?)
            .collect::<Result<_>>()
    })?;
    for run in &runs {
        ensure!(host.wait_for(run)?["status"] == "SUCCESS");
    }
    let all = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    ensure!(all < 4 * baseline, "one took {} MB, twelve took {} MB", baseline / 1024, all / 1024);
    Ok(())
}

#[test]
fn oversized_inputs_exceed_the_json_limit() -> Result<()> {
    let host = host()?;
    let nodes = [json!({"node_name": "echo", "identifier": "first", "inputs": {"value": 0},
        "next_nodes": [], "limits": {"json_bytes": 2 << 20}})];
    host.apply("echo", &json!({ "nodes": nodes }))?;
    let started: Value = exosphere_tests::good(start(&host, &ones(100_000))?)?;
    let ended = host.wait_for(started["run"].as_str().context("no id")?)?;
    let failure = &ended["failures"][0]["failure"];
    ensure!(failure["kind"] == "limit" && failure["details"]["limit"] == "json_bytes", "{ended:#}");
    Ok(())
}

#[test]
fn stalled_bodies_do_not_block_others() -> Result<()> {
    let host = host()?;
    let mut connections = Vec::new();
    for namespace in ["a", "b", "c"] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(host.url().trim_start_matches("http://"))?;
            write!(
                stream,
                "POST /v1/namespaces/{namespace}/graphs/echo/runs HTTP/1.1\r\nhost: localhost\r\n\
                 authorization: {}\r\n\
                 content-type: application/json\r\ncontent-length: 30000000\r\n\r\n{{",
                host.authorization()
            )?;
            connections.push(stream);
        }
    }
    // The stalled requests end after ten seconds without a byte; this run did not wait for them.
    let started = Instant::now();
    let answer: Value = exosphere_tests::good(start(&host, &ones(1 << 20))?)?;
    ensure!(host.wait_for(answer["run"].as_str().context("no id")?)?["status"] == "SUCCESS");
    let elapsed = started.elapsed();
    ensure!(elapsed < Duration::from_secs(8), "it took {elapsed:?}");
    for mut stream in connections {
        stream.set_nonblocking(true)?;
        let answer = stream.read(&mut [0; 1]).map_err(|error| error.kind());
        ensure!(answer == Err(ErrorKind::WouldBlock), "a body was not waited for: {answer:?}");
    }
    Ok(())
}
