//! Live views: events of runs and of lists, on both databases and on several hosts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::events::Events;
use exosphere_tests::honest_traffic::slack;
use exosphere_tests::host::client;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::proxy::Proxy;
use exosphere_tests::{Host, MAX_WAIT, binary, until};
use serde_json::{Value, json};

/// The longest time from the commit of a run's end until every reader has it.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// Returns a chain of two nodes, each of which takes some time.
fn chain(ms: u32) -> Value {
    let node = |identifier: &str, next: &[&str]| {
        json!({"node_name": "wait", "identifier": identifier, "inputs": {"ms": ms, "value": 1},
               "next_nodes": next})
    };
    json!({"nodes": [node("first", &["second"]), node("second", &[])]})
}

/// Returns a graph of one node, which fails.
fn failing() -> Value {
    json!({
        "nodes": [{"node_name": "fail_when", "identifier": "only", "next_nodes": [],
                   "inputs": {"value": "the message", "equals": "the message"}}],
        "retry_policy": {"max_retries": 0},
    })
}

fn start(host: &Host, graph: &str) -> Result<String> {
    host.run(graph, &json!({}), &json!({}))
}

fn has_ended(run: &Value) -> bool {
    run["status"] != "RUNNING"
}

#[test]
fn a_run_is_followed_to_its_end() -> Result<()> {
    on_both("live_run", &[], |host| {
        host.push("lab")?;
        host.apply("chain", &chain(300))?;
        host.apply("failing", &failing())?;
        let run = start(host, "chain")?;
        let path = format!("/runs/{run}/live");
        let mut events = Events::open(host, &path, None)?;
        let (mut versions, mut last) = (Vec::new(), None);
        while last.as_ref().is_none_or(|last: &Value| !has_ended(last)) {
            let event = events.read()?.context("the stream ended before its run")?;
            ensure!(event.kind == "run" && event.data["run"] == run.as_str(), "{event:?}");
            ensure!(event.data.get("store").is_none(), "{event:?}");
            let version = event.data["version"].as_i64().context("a run has a version")?;
            ensure!(event.id.starts_with(&format!("{version}-")), "{event:?}");
            versions.push(version);
            last = Some(event.data);
        }
        ensure!(versions.is_sorted() && versions.len() >= 2, "{versions:?}");
        let (last, details) = (last.context("an event")?, host.get(&format!("/runs/{run}"))?);
        for member in ["status", "counts", "nodes", "ended_at", "version"] {
            ensure!(last[member] == details[member], "{member}: {last} {details}");
        }
        // A reader that has the last event gets it once.
        let mut again = Events::open(host, &format!("{path}?for_ms=0"), None)?;
        let seen = again.read()?.context("an event")?;
        ensure!(again.read()?.is_none());
        let mut resumed = Events::open(host, &format!("{path}?for_ms=400"), Some(&seen.id))?;
        ensure!(resumed.read()?.is_none(), "it has this event");
        // A stream continues after the end: the run may be redriven.
        let run = start(host, "failing")?;
        let mut events = Events::open(host, &format!("/runs/{run}/live"), None)?;
        let failed = events.find(has_ended)?;
        ensure!(failed.data["failures"][0]["failure"]["kind"] == "permanent", "{failed:?}");
        host.send("POST", &format!("/runs/{run}/redrive"), &json!({}))?;
        let version = failed.data["version"].as_i64();
        events.find(|run| run["version"].as_i64() > version && has_ended(run))?;
        // And it ends with the run itself.
        host.send("DELETE", &format!("/runs/{run}"), &json!({}))?;
        ensure!(events.read()?.is_none(), "the run is gone");
        Ok(())
    })
}

/// Applies an event of a list to a copy of it.
fn apply(copy: &mut BTreeMap<String, Value>, change: &Value) -> Result<Vec<Value>> {
    for run in change["runs"].as_array().context("an event has runs")? {
        copy.insert(run["run"].as_str().context("a run has an id")?.to_owned(), run.clone());
    }
    let order = change["order"].as_array().context("an event has an order")?;
    let find = |id: &Value| copy.get(id.as_str()?).cloned();
    order.iter().map(|id| find(id).with_context(|| format!("{id} was not sent"))).collect()
}

#[test]
fn a_list_follows_its_runs() -> Result<()> {
    on_both("live_list", &[], |host| {
        host.push("lab")?;
        host.apply("chain", &chain(200))?;
        host.apply("failing", &failing())?;
        let mut events = Events::open(host, "/runs/live?graph=chain&limit=3", None)?;
        let first = events.read()?.context("an event")?;
        ensure!(first.kind == "runs" && first.data["order"] == json!([]), "{first:?}");
        let runs = (0..5)
            .map(|_| {
                start(host, "failing")?;
                start(host, "chain")
            })
            .collect::<Result<Vec<_>>>()?;
        let newest: Vec<_> = runs.iter().rev().take(3).cloned().collect();
        let mut copy = BTreeMap::new();
        loop {
            let event = events.read()?.context("an event")?;
            let list = apply(&mut copy, &event.data)?;
            if event.data["order"] == json!(newest) && list.iter().all(has_ended) {
                ensure!(event.data["more"] == true, "{event:?}");
                // A list that has just as many runs has no further ones.
                let mut whole = Events::open(host, "/runs/live?graph=chain&limit=5", None)?;
                let whole = whole.read()?.context("an event")?.data;
                let order = whole["order"].as_array().context("an order")?;
                ensure!(order.len() == 5 && whole["more"] == false, "{whole:#}");
                let page = host.get("/runs?graph=chain&limit=3")?;
                ensure!(page["runs"] == json!(list), "{page:#} {list:#?}");
                break;
            }
        }
        // A run that no longer meets the filter leaves the list.
        let running = "/runs/live?status=RUNNING";
        let mut events = Events::open(host, running, None)?;
        let run = start(host, "chain")?;
        events.find(|change| change["order"] == json!([run.as_str()]))?;
        let gone = events.find(|change| change["order"] == json!([]))?;
        let mut resumed = Events::open(host, &format!("{running}&for_ms=300"), Some(&gone.id))?;
        ensure!(resumed.read()?.is_none(), "it has this event");
        for query in ["limit=101", "limit=0", "after=1", "for_ms=x", "status=FAILD", "colour=1"] {
            let (status, problem) =
                host.refused("GET", &format!("/runs/live?{query}"), &json!({}))?;
            ensure!(status == 400 && problem["type"] == "/problems/bad-query", "{problem}");
        }
        Ok(())
    })
}

#[test]
fn streams_end_with_their_key() -> Result<()> {
    on_both("live_keys", &[], |host| {
        host.push("lab")?;
        host.apply("chain", &chain(60_000))?;
        host.apply("failing", &failing())?;
        let failed = start(host, "failing")?;
        host.wait_for(&failed)?;
        let key = host.new_key(&json!({"label": "reader", "role": "viewer"}))?;
        let open = |path: &str| {
            let url = format!("{}/v1/namespaces/default{path}", host.url());
            Events::of(client(&key, MAX_WAIT)?.get(url).send()?)
        };
        // A key without payloads gets no messages.
        let event = open(&format!("/runs/{failed}/live"))?.read()?.context("an event")?;
        let text = event.data.to_string();
        ensure!(text.contains("permanent") && !text.contains("the message"), "{text}");
        let run = start(host, "chain")?;
        let mut streams = [open(&format!("/runs/{run}/live"))?, open("/runs/live")?];
        for stream in &mut streams {
            stream.read()?.context("an event")?;
        }
        let revoked = Instant::now();
        host.send("DELETE", &format!("//v1/operator/keys/{}", &key[4..16]), &json!({}))?;
        for stream in &mut streams {
            while stream.read()?.is_some() {}
        }
        let time = revoked.elapsed();
        ensure!(time < Duration::from_secs(1).mul_f64(slack()), "the streams ended after {time:?}");
        host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
        Ok(())
    })
}

#[test]
fn a_run_of_another_host_is_as_live() -> Result<()> {
    let postgres = Postgres::shared()?;
    with_cluster(postgres, "live_hosts", &[Setup::slots(1), Setup::slots(8)], |cluster| {
        let host = cluster.host(0)?;
        host.push("lab")?;
        host.apply("chain", &chain(300))?;
        // The only slot of the first host is taken.
        host.apply("long", &chain(20_000))?;
        let long = start(host, "long")?;
        cluster.wait_for_executor(&format!("{long}/first"), None)?;
        let mut others = 0;
        for _ in 0..4 {
            let run = start(host, "chain")?;
            let streams = [cluster.host(0)?, cluster.host(1)?];
            let mut streams = streams
                .map(|host| Events::open(host, &format!("/runs/{run}/live"), None))
                .into_iter()
                .collect::<Result<Vec<_>>>()?;
            for events in &mut streams {
                let end = events.find(has_ended)?;
                let ended_at = end.data["ended_at"].as_i64().context("an end")?;
                let delay = Duration::from_millis((end.at - ended_at).max(0).unsigned_abs());
                ensure!(delay < MAX_DELAY.mul_f64(slack()), "the end came after {delay:?}");
            }
            let executor = cluster.executor(&format!("{run}/first"), None)?;
            others += usize::from(executor == Some(1));
        }
        ensure!(others > 0, "the other host executed no run");
        let host = cluster.host(0)?;
        host.send("POST", &format!("/runs/{long}/cancel"), &json!({}))?;
        Ok(())
    })
}

#[test]
fn an_idle_stream_is_kept_open() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("chain", &chain(1))?;
    let run = start(&host, "chain")?;
    host.wait_for(&run)?;
    let answer = host.request("GET", &format!("/runs/{run}/live"))?.send()?;
    let begun = Instant::now();
    // Proxies cut connections that are idle for a minute.
    let comments = BufReader::new(answer).lines().filter(|line| match line {
        Ok(line) => line.starts_with(':'),
        Err(_) => true,
    });
    for comment in comments.take(2) {
        ensure!(comment? == ": ping");
    }
    let time = begun.elapsed();
    ensure!(time < Duration::from_secs(45), "two comments came within {time:?}");
    Ok(())
}

#[test]
fn a_stopping_host_ends_its_streams() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("chain", &chain(10))?;
    let run = start(&host, "chain")?;
    host.wait_for(&run)?;
    let mut streams = [
        Events::open(&host, &format!("/runs/{run}/live"), None)?,
        Events::open(&host, "/runs/live", None)?,
    ];
    for stream in &mut streams {
        stream.read()?.context("an event")?;
    }
    let stopped = Instant::now();
    host.terminate()?;
    for stream in &mut streams {
        ensure!(stream.read()?.is_none());
    }
    ensure!(host.wait()?.success());
    let time = stopped.elapsed();
    ensure!(time < Duration::from_secs(2).mul_f64(slack()), "it stopped after {time:?}");
    Ok(())
}

#[test]
fn a_watch_survives_cut_connections() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("chain", &chain(1_000))?;
    let run = start(&host, "chain")?;
    let proxy = Proxy::start(host.url().trim_start_matches("http://").parse()?)?;
    let mut watch = Command::new(binary()?);
    watch.env("EXOSPHERE_KEY", host.key());
    watch.args(["--host", &format!("http://{}", proxy.address()), "run", "watch", &run]);
    let mut watch = watch.stdout(Stdio::piped()).spawn()?;
    let ended = AtomicBool::new(false);
    let (status, cuts) = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            let mut cuts = 0;
            while !ended.load(Ordering::Relaxed) {
                // Long enough for a connection between two cuts.
                std::thread::sleep(Duration::from_millis(200));
                proxy.cut();
                cuts += 1;
            }
            cuts
        });
        host.wait_for(&run).map(drop).and_then(|()| {
            ended.store(true, Ordering::Relaxed);
            Ok((watch.wait()?, cutter.join().unwrap_or_default()))
        })
    })?;
    ensure!(status.success() && cuts >= 3, "{status} after {cuts} cuts");
    let mut output = String::new();
    watch.stdout.take().context("an output")?.read_to_string(&mut output)?;
    ensure!(output.contains("SUCCESS"), "{output}");
    Ok(())
}

/// Opens a stream, and reads no more of it than that the host takes the reader.
fn stopped_reader(host: &Host, path: &str) -> Result<TcpStream> {
    let address = host.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    let key = host.key();
    write!(
        stream,
        "GET /v1/namespaces/default{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\r\n"
    )?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    ensure!(status == *b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&status));
    Ok(stream)
}

#[test]
fn readers_are_bounded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--connections", "16"], |_| ())?;
    let held = (0..4).map(|_| stopped_reader(&host, "/runs/live")).collect::<Result<Vec<_>>>()?;
    for _ in 0..3 {
        let (status, found) = host.refused("GET", "/runs/live?for_ms=0", &json!({}))?;
        ensure!(status == 503 && found["type"] == "/problems/full", "{found}");
    }
    drop(held);
    until("a free place", || {
        Ok(host.request("GET", "/runs/live?for_ms=0")?.send()?.status().is_success().then_some(()))
    })
}

/// The readers, and how many of them never read.
const READERS: usize = 200;
const STOPPED_READERS: usize = 20;

/// The states of the run that they follow.
const STATES: u32 = 20_000;

/// The most memory that all readers may add, in kilobytes.
const MAX_ADDED_KB: i64 = 30 * 1024;

/// Returns a graph that fans out.
fn fanout(branches: u32) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "split", "inputs": {"n": branches},
         "next_nodes": ["branch"]},
        {"node_name": "echo", "identifier": "branch", "inputs": {"value": 1}, "next_nodes": []},
    ]})
}

/// Runs a fanout with readers of it, and returns the most memory that the host had meanwhile.
fn memory_with_readers(readers: usize, stopped: usize) -> Result<i64> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("fanout", &fanout(STATES))?;
    // The first run fills caches.
    let warm = start(&host, "fanout")?;
    host.wait_for(&warm)?;
    let run = start(&host, "fanout")?;
    let path = format!("/runs/{run}/live");
    let held = (0..stopped).map(|_| stopped_reader(&host, &path)).collect::<Result<Vec<_>>>()?;
    let delays = std::thread::scope(|scope| {
        let follow = || {
            let end = Events::open(&host, &path, None)?.find(has_ended)?;
            Ok::<_, anyhow::Error>(end.at - end.data["ended_at"].as_i64().unwrap_or_default())
        };
        let readers: Vec<_> = (stopped..readers).map(|_| scope.spawn(follow)).collect();
        let join = |reader: std::thread::ScopedJoinHandle<'_, Result<i64>>| {
            reader.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a reader panicked")))
        };
        let delays = readers.into_iter().map(join).collect::<Result<Vec<_>>>();
        host.wait_for(&run)?;
        delays
    })?;
    drop(held);
    if let Some(latest) = delays.into_iter().max() {
        let latest = Duration::from_millis(latest.max(0).unsigned_abs());
        ensure!(latest < MAX_DELAY.mul_f64(slack()), "a reader had the end after {latest:?}");
    }
    ProcessStats(host.pid()).memory_kb("VmHWM")
}

#[test]
fn readers_hold_little_memory() -> Result<()> {
    let without = memory_with_readers(0, 0)?;
    let with = memory_with_readers(READERS, STOPPED_READERS)?;
    println!("the host had {without} kB without readers, and {with} kB with {READERS}");
    ensure!(with - without < MAX_ADDED_KB, "{READERS} readers took {} kB", with - without);
    Ok(())
}
