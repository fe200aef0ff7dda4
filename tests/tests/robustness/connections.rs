//! Connections that send nothing, half a request, too many requests, or an ambiguous host header.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::honest_traffic::{Bounds, HonestTraffic, alone, slack};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, good, problem, until};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;

use crate::{address, connect, until_closed};

/// Number of connections that stay idle.
const IDLE_CONNECTIONS: usize = 1_000;

/// Sets the limit of descriptors of a host that is about to start.
fn descriptors(command: &mut Command, max: u64) {
    let limit = Rlimit { current: Some(max), maximum: Some(max) };
    // SAFETY: one system call, which allocates nothing.
    #[expect(unsafe_code, reason = "the only way to do so between fork and exec")]
    unsafe {
        command.pre_exec(move || setrlimit(Resource::Nofile, limit).map_err(Into::into));
    }
}

#[test]
fn idle_connections_do_not_block_others() -> Result<()> {
    let _alone = alone();
    let folder = tempfile::tempdir()?;
    let set_up = |command: &mut Command| descriptors(command, 1024);
    let host = Host::start_with(folder.path(), &["--header-seconds", "600"], set_up)?;
    let traffic = HonestTraffic::start(&host)?;
    let mut idle = Vec::new();
    for number in 0..IDLE_CONNECTIONS {
        let mut stream = connect(&host)?;
        if number % 2 == 0 {
            stream.write_all(b"GET /health HTTP/1.1\r\nHo")?;
        }
        idle.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let held = ProcessStats(host.pid()).resources()?;
    let report = traffic.finish()?;
    report.hold(Bounds::default())?;
    // One peer has half of 1024, less 64 and two for each of 64 slots.
    ensure!(held.descriptors < 416 + 100, "{held}");
    Ok(())
}

#[test]
fn incomplete_headers_time_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--header-seconds", "2", "--idle-seconds", "4"];
    let host = Host::start_with(folder.path(), &flags, |_| ())?;
    let mut partial = connect(&host)?;
    partial.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Drip: ")?;
    let mut writer = partial.try_clone()?;
    std::thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let (text, elapsed) = until_closed(&mut partial)?;
    ensure!(
        text.is_empty() && elapsed < Duration::from_secs_f64(3.0 * slack()),
        "{text} {elapsed:?}"
    );
    let mut idle = connect(&host)?;
    let (_, elapsed) = until_closed(&mut idle)?;
    ensure!(elapsed < Duration::from_secs_f64(3.0 * slack()), "{elapsed:?}");
    Ok(())
}

#[test]
fn an_idle_connection_is_closed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--header-seconds", "1", "--idle-seconds", "3"];
    let host = Host::start_with(folder.path(), &flags, |_| ())?;
    let mut stream = connect(&host)?;
    for _ in 0..2 {
        write!(stream, "GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", address(&host))?;
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer)?;
        ensure!(answer[..read].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(1500));
    }
    let (_, elapsed) = until_closed(&mut stream)?;
    ensure!(elapsed < Duration::from_secs_f64(3.0 * slack()), "{elapsed:?}");
    Ok(())
}

/// All connections have open requests. `/health` is still answered, and other clients get a 503.
#[test]
fn a_full_host_still_answers_health() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--connections", "4"], |_| ())?;
    host.push("lab")?;
    host.apply(
        "slow",
        &json!({"nodes": [
            {"node_name": "wait", "identifier": "only", "inputs": {"ms": 20_000}, "next_nodes": []},
        ]}),
    )?;
    let run = host.run("slow", &json!({}), &json!({}))?;
    let watch = |stream: &mut TcpStream| {
        let path = format!("/v1/namespaces/default/runs/{run}?after=1000&wait_ms=30000");
        let (address, key) = (address(&host), host.authorization());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\r\n")
    };
    let mut watching: Vec<TcpStream> = Vec::new();
    // All of them come from one peer, which has two connections.
    let client = || host.client(exosphere_tests::MAX_WAIT);
    let refused = until("the host to be full", || {
        // A new connection replaces one whose request was not read yet.
        let mut stream = connect(&host)?;
        watch(&mut stream)?;
        watching.push(stream);
        let url = format!("{}/v1/namespaces/default/runs", host.url());
        let response = client()?.get(url).send()?;
        Ok((response.status() == 503).then_some(response))
    })?;
    ensure!(refused.headers()["retry-after"] == "1");
    let (_, found) = problem(refused)?;
    ensure!(found["type"] == "/problems/full", "{found:#}");
    ensure!(client()?.get(format!("{}/health", host.url())).send()?.status() == 200);
    let cancel = format!("{}/v1/namespaces/default/runs/{run}/cancel", host.url());
    ensure!(good(client()?.post(cancel).send()?)?["status"] == "CANCELLED");
    Ok(())
}

#[test]
fn a_stop_closes_idle_connections_immediately() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start_in(folder.path())?;
    let mut idle: Vec<TcpStream> = (0..50).map(|_| connect(&host)).collect::<Result<_>>()?;
    idle[0].write_all(b"GET /health HT")?;
    write!(idle[1], "GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", address(&host))?;
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    host.terminate()?;
    ensure!(host.wait()?.success());
    // Open requests would get two seconds.
    ensure!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    for stream in &mut idle {
        until_closed(stream)?;
    }
    Ok(())
}

fn raw(host: &Host, request: &str) -> Result<String> {
    let mut stream = connect(host)?;
    stream.write_all(request.replace("HERE", address(host)).as_bytes())?;
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[test]
fn an_ambiguous_host_header_is_rejected() -> Result<()> {
    let host = Host::start()?;
    for (request, status) in [
        ("GET /health HTTP/1.1\r\nHost: HERE\r\n\r\n", "200"),
        ("GET http://HERE/health HTTP/1.1\r\nHost: HERE\r\n\r\n", "200"),
        ("GET /health HTTP/1.1\r\n\r\n", "400"),
        ("GET /health HTTP/1.0\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nHost:\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nHost: \u{fc}\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nHost: HERE\r\nHost: HERE\r\n\r\n", "400"),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: HERE\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nHost: HERE\r\nSec-Fetch-Site: cross-site\r\n\r\n", "403"),
        ("GET /health HTTP/1.1\r\nHost: HERE\r\nSec-Fetch-Site: same-site\r\n\r\n", "403"),
        ("GET /health HTTP/1.1\r\nHost: HERE\r\nSec-Fetch-Site: none\r\n\r\n", "200"),
    ] {
        let found = raw(&host, request)?;
        ensure!(found == status, "{request:?}: {found}");
    }
    Ok(())
}
