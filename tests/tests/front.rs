//! A host and its surroundings: connections that send nothing, half a request or too much; large
//! reads; a standard error without a reader; data folders that are open to other users; killed
//! compilers.
//!
//! Not here: invalid requests (`invalid_requests`).

#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::guest;
use exosphere_tests::honest_traffic::{Bounds, HEALTH_MAX, HonestTraffic, alone, slack};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, failing_start, good, problem, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use serde_json::{Value, json};

/// Connections that stay idle.
const IDLE: usize = 1_000;

fn address(host: &Host) -> &str {
    host.url().trim_start_matches("http://")
}

fn connect(host: &Host) -> Result<TcpStream> {
    let stream = TcpStream::connect(address(host))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Reads until the host closes the connection. Returns the text and the time that it took.
fn until_closed(stream: &mut TcpStream) -> Result<(String, Duration)> {
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok((String::from_utf8_lossy(&bytes).into_owned(), begun.elapsed())),
    }
}

/// Sets the limit of descriptors of a host that is about to start.
fn descriptors(command: &mut Command, most: u64) {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
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
    for number in 0..IDLE {
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
    // 1024, less 64, less two for each of 64 slots: one peer has half of that.
    ensure!(held.descriptors < 416 + 100, "{held}");
    Ok(())
}

#[test]
fn incomplete_headers_time_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--header-seconds", "2", "--idle-seconds", "4"];
    let host = Host::start_with(folder.path(), &flags, |_| ())?;
    let mut half = connect(&host)?;
    half.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Drip: ")?;
    let mut drip = half.try_clone()?;
    std::thread::spawn(move || {
        while drip.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let (said, took) = until_closed(&mut half)?;
    ensure!(said.is_empty() && took < Duration::from_secs_f64(3.0 * slack()), "{said} {took:?}");
    let mut silent = connect(&host)?;
    let (_, took) = until_closed(&mut silent)?;
    ensure!(took < Duration::from_secs_f64(3.0 * slack()), "{took:?}");
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
    let (_, took) = until_closed(&mut stream)?;
    ensure!(took < Duration::from_secs_f64(3.0 * slack()), "{took:?}");
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
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", address(&host))
    };
    let mut watching: Vec<TcpStream> = Vec::new();
    // All of them come from one peer, which has two connections.
    let client = || reqwest::blocking::Client::new();
    let refused = until("the host to be full", || {
        // A new connection replaces one whose request was not read yet.
        let mut stream = connect(&host)?;
        watch(&mut stream)?;
        watching.push(stream);
        let url = format!("{}/v1/namespaces/default/runs", host.url());
        let response = client().get(url).send()?;
        Ok((response.status() == 503).then_some(response))
    })?;
    ensure!(refused.headers()["retry-after"] == "1");
    let (_, found) = problem(refused)?;
    ensure!(found["type"] == "urn:exosphere:problem:full", "{found:#}");
    ensure!(client().get(format!("{}/health", host.url())).send()?.status() == 200);
    let cancel = format!("{}/v1/namespaces/default/runs/{run}/cancel", host.url());
    ensure!(good(client().post(cancel).send()?)?["status"] == "CANCELLED");
    Ok(())
}

#[test]
fn a_stop_closes_idle_connections_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start_in(folder.path())?;
    let mut idle: Vec<TcpStream> = (0..50).map(|_| connect(&host)).collect::<Result<_>>()?;
    idle[0].write_all(b"GET /health HT")?;
    write!(idle[1], "GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", address(&host))?;
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    host.terminate()?;
    ensure!(host.wait()?.success());
    // Open requests would get two seconds.
    ensure!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    for stream in &mut idle {
        until_closed(stream)?;
    }
    Ok(())
}

/// Builds a plugin whose input `x` is costly to check: each level costs four times the one below.
fn costly_plugin(levels: usize) -> Result<Vec<u8>> {
    let mut schemas = serde_json::Map::new();
    for level in 0..levels {
        let below = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        schemas.insert(format!("d{level}"), json!({"allOf": vec![below; 4]}));
    }
    schemas.insert(format!("d{levels}"), json!({"type": "integer"}));
    let properties = json!({"x": {"$ref": "#/$defs/d0"}});
    let inputs = json!({"type": "object", "$defs": schemas, "properties": properties});
    let outputs = json!({"type": "object"});
    let nodes = json!({"nodes": [{"name": "attack", "inputs": inputs, "outputs": outputs}]});
    let description = nodes.to_string();
    guest::component(&guest::Changes {
        description: Some(description.as_bytes()),
        ..guest::Changes::default()
    })
}

/// Returns a valid graph of many nodes with a literal input each: a tree, since a node has at most
/// 100 edges.
fn costly_graph(nodes: usize) -> Value {
    let node = |number: usize| {
        let (first, last) = (number * 50 + 1, (number * 50 + 51).min(nodes));
        let next: Vec<String> = (first..last).map(|next| format!("n{next}")).collect();
        json!({"node_name": "attack", "identifier": format!("n{number}"), "inputs": {"x": 1},
               "next_nodes": next})
    };
    json!({"nodes": (0..nodes).map(node).collect::<Vec<_>>()})
}

/// Costly validations do not run on the threads that answer `/health`.
#[test]
fn costly_validations_do_not_delay_health() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    good(host.upload("costly", costly_plugin(10)?)?)?;
    let graph = costly_graph(200).to_string();
    let mut asked = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&host)?;
        let path = "/v1/namespaces/default/graphs/costly/validate";
        let (address, length) = (address(&host), graph.len());
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{graph}"
        )?;
        asked.push(stream);
    }
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        host.get("//health")?;
        slowest = slowest.max(asked.elapsed());
    }
    println!("the slowest answer of /health took {slowest:?}");
    ensure!(slowest < HEALTH_MAX.mul_f64(slack()), "{slowest:?}");
    Ok(())
}

/// Returns a graph that is large enough to be measured in the host's memory.
fn large_graph(bytes: usize) -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "next_nodes": [],
         "inputs": {"value": "x".repeat(bytes)}},
    ]})
}

#[test]
fn lists_of_large_graphs_take_little_memory() -> Result<()> {
    let _alone = alone();
    let postgres = Postgres::shared()?.create_database("lists")?;
    for flags in [&[][..], &["--database", &postgres]] {
        let folder = tempfile::tempdir()?;
        let host = Host::start_with(folder.path(), flags, |_| ())?;
        host.push("lab")?;
        let graph = large_graph(2_000_000);
        for number in 0..30 {
            host.apply(&format!("g{number:02}"), &graph)?;
        }
        let traffic = HonestTraffic::start(&host)?;
        let before = ProcessStats(host.pid()).memory_kb("VmHWM")?;
        std::thread::scope(|scope| {
            let list = || {
                for _ in 0..5 {
                    let graphs = host.get("/graphs")?;
                    let listed = graphs["graphs"].as_array().context("a list")?;
                    ensure!(listed.len() == 30 && listed[7]["nodes"] == 1, "{listed:?}");
                }
                anyhow::Ok(())
            };
            let all: Vec<_> = (0..16).map(|_| scope.spawn(list)).collect();
            all.into_iter().try_for_each(|list| list.join().unwrap())
        })?;
        let after = ProcessStats(host.pid()).memory_kb("VmHWM")?;
        // Sixty megabytes for each list, if they were read.
        ensure!(after - before < 60_000, "{flags:?}: from {before} kB to {after} kB");
        traffic.finish()?.hold(Bounds::default())?;
    }
    Ok(())
}

/// Forty concurrent callers read a graph of two megabytes each, while other reads are answered.
#[test]
fn large_reads_take_turns() -> Result<()> {
    let _alone = alone();
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    let graph = large_graph(3_000_000);
    host.apply("large", &graph)?;
    let traffic = HonestTraffic::start(&host)?;
    let before = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    // The callers send requests, and do not read the answers.
    let mut asked = Vec::new();
    for _ in 0..40 {
        let mut stream = connect(&host)?;
        let path = "/v1/namespaces/default/graphs/large";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", address(&host))?;
        asked.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    ensure!(after - before < 40_000, "from {before} kB to {after} kB");
    traffic.finish()?.hold(Bounds::default())?;
    drop(asked);
    let read = host.get("/graphs/large")?;
    ensure!(read["template"]["nodes"][0]["inputs"]["value"].as_str().unwrap().len() == 3_000_000);
    Ok(())
}

#[test]
fn lists_are_paged() -> Result<()> {
    let postgres = Postgres::shared()?.create_database("pages")?;
    for flags in [&[][..], &["--database", &postgres]] {
        let folder = tempfile::tempdir()?;
        let host = Host::start_with(folder.path(), flags, |_| ())?;
        for plugin in ["text", "tally", "lab"] {
            host.push(plugin)?;
            host.grant(plugin, &json!({"config": {"k": plugin}}))?;
        }
        host.push("lab")?;
        for name in ["c", "a", "b"] {
            host.apply(name, &large_graph(1))?;
            host.apply(name, &large_graph(2))?;
        }
        for namespace in ["two", "one"] {
            host.namespace(namespace, &json!({"slots": 1}))?;
        }
        let operator = "//v1/operator/namespaces";
        for (path, key, name, names) in [
            ("/graphs".to_owned(), "graphs", "name", ["a", "b", "c"]),
            ("/plugins".to_owned(), "plugins", "name", ["lab", "tally", "text"]),
            (operator.to_owned(), "namespaces", "name", ["default", "one", "two"]),
            (format!("{operator}/default/grants"), "grants", "plugin", ["lab", "tally", "text"]),
        ] {
            let of = |page: &Value| -> Vec<String> {
                let items = page[key].as_array().unwrap();
                items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
            };
            let whole = host.get(&path)?;
            ensure!(of(&whole) == names && whole["next"].is_null(), "{whole:#}");
            let first = host.get(&format!("{path}?limit=2"))?;
            ensure!(of(&first) == names[..2] && first["next"] == names[1], "{first:#}");
            let rest = host.get(&format!("{path}?limit=2&after={}", names[1]))?;
            ensure!(of(&rest) == names[2..] && rest["next"].is_null(), "{rest:#}");
            let (status, _) = host.refused("GET", &format!("{path}?limit=x"), &json!({}))?;
            ensure!(status == 400);
        }
        let graphs = host.get("/graphs")?;
        ensure!(graphs["graphs"][0]["revision"] == 2 && graphs["graphs"][0]["nodes"] == 1);
        ensure!(graphs["graphs"][0]["created_at"].as_i64() > Some(0), "{graphs:#}");
        let plugins = host.get("/plugins")?;
        let (listed, shown) = (&plugins["plugins"][1], host.get("/plugins/tally")?);
        for same in ["name", "version", "digest", "size", "uploaded_at"] {
            ensure!(listed[same] == shown[same], "{same}: {listed:#} {shown:#}");
        }
        ensure!(listed["nodes"][0] == shown["nodes"][0]["name"], "{listed:#}");
    }
    Ok(())
}

/// A page ends after a mebibyte, even if more items were requested.
#[test]
fn pages_are_bounded_by_bytes() -> Result<()> {
    const PLUGINS: usize = 24;
    let host = Host::start()?;
    let value = "x".repeat(60_000);
    for number in 0..PLUGINS {
        host.grant(&format!("p{number:02}"), &json!({"config": {"k": value}}))?;
    }
    let path = "//v1/operator/namespaces/default/grants";
    let first = host.get(path)?;
    let count = |page: &Value| page["grants"].as_array().map_or(0, Vec::len);
    let next = first["next"].as_str().context("a page of all of them")?;
    ensure!((17..=19).contains(&count(&first)), "{} on the first page", count(&first));
    let rest = host.get(&format!("{path}?after={next}"))?;
    ensure!(count(&first) + count(&rest) == PLUGINS && rest["next"].is_null());
    Ok(())
}

/// Runs a host whose standard error cannot be written, during an outage of its database, which it
/// logs.
fn goes_on_unheard(database: &str, set_up: impl FnOnce(&mut Command)) -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database(database)?;
    let folder = tempfile::tempdir()?;
    let flags = ["--database", &url, "--slots", "4"];
    let host = Host::start_with(folder.path(), &flags, |command: &mut Command| {
        set_up(command.env("EXOSPHERE_LOG", "trace"));
    })?;
    host.push("lab")?;
    let graph = json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 20}, "next_nodes": ["worker"]},
        {"node_name": "wait", "identifier": "worker", "inputs": {"ms": 50}, "next_nodes": []},
    ]});
    host.apply("fan", &graph)?;
    let run = host.run("fan", &json!({}), &json!({}))?;
    postgres.stop(Mode::Immediate)?;
    until("the host to be unwell", || {
        let status = host.request("GET", "//health")?.send()?.status();
        Ok((status == 503).then_some(()))
    })?;
    postgres.start_again()?;
    until("the host to be well", || Ok(host.get("//health").ok()))?;
    ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
    let again = host.run("fan", &json!({}), &json!({}))?;
    ensure!(host.wait_for(&again)?["status"] == "SUCCESS");
    Ok(())
}

#[test]
fn a_closed_standard_error_harms_nothing() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    goes_on_unheard("closed", |command| _ = command.stderr(writer))
}

#[test]
fn a_full_standard_error_harms_nothing() -> Result<()> {
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    goes_on_unheard("full", |command| _ = command.stderr(full))
}

#[test]
fn an_unread_standard_error_harms_nothing() -> Result<()> {
    // The pipe's buffer is full after 64 kB.
    let (reader, writer) = std::io::pipe()?;
    goes_on_unheard("unread", |command| _ = command.stderr(writer))?;
    drop(reader);
    Ok(())
}

#[test]
fn a_closed_standard_output_harms_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut serve = Command::new(exosphere_tests::binary()?);
    let serve = serve.arg("serve").arg("--data").arg(folder.path());
    let mut host = serve.args(["--listen", &free.to_string()]).stdout(writer).spawn()?;
    let well = until("the host to be well", || {
        let answer = reqwest::blocking::get(format!("http://{free}/health"));
        Ok(answer.ok().map(|answer| answer.status().as_u16()))
    });
    host.kill()?;
    host.wait()?;
    ensure!(well? == 200);
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o777)
}

#[test]
fn data_folder_permissions_are_tightened() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
    let log = File::create(folder.path().join("log"))?;
    let host = Host::start_with(&data, &[], |command: &mut Command| _ = command.stderr(log))?;
    host.push("lab")?;
    ensure!(mode(&data)? == 0o700);
    for entry in fs::read_dir(&data)? {
        let path = entry?.path();
        ensure!(mode(&path)? & 0o077 == 0, "{} is open", path.display());
    }
    for file in ["exosphere.db", "exosphere.db-wal", "host.id", "lock"] {
        ensure!(mode(&data.join(file))? == 0o600, "{file}");
    }
    until("a word in the log", || {
        let log = fs::read_to_string(folder.path().join("log"))?;
        Ok(log.contains("it is 0700 now").then_some(()))
    })
}

#[test]
fn another_users_open_folder_is_rejected() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
    if std::os::unix::fs::chown(&data, Some(65_534), None).is_err() {
        println!("skipped: only root gives a folder away");
        return Ok(());
    }
    let data = data.to_str().unwrap();
    let words = failing_start(&["--data", data])?;
    ensure!(words.contains("chmod 700") && words.contains("65534"), "{words}");
    Ok(())
}

#[test]
fn a_renamed_lock_still_excludes_hosts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    let data = folder.path().to_str().unwrap();
    for moved in ["lock", "host.id"] {
        fs::rename(folder.path().join(moved), folder.path().join("moved"))?;
        let words = failing_start(&["--data", data])?;
        ensure!(words.contains("in use by another exosphere host"), "{moved}: {words}");
    }
    ensure!(host.get("//health")?["status"] == "ok");
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

/// Builds a component that takes the compiler a second or more.
fn slow_component() -> Result<Vec<u8>> {
    let slow = format!("(func {})", "(drop (memory.grow (i32.const 0)))".repeat(24_000));
    Ok(wat::parse_str(format!("(component (core module (memory 1) {}))", slow.repeat(6)))?)
}

/// Kills the compilers of a host, as the system does when memory is low.
fn kill_compilers(host: &Host, most: usize) -> Result<usize> {
    let (mut killed, begun) = (0, Instant::now());
    while killed < most && begun.elapsed() < Duration::from_secs(20) {
        for task in fs::read_dir(format!("/proc/{}/task", host.pid()))?.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                if killed == most {
                    return Ok(killed);
                }
                let Some(pid) = Pid::from_raw(child.parse()?) else { continue };
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                let is_compiler = String::from_utf8_lossy(&line).contains("compile");
                killed += usize::from(is_compiler && kill_process(pid, Signal::KILL).is_ok());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(killed)
}

#[test]
fn a_killed_compiler_is_retried_once() -> Result<()> {
    let host = Host::start()?;
    for (kills, expected) in [(1, 422), (2, 503)] {
        let (killed, answer) = std::thread::scope(|scope| {
            let kill = scope.spawn(|| kill_compilers(&host, kills));
            let answer = host.upload("slow", slow_component()?)?;
            anyhow::Ok((kill.join().unwrap()?, answer))
        })?;
        ensure!(killed == kills, "{killed}");
        let (status, found) = problem(answer)?;
        ensure!(status == expected, "{found:#}");
        let reason = if expected == 503 { "compiler-killed" } else { "not-a-plugin" };
        ensure!(found["reason"] == reason, "{found:#}");
    }
    good(host.upload("text", exosphere_tests::component("text")?)?)?;
    Ok(())
}
