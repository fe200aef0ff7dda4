//! Traces of real hosts at a collector: every attempt has its span, also if its host was killed, and
//! a collector that fails in any way does not matter to the host.
//!
//! Not here: the header `traceparent` of nodes' requests (`http_nodes`).

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_domain::ids::RunId;
use exosphere_domain::trace::SampleRatio;
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::collector::{Behaviour, Collector, Span};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, checkout, path_of, until};
use serde_json::{Value, json};

/// The longest time for which a stopping host waits for a collector, with a reserve.
const MAX_FLUSH_TIME: Duration = Duration::from_secs(8);

/// A graph with a fanout, retries, a branch that fails, a unite with what follows, and a nested
/// fanout.
fn graph() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 5},
             "next_nodes": ["worker"]},
            {"node_name": "fail_when", "identifier": "worker",
             "inputs": {"value": "${{ splitter.outputs.i }}", "equals": 1, "permanent": false},
             "next_nodes": ["again"]},
            {"node_name": "chore", "identifier": "again",
             "inputs": {"i": 1, "key": "n", "turns": ["requeue"], "requeues": 1, "requeue_ms": 20},
             "next_nodes": ["merger"]},
            {"node_name": "collect", "identifier": "merger",
             "inputs": {"values": "${{ again.outputs.value }}"},
             "unites": {"identifier": "splitter", "strategy": "ALL_DONE"},
             "next_nodes": ["last"]},
            {"node_name": "flaky", "identifier": "last", "inputs": {"fail_attempts": 2},
             "next_nodes": []},
        ],
        "retry_policy": {"max_retries": 2, "strategy": "FIXED", "backoff_factor": 10},
    })
}

/// A graph of branches that wait and then write to the store, between a splitter and a merger.
fn branches(count: usize, ms: u64) -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": count},
             "next_nodes": ["waiter"]},
            {"node_name": "wait", "identifier": "waiter",
             "inputs": {"ms": ms, "value": "${{ splitter.outputs.i }}"}, "next_nodes": ["counter"]},
            {"node_name": "tally", "identifier": "counter",
             "inputs": {"key": "told", "value": "${{ waiter.outputs.value }}"},
             "next_nodes": ["merger"]},
            {"node_name": "tally", "identifier": "merger",
             "inputs": {"key": "merged", "value": "${{ counter.outputs.value }}"},
             "unites": {"identifier": "splitter"}, "next_nodes": []},
        ],
    })
}

/// A graph of `count` states that do nothing.
fn quick(count: usize) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": count},
         "next_nodes": ["worker"]},
        {"node_name": "echo", "identifier": "worker", "inputs": {"value": 1}, "next_nodes": []},
    ]})
}

fn push(host: &Host) -> Result<()> {
    ["lab", "flaky", "tally"].iter().try_for_each(|plugin| host.push(plugin).map(drop))
}

fn start(folder: &Path, collector: &str, arguments: &[&str]) -> Result<Host> {
    Host::start_with(folder, &[&["--otlp-endpoint", collector], arguments].concat(), |_| ())
}

/// Returns the path of the state that created the one at a path; empty for the root.
fn creator(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(creator, _)| creator)
}

/// An attempt, as the API shows it.
#[derive(Debug)]
struct Attempt {
    path: String,
    node: String,
    number: i64,
    /// `None` if its host was lost.
    began_at: Option<i64>,
    ended_at: i64,
    host: Value,
    outcome: String,
    kind: Option<String>,
    usage: Value,
}

/// Returns all attempts of a run that has ended, by its states and their records.
fn attempts(host: &Host, run: &str) -> Result<Vec<Attempt>> {
    let mut all = Vec::new();
    for listed in host.list(run, "")? {
        let path = path_of(&listed)?.to_owned();
        let state = host.get(&format!("/runs/{run}/states/{path}"))?;
        let node = state["identifier"].as_str().context("an identifier")?.to_owned();
        let attempt = |it: &Value, number: &Value, outcome: &Value| -> Result<Attempt> {
            Ok(Attempt {
                path: path.clone(),
                node: node.clone(),
                number: number.as_i64().context("a number")?,
                began_at: it["began_at"].as_i64(),
                ended_at: it["ended_at"].as_i64().context("an end")?,
                host: it["host"].clone(),
                outcome: outcome.as_str().context("an outcome")?.to_owned(),
                kind: it["failure"]["kind"].as_str().map(str::to_owned),
                usage: it["usage"].clone(),
            })
        };
        let stored = state["attempts"].as_array().context("attempts")?;
        for it in stored {
            all.push(attempt(it, &it["number"], &it["outcome"])?);
        }
        let is_stored = stored.iter().any(|it| it["number"] == state["attempt"]);
        if !is_stored && !state["began_at"].is_null() {
            all.push(attempt(&state, &state["attempt"], &state["status"])?);
        }
    }
    Ok(all)
}

/// Returns the attempts that have no span.
fn missing<'a>(attempts: &'a [Attempt], collector: &Collector, run: &str) -> Vec<&'a Attempt> {
    let spans = collector.spans(run).unwrap_or_default();
    let has_span = |attempt: &&Attempt| {
        spans.iter().any(|span| {
            span.attribute("exosphere.state") == &attempt.path
                && span.attribute("exosphere.attempt") == attempt.number
        })
    };
    attempts.iter().filter(|attempt| !has_span(attempt)).collect()
}

/// Compares the spans of a run that has ended with its attempts, once all are there. Returns them.
fn check_spans(host: &Host, collector: &Collector, run: &str) -> Result<Vec<Span>> {
    let attempts = attempts(host, run)?;
    let spans = collector
        .wait_for(run, attempts.len() + 1)
        .with_context(|| format!("missing: {:#?}", missing(&attempts, collector, run)))?;
    ensure!(spans.len() == attempts.len() + 1, "{} spans: {spans:#?}", spans.len());
    let view = host.get(&format!("/runs/{run}"))?;
    let root = spans.iter().find(|span| span.parent.is_empty()).context("a root")?;
    let nanos = |ms: &Value| ms.as_u64().map(|ms| ms * 1_000_000);
    ensure!(Some(root.start) == nanos(&view["created_at"]), "{root:#?} of {view:#}");
    ensure!(Some(root.end) == nanos(&view["ended_at"]), "{root:#?} of {view:#}");
    ensure!(root.attribute("exosphere.status") == &view["status"], "{root:#?}");
    ensure!(root.error.is_some() == (view["status"] == "FAILED"), "{root:#?}");
    ensure!(root.attribute("exosphere.run") == run && root.name == view["graph"], "{root:#?}");
    let find = |path: &str, number: Option<i64>| {
        spans.iter().find(|span| {
            span.attribute("exosphere.state") == path
                && match number {
                    Some(number) => span.attribute("exosphere.attempt") == number,
                    None => span.attribute("exosphere.outcome") == "SUCCESS",
                }
        })
    };
    for attempt in &attempts {
        let (path, number) = (&attempt.path, attempt.number);
        let span = find(path, Some(number)).with_context(|| format!("{path}, {number}"))?;
        let ms = |time: u64| i64::try_from(time / 1_000_000).ok();
        ensure!(span.name == attempt.node && span.flags == 1, "{span:#?}");
        ensure!(ms(span.end) == Some(attempt.ended_at), "{}: {span:#?}", attempt.ended_at);
        match attempt.began_at {
            Some(_) => ensure!(ms(span.start) == attempt.began_at, "{span:#?}"),
            // The time of its claim.
            None => ensure!(span.start < span.end && span.start >= root.start, "{span:#?}"),
        }
        ensure!(span.attribute("exosphere.outcome") == &attempt.outcome, "{span:#?}");
        let kind = attempt.kind.as_deref();
        ensure!(span.attribute("error.type").as_str() == kind, "{span:#?}");
        ensure!(span.error.as_deref() == kind, "{span:#?}");
        ensure!(span.attribute("exosphere.host") == &attempt.host, "{}: {span:#?}", attempt.host);
        for name in ["cpu_us", "peak_memory_bytes", "host_calls", "input_bytes", "output_bytes"] {
            let of_span = span.attribute(&format!("exosphere.usage.{name}"));
            // That of a cancelled attempt comes after its end.
            let is_equal = *of_span == attempt.usage[name];
            let is_cancelled = attempt.outcome == "CANCELLED" && of_span.is_null();
            ensure!(is_equal || is_cancelled, "{name}: {} {span:#?}", attempt.usage);
        }
        let parent = match creator(path) {
            "" => &root.span_id,
            creator => &find(creator, None).with_context(|| format!("above {path}"))?.span_id,
        };
        ensure!(&span.parent == parent, "{span:#?}");
    }
    Ok(spans)
}

/// Returns the paths that the links of a unite's span lead to.
fn linked(spans: &[Span], unite: &str) -> Result<BTreeSet<String>> {
    let of_unite = |span: &&Span| span.name == unite && !span.links.is_empty();
    let span = spans.iter().find(of_unite).context("a span with links")?;
    let path = |id: &String| {
        let linked = spans.iter().find(|span| &span.span_id == id).context("a linked span")?;
        let path = linked.attribute("exosphere.state").as_str();
        Ok(path.context("a path")?.to_owned())
    };
    span.links.iter().map(path).collect()
}

#[test]
fn every_attempt_has_its_span() -> Result<()> {
    let database = Postgres::shared()?.create_database("traces")?;
    for more in [Vec::new(), vec!["--database", database.as_str()]] {
        let (collector, folder) = (Collector::start()?, tempfile::tempdir()?);
        let host = start(folder.path(), &collector.url(), &more)?;
        push(&host)?;
        let run = host.result_of("words", &graph(), &json!({}))?;
        let id = run["run"].as_str().context("an id")?;
        let spans = check_spans(&host, &collector, id)?;
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        let counts = ["splitter", "worker", "again", "merger", "last"].map(count);
        // The failing branch has two retries, each requeue an attempt, and the last node three.
        ensure!(counts == [1, 4 + 3, 4 * 2, 1, 3], "{counts:?}");
        let arrived: BTreeSet<String> =
            [0, 2, 3, 4].map(|n| format!("splitter.worker[{n}].again[0]")).into();
        ensure!(linked(&spans, "merger")? == arrived, "{:?}", linked(&spans, "merger")?);
        // What a node says of a failure is a payload.
        ensure!(!format!("{spans:?}").contains("was told to fail"), "{spans:#?}");
        let headers = collector.last_headers();
        ensure!(headers["content-encoding"] == "gzip", "{headers:?}");
        ensure!(collector.last_resource()["service.name"] == "exosphere");

        // A run that is cancelled ends the span of its running attempt.
        host.apply("waits", &branches(2, 60_000))?;
        let run = host.run("waits", &json!({}), &json!({}))?;
        until("two running nodes", || {
            let active = host.list(&run, "identifier=waiter&status=QUEUED")?;
            Ok((active.len() == 2).then_some(()))
        })?;
        host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
        let spans = collector.wait_for(&run, 4)?;
        let cancelled = |span: &&Span| span.attribute("exosphere.outcome") == "CANCELLED";
        ensure!(spans.iter().filter(cancelled).count() == 2, "{spans:#?}");
        host.wait_until(&run, |run| run["counts"]["open"] == 0)?;
        check_spans(&host, &collector, &run)?;
    }
    Ok(())
}

#[test]
fn a_stopping_host_sends_its_spans() -> Result<()> {
    let (collector, folder) = (Collector::start()?, tempfile::tempdir()?);
    let mut host = start(folder.path(), &collector.url(), &[])?;
    push(&host)?;
    let run = host.result_of("quick", &quick(100), &json!({}))?;
    host.terminate()?;
    ensure!(host.wait()?.success());
    let spans = collector.spans(run["run"].as_str().context("an id")?)?;
    ensure!(spans.len() == 102, "{} spans", spans.len());
    Ok(())
}

#[test]
fn spans_go_over_tls() -> Result<()> {
    let (collector, folder) = (Collector::start_tls("first")?, tempfile::tempdir()?);
    for (trusted, count) in [("first", 102), ("second", 0)] {
        let file = checkout().join(format!("tests/certificates/{trusted}.cert.pem"));
        let arguments = ["--otlp-endpoint", &collector.url()];
        let mut host = Host::start_with(&folder.path().join(trusted), &arguments, |command| {
            command.env("OTEL_EXPORTER_OTLP_CERTIFICATE", file);
            command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc");
        })?;
        push(&host)?;
        let run = host.result_of("quick", &quick(100), &json!({}))?;
        host.terminate()?;
        ensure!(host.wait()?.success());
        let spans = collector.spans(run["run"].as_str().context("an id")?);
        // A host that does not trust the certificate ends the handshake.
        ensure!(spans.map_or(0, |spans| spans.len()) == count, "trusted: {trusted}");
    }
    ensure!(collector.last_headers()["authorization"] == "Bearer abc");
    Ok(())
}

#[test]
fn restarts_after_kills_lose_no_span() -> Result<()> {
    let (collector, folder) = (Collector::start()?, tempfile::tempdir()?);
    let mut host = start(folder.path(), &collector.url(), &["--slots", "8"])?;
    push(&host)?;
    host.apply("branches", &branches(150, 40))?;
    let run = host.run("branches", &json!({}), &json!({}))?;
    for kill in 1..=4 {
        host.wait_until(&run, |run| run["counts"]["success"].as_i64() > Some(kill * 30))?;
        host.kill()?;
        host = start(folder.path(), &collector.url(), &["--slots", "8"])?;
    }
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    let spans = check_spans(&host, &collector, &run)?;
    let lost = spans.iter().filter(|span| span.error.as_deref() == Some("host-lost")).count();
    ensure!(lost >= 4, "{lost} attempts were lost");
    drop(host);
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn a_killed_host_loses_no_span() -> Result<()> {
    let collector = Collector::start()?;
    let arguments = vec!["--otlp-endpoint".to_owned(), collector.url()];
    let setup = Setup { arguments, ..Setup::one_namespace(8) };
    with_cluster(Postgres::shared()?, "traces_killed", &vec![setup; 2], |cluster| {
        push(cluster.host(0)?)?;
        cluster.host(0)?.apply("branches", &branches(200, 100))?;
        let run = cluster.host(0)?.run("branches", &json!({}), &json!({}))?;
        cluster.host(0)?.wait_until(&run, |run| run["counts"]["success"].as_i64() > Some(60))?;
        cluster.member(0).kill()?;
        let found = cluster.host(1)?.wait_for(&run)?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        let spans = check_spans(cluster.host(1)?, &collector, &run)?;
        let lost = spans.iter().filter(|span| span.error.as_deref() == Some("host-lost"));
        ensure!(lost.count() > 0, "no attempt was lost");
        let hosts: BTreeSet<String> = spans
            .iter()
            .map(|span| span.attribute("exosphere.host").to_string())
            .filter(|host| host != "null")
            .collect();
        ensure!(hosts.len() == 2, "{hosts:?}");
        Ok(())
    })
}

#[test]
fn all_hosts_sample_the_same_runs() -> Result<()> {
    let collector = Collector::start()?;
    let ratio: SampleRatio = "0.5".parse()?;
    let mut arguments = vec!["--otlp-endpoint".to_owned(), collector.url()];
    arguments.extend(["--otlp-sample", "0.5"].map(str::to_owned));
    let setup = Setup { arguments, ..Setup::slots(2) };
    with_cluster(Postgres::shared()?, "traces_sampled", &vec![setup; 2], |cluster| {
        push(cluster.host(0)?)?;
        cluster.host(0)?.apply("quick", &quick(20))?;
        let mut sampled = 0;
        for at in 0..24 {
            let host = cluster.host(at % 2)?;
            let run = host.run("quick", &json!({}), &json!({}))?;
            host.wait_for(&run)?;
            if ratio.includes(RunId(run.parse()?)) {
                sampled += 1;
                ensure!(collector.wait_for(&run, 22)?.len() == 22);
            } else {
                ensure!(collector.spans(&run)?.is_empty(), "{run} is not sampled");
            }
        }
        println!("{sampled} of 24 runs were sampled");
        ensure!((1..24).contains(&sampled), "{sampled}");
        Ok(())
    })
}

/// Starts a host whose log goes to a file.
fn start_logged(folder: &Path, endpoint: &str) -> Result<Host> {
    let log = std::fs::File::create(folder.join("log"))?;
    let arguments = ["--otlp-endpoint", endpoint];
    Host::start_with(&folder.join("data"), &arguments, |command| {
        command.stderr(log);
    })
}

fn log(folder: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(folder.join("log"))?)
}

/// Returns the number of spans that a log says were dropped, in all its lines.
fn dropped(log: &str) -> u64 {
    let counts = log.split("dropped=").skip(1).map(|rest| rest.split(' ').next());
    counts.flatten().filter_map(|count| count.parse::<u64>().ok()).sum()
}

/// Waits until the metrics of a host have these numbers of spans.
fn metrics_are(host: &Host, sent: u64, dropped: u64) -> Result<()> {
    until("the metrics of spans", || {
        let text = host.request("GET", "//metrics")?.send()?.text()?;
        let has = |name: &str, count: u64| {
            text.lines().any(|line| line == format!("exosphere_spans_{name}_total {count}"))
        };
        Ok((has("sent", sent) && has("dropped", dropped)).then_some(()))
    })
}

/// Returns the time that a run of 300 states takes.
fn time_of_run(host: &Host) -> Result<(String, Duration)> {
    host.apply("quick", &quick(300))?;
    let began = Instant::now();
    let run = host.run("quick", &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok((run, began.elapsed()))
}

/// Stops a host, which must not wait for its collector for long.
fn stop_in_time(mut host: Host) -> Result<()> {
    let began = Instant::now();
    host.terminate()?;
    ensure!(host.wait()?.success());
    let elapsed = began.elapsed();
    ensure!(elapsed < MAX_FLUSH_TIME, "it took {elapsed:?}");
    Ok(())
}

#[test]
fn a_dead_collector_costs_spans_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let host = start_logged(folder.path(), &format!("http://{free}"))?;
    push(&host)?;
    time_of_run(&host)?;
    stop_in_time(host)?;
    let log = log(folder.path())?;
    ensure!(log.matches("cannot send spans").count() == 1, "{log}");
    ensure!(dropped(&log) == 302 && log.contains("spans of traces were dropped"), "{log}");
    Ok(())
}

#[test]
fn a_collector_that_returns_gets_all_spans() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let host = start_logged(folder.path(), &format!("http://{free}"))?;
    push(&host)?;
    let (first, _) = time_of_run(&host)?;
    until("a failed request", || Ok(log(folder.path())?.contains("cannot send").then_some(())))?;
    let collector = Collector::start_at(&free.to_string())?;
    let (second, _) = time_of_run(&host)?;
    for run in [first, second] {
        ensure!(collector.wait_for(&run, 302)?.len() == 302);
    }
    // Busy for a while, which a collector says with a pause.
    collector.behave(Behaviour::Refuse(503, "retry-after: 2\r\n"));
    let (third, _) = time_of_run(&host)?;
    let before = collector.requests();
    until("a request", || Ok((collector.requests() > before).then_some(())))?;
    let refused = Instant::now();
    collector.behave(Behaviour::Take);
    ensure!(collector.wait_for(&third, 302)?.len() == 302);
    ensure!(refused.elapsed() > Duration::from_millis(1_500), "{:?}", refused.elapsed());
    metrics_are(&host, 3 * 302, 0)?;
    stop_in_time(host)?;
    ensure!(!log(folder.path())?.contains("dropped"), "{}", log(folder.path())?);
    Ok(())
}

#[test]
fn hostile_collectors_do_not_matter() -> Result<()> {
    for (behaviour, expected) in [
        (Behaviour::Hang, 302),
        (Behaviour::Flood, 0),
        (Behaviour::Refuse(429, "retry-after: 99999999999\r\n"), 302),
        (Behaviour::Refuse(400, ""), 302),
        (Behaviour::Refuse(302, "location: http://127.0.0.1:1/\r\n"), 302),
        (Behaviour::TakePartly(7), 7),
    ] {
        let (collector, folder) = (Collector::start()?, tempfile::tempdir()?);
        collector.behave(behaviour.clone());
        let host = start_logged(folder.path(), &collector.url())?;
        push(&host)?;
        let (run, elapsed) = time_of_run(&host)?;
        println!("{behaviour:?}: a run took {elapsed:?}");
        until("a request", || Ok((collector.requests() > 0).then_some(())))?;
        if behaviour == Behaviour::Refuse(400, "") {
            metrics_are(&host, 0, expected)?;
        }
        stop_in_time(host)?;
        let log = log(folder.path())?;
        let requests = collector.requests() as u64;
        let expected = if expected == 7 { 7 * requests } else { expected };
        ensure!(dropped(&log) == expected, "{behaviour:?}: {requests} requests: {log}");
        // A flood of an answer is cut off; what it answers is taken.
        let flooded = collector.flooded();
        ensure!(flooded < 64 * 1024 * 1024, "{flooded} bytes of answers");
        if behaviour == Behaviour::Flood {
            ensure!(collector.spans(&run)?.len() == 302);
        }
    }
    Ok(())
}
