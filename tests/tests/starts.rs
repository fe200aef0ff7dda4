//! Starts during outages, on full disks and with clocks that are set back: answered in time, never
//! begun after a failure, and idempotent by their keys.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::{Host, check, path_of, problem, tail, until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// Maximum duration of a request, in any state of the database.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(5);

/// Returns a graph of one node that echoes its input.
fn echo() -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []},
    ]})
}

fn host(data: &Path, arguments: &[&str]) -> Result<Host> {
    let host = Host::start_with(data, arguments, |command| {
        command.stderr(Stdio::null());
    })?;
    host.push("lab")?;
    Ok(host)
}

/// Sends a request that must fail within the time limit, with the error of an unreachable database.
fn unavailable(host: &Host, method: &str, path: &str, body: &Value) -> Result<Value> {
    let started = Instant::now();
    let (status, problem) = host.refused(method, path, body)?;
    let elapsed = started.elapsed();
    ensure!(status == 503, "{method} {path}: {problem}");
    ensure!(elapsed < MAX_ANSWER_TIME, "{method} {path} took {elapsed:?}: {problem}");
    Ok(problem)
}

fn becomes_unhealthy(host: &Host, within: Duration) -> Result<()> {
    let started = Instant::now();
    until("the host to be unhealthy", || {
        let status = host.request("GET", "//health")?.send()?.status();
        Ok((status == 503).then_some(()))
    })?;
    ensure!(started.elapsed() < within, "it took {:?}", started.elapsed());
    Ok(())
}

fn becomes_healthy(host: &Host) -> Result<()> {
    until("the host to be healthy", || Ok(host.get("//health").ok())).map(drop)
}

fn runs(host: &Host) -> Result<Vec<Value>> {
    Ok(host.get("/runs")?["runs"].as_array().cloned().unwrap_or_default())
}

fn command(host: &Host, line: &[&str]) -> Result<Output> {
    Ok(host.command()?.args(line).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the answers during an outage, and that no failed start begins after it.
fn leaves_no_ghost(
    host: &Host,
    path: &str,
    fail: impl FnOnce() -> Result<()>,
    recover: impl FnOnce() -> Result<()>,
) -> Result<()> {
    host.apply("echo", &echo())?;
    let run = host.run("echo", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    fail()?;
    let start = json!({"inputs": {"value": 1}});
    let problem = unavailable(host, "POST", path, &start)?;
    ensure!(problem["reason"] == "not-done", "{problem}");
    ensure!(
        problem["detail"].as_str().is_some_and(|it| it.starts_with("not started")),
        "{problem}"
    );
    // A request whose client hangs up is withdrawn, too.
    let short_timeout_client = host.client(Duration::from_millis(700))?;
    let url = format!("{}/v1/namespaces/default{path}", host.url());
    ensure!(short_timeout_client.post(url).json(&start).send().is_err());
    let keyed_body = json!({"inputs": {"value": 2}, "idempotency_key": "in the outage"});
    unavailable(host, "POST", path, &keyed_body)?;
    becomes_unhealthy(host, Duration::from_secs(1))?;
    recover()?;
    becomes_healthy(host)?;
    let first_start = host.send("POST", path, &keyed_body)?;
    ensure!(first_start["started_before"] == false, "{first_start}");
    host.wait_for(first_start["run"].as_str().context("an id")?)?;
    // A withdrawn start would have been committed by now.
    std::thread::sleep(Duration::from_secs(1));
    let runs = runs(host)?;
    ensure!(runs.len() == 2, "a ghost: {runs:#?}");
    Ok(())
}

#[test]
fn starts_failed_by_an_outage_never_run() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("ghosts")?;
    let folder = tempfile::tempdir()?;
    // Without keys: a key that cannot be verified is refused before the start is looked at.
    let host = host(folder.path(), &["--database", &url, "--no-auth"])?;
    let stop = || postgres.stop(Mode::Fast);
    leaves_no_ghost(&host, "/graphs/echo/runs", stop, || postgres.start_again())?;
    drop(host);
    check(&["--database", &url])
}

#[test]
fn starts_failed_by_disk_full_never_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = host(folder.path(), &[])?;
    let pid = Pid::from_raw(i32::try_from(host.pid())?);
    // With a limit of file sizes, the database finds the disk full.
    let limit = |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None });
    let fill = || Ok(limit(Some(4096)).map(drop)?);
    leaves_no_ghost(&host, "/graphs/echo/runs", fill, || Ok(limit(None).map(drop)?))?;
    drop(host);
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn requests_are_answered_during_an_outage() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("answers")?;
    let folder = tempfile::tempdir()?;
    // Without keys: a key that cannot be verified is refused before the request is looked at.
    let host = host(folder.path(), &["--database", &url, "--no-auth"])?;
    host.apply("wait", &json!({"nodes": [
        {"node_name": "wait", "identifier": "only", "inputs": {"ms": 60_000, "value": 0}, "next_nodes": []},
    ]}))?;
    let run = host.run("wait", &json!({}), &json!({}))?;
    let state = path_of(&host.list(&run, "")?[0])?.to_owned();
    postgres.stop(Mode::Fast)?;
    // An idle host notices by itself.
    becomes_unhealthy(&host, Duration::from_secs(2))?;
    let no_inputs = json!({});
    for (member, message) in [
        ("cancel", "not cancelled"),
        ("pause", "not paused"),
        ("resume", "not resumed"),
        ("redrive", "not redriven"),
    ] {
        let problem = unavailable(&host, "POST", &format!("/runs/{run}/{member}"), &no_inputs)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(detail.starts_with(message), "{problem}");
    }
    unavailable(&host, "POST", &format!("/runs/{run}/states/{state}/retry"), &no_inputs)?;
    for path in ["/runs", "/graphs", "/graphs/wait", "/plugins", &format!("/runs/{run}")] {
        unavailable(&host, "GET", path, &no_inputs)?;
    }
    postgres.start_again()?;
    becomes_healthy(&host)?;
    let found = host.get(&format!("/runs/{run}"))?;
    ensure!(found["status"] == "RUNNING" && found["paused"] == false, "{found:#}");
    Ok(())
}

/// The server accepts connections and does not answer: the commit may have succeeded.
#[test]
fn an_uncertain_start_is_reported_as_uncertain() -> Result<()> {
    let postgres = Postgres::start()?;
    with_cluster(&postgres, "doubt", &[Setup { proxied: true, ..Setup::default() }], |cluster| {
        let host = cluster.host(0)?;
        host.push("lab")?;
        host.apply("echo", &echo())?;
        host.wait_for(&host.run("echo", &json!({}), &json!({}))?)?;
        let proxy = cluster.members()[0].proxy()?;
        proxy.hold();
        let body = json!({"inputs": {"value": 3}, "idempotency_key": "in doubt"});
        let problem = unavailable(host, "POST", "/graphs/echo/runs", &body)?;
        ensure!(problem["reason"] == "not-done", "the key is looked up first: {problem}");
        let problem = unavailable(host, "POST", "/graphs/echo/runs", &json!({}))?;
        ensure!(
            ["unknown", "not-done"].contains(&problem["reason"].as_str().unwrap_or_default()),
            "{problem}"
        );
        becomes_unhealthy(host, Duration::from_secs(2))?;
        proxy.cut();
        proxy.clear();
        becomes_healthy(host)?;
        let first_start = host.send("POST", "/graphs/echo/runs", &body)?;
        host.wait_for(first_start["run"].as_str().context("an id")?)?;
        // The start without a key had no waiting caller.
        std::thread::sleep(Duration::from_secs(1));
        let runs = runs(host)?;
        ensure!(runs.len() == 2, "{runs:#?}");
        Ok(())
    })
}

#[test]
fn the_cli_retries_starts_safely() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("commands")?;
    let folder = tempfile::tempdir()?;
    let host = host(folder.path(), &["--database", &url])?;
    host.apply("echo", &echo())?;
    host.wait_for(&host.run("echo", &json!({}), &json!({}))?)?;
    postgres.stop(Mode::Immediate)?;
    let line = ["run", "start", "echo", "--input", "value=1"];
    let mut start = host.command()?;
    let start = start.args(line).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut start = start.spawn()?;
    let mut lines = BufReader::new(start.stderr.take().context("the command has no pipe")?).lines();
    let repeats = |line: &std::io::Result<String>| {
        line.as_ref().is_ok_and(|line| line == "repeating the start with the same idempotency key")
    };
    ensure!(lines.any(|line| repeats(&line)), "the command did not retry");
    postgres.start_again()?;
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let output = start.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}: {rest:?}");
    ensure!(!text(&output.stdout).contains("started before"), "{output:?}");
    ensure!(runs(&host)?.len() == 2, "{:#?}", runs(&host)?);
    postgres.stop(Mode::Fast)?;
    let started = Instant::now();
    let output = command(&host, &["run", "start", "echo"])?;
    ensure!(output.status.code() == Some(8), "{output:?}");
    ensure!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    ensure!(text(&output.stderr).contains("--idempotency-key cli-"), "{output:?}");
    ensure!(command(&host, &["run", "list"])?.status.code() == Some(8));
    Ok(())
}

#[test]
fn a_key_belongs_to_one_request() -> Result<()> {
    let url = Postgres::shared()?.create_database("keys")?;
    for database in [vec![], vec!["--database", &url]] {
        let folder = tempfile::tempdir()?;
        let host = host(folder.path(), &database)?;
        a_key_is_held_to_its_request(&host).with_context(|| format!("on {database:?}"))?;
    }
    Ok(())
}

fn a_key_is_held_to_its_request(host: &Host) -> Result<()> {
    host.apply("echo", &echo())?;
    host.apply("other", &echo())?;
    let start = |graph: &str, body: &Value| -> Result<(u16, Value)> {
        let sent = host.request("POST", &format!("/graphs/{graph}/runs"))?.json(body).send()?;
        if sent.status().is_success() {
            Ok((sent.status().as_u16(), sent.json()?))
        } else {
            problem(sent)
        }
    };
    let first = json!({"inputs": {"value": {"a": 1, "b": [2]}}, "idempotency_key": "k1"});
    let (status, run) = start("echo", &first)?;
    ensure!(status == 201 && run["started_before"] == false, "{run}");
    let (status, repeated) = start("echo", &first)?;
    ensure!(
        status == 200 && repeated["started_before"] == true && repeated["run"] == run["run"],
        "{repeated}"
    );
    // Another text has the same values.
    let text = r#"{"idempotency_key": "k1", "delay_ms": 0, "store": {}, "inputs": {"value": {"b": [2.0], "a": 1e0}}}"#;
    let request =
        host.request("POST", "/graphs/echo/runs")?.header("content-type", "application/json");
    let sent = request.body(text).send()?;
    ensure!(sent.status() == 200, "{}", sent.text()?);
    for (graph, change, path) in [
        ("echo", json!({"inputs": {"value": 99}}), "$.inputs"),
        ("echo", json!({"store": {"k": "v"}}), "$.store"),
        ("echo", json!({"delay_ms": 5}), "$.delay_ms"),
        ("other", json!({}), "$"),
    ] {
        let mut body = first.clone();
        body.as_object_mut()
            .context("an object")?
            .extend(change.as_object().cloned().unwrap_or_default());
        let (status, problem) = start(graph, &body)?;
        ensure!(status == 422 && problem["type"] == "/problems/key-reused", "{problem}");
        let id = run["run"].as_str().context("an id")?;
        ensure!(
            problem["detail"].as_str().is_some_and(|message| message.contains(id)),
            "{problem}"
        );
        let paths: Vec<_> =
            problem["errors"].as_array().into_iter().flatten().map(|e| &e["path"]).collect();
        ensure!(json!(paths) == json!([path]), "{problem}");
    }
    // The key is looked up before the request is checked against the current graph.
    let mut strict = echo();
    strict["store_config"] = json!({"required_keys": ["cursor"]});
    host.apply("echo", &strict)?;
    ensure!(start("echo", &first)?.0 == 200);
    ensure!(start("echo", &json!({"idempotency_key": "k2"}))?.0 == 422);
    let line = ["run", "start", "other", "--idempotency-key", "k3"];
    ensure!(!self::text(&command(host, &line)?.stdout).contains("started before"));
    ensure!(self::text(&command(host, &line)?.stdout).contains("started before"));
    let other = command(host, &[&line[..], &["--input", "value=5"]].concat())?;
    ensure!(other.status.code() == Some(1), "{other:?}");
    ensure!(self::text(&other.stderr).contains("$.inputs"), "{other:?}");
    ensure!(runs(host)?.len() == 2, "{:#?}", runs(host)?);
    Ok(())
}

#[test]
fn a_contended_key_starts_one_request() -> Result<()> {
    let postgres = Postgres::shared()?;
    with_cluster(postgres, "races", &[Setup::slots(2), Setup::slots(2)], |cluster| {
        let hosts = [cluster.host(0)?, cluster.host(1)?];
        hosts[0].push("lab")?;
        hosts[0].apply("echo", &echo())?;
        for round in 0..10 {
            let start = |at: usize| -> Result<u16> {
                let body =
                    json!({"inputs": {"value": at}, "idempotency_key": format!("race {round}")});
                let sent = hosts[at].request("POST", "/graphs/echo/runs")?.json(&body).send()?;
                Ok(sent.status().as_u16())
            };
            let (one, other) = std::thread::scope(|scope| {
                let other = scope.spawn(|| start(1));
                (start(0), other.join())
            });
            let mut both = [one?, other.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))?];
            both.sort_unstable();
            ensure!(both == [201, 422], "{both:?} in round {round}");
        }
        ensure!(runs(hosts[0])?.len() == 10);
        Ok(())
    })
}

#[test]
fn a_clock_set_back_delays_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = host(folder.path(), &[])?;
    host.apply("echo", &echo())?;
    let body = json!({"delay_ms": 3_000});
    let run = host.send("POST", "/graphs/echo/runs", &body)?;
    let run = run["run"].as_str().context("an id")?.to_owned();
    host.kill()?;
    let log = tempfile::NamedTempFile::new()?;
    let file = File::create(log.path())?;
    let arguments = ["--clock-offset-ms=-3600000"];
    let host = Host::start_with(folder.path(), &arguments, |command| {
        command.stderr(file);
    })?;
    let started = Instant::now();
    ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
    ensure!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let warning = tail(log.path(), 1, |line| line.contains("behind the latest commit"));
    ensure!(warning.contains("ahead_s") && warning.contains("WARN"), "no warning: {warning:?}");
    Ok(())
}

#[test]
fn unavoidable_limit_breaches_are_not_retried() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.push("web")?;
    host.grant("web", &json!({"http": ["GET http://127.0.0.1:1/"], "config": {"region": "eu"}}))?;
    let retry_policy = json!({"max_retries": 3, "strategy": "FIXED", "backoff_factor": 0});
    let node = |name: &str, inputs: Value, limits: Value| {
        json!({"retry_policy": retry_policy, "nodes": [
            {"node_name": name, "identifier": "only", "inputs": inputs, "limits": limits, "next_nodes": []},
        ]})
    };
    let long_name = "x".repeat(500);
    let request = json!({"authority": "127.0.0.1:2"});
    for (name, graph, kind, message) in [
        ("outputs", node("fan", json!({"n": 5}), json!({"outputs": 2})), "limit", "`outputs`"),
        (
            "each",
            node("echo", json!({"value": long_name}), json!({"output_bytes_each": 100})),
            "limit",
            "`output_bytes_each`",
        ),
        (
            "bytes",
            node("echo", json!({"value": long_name}), json!({"output_bytes": 100})),
            "limit",
            "`output_bytes`",
        ),
        (
            "inputs",
            node("echo", json!({"value": long_name}), json!({"input_bytes": 100})),
            "limit",
            "`input_bytes`",
        ),
        ("denied", node("hold", request, json!({})), "retryable", "exosphere grant add web --http"),
    ] {
        let run = host.result_of(name, &graph, &json!({}))?;
        ensure!(run["status"] == "FAILED" && run["counts"]["retries"] == 0, "{name}: {run:#}");
        let failure = &run["failures"][0];
        let failure = if failure["failure"].is_null() { failure } else { &failure["failure"] };
        ensure!(
            failure.to_string().contains(kind) && failure.to_string().contains(message),
            "{name}: {run:#}"
        );
    }
    // An attempt that may succeed the next time is retried.
    let mut slow = node("wait", json!({"ms": 60_000, "value": 0}), json!({}));
    slow["nodes"][0]["timeout_ms"] = json!(50);
    let run = host.result_of("slow", &slow, &json!({}))?;
    ensure!(run["counts"]["retries"] == 3, "{run:#}");
    Ok(())
}

#[test]
fn immediate_repeats_are_slowed_down() -> Result<()> {
    let host = Host::start()?;
    host.push("poller")?;
    host.push("lab")?;
    let endless = json!({"nodes": [
        {"node_name": "poller", "identifier": "only",
         "inputs": {"key": "k", "until": 1, "every_ms": 1}, "next_nodes": []},
    ]});
    let failing = json!({
        "retry_policy": {"max_retries": 1_000_000, "strategy": "FIXED", "backoff_factor": 0},
        "nodes": [{"node_name": "fail_when", "identifier": "only",
                   "inputs": {"value": 1, "equals": 1, "permanent": false}, "next_nodes": []}],
    });
    host.apply("endless", &endless)?;
    host.apply("failing", &failing)?;
    let runs = [("endless", "requeues"), ("failing", "retries")].map(|(graph, counted)| {
        Ok::<_, anyhow::Error>((host.run(graph, &json!({}), &json!({}))?, counted))
    });
    std::thread::sleep(Duration::from_secs(8));
    for started in runs {
        let (run, counted) = started?;
        let found = host.get(&format!("/runs/{run}"))?;
        let count = found["counts"][counted].as_u64().unwrap_or_default();
        // Ten requeues are as requested; then the minimum delay doubles after every eight: 10, 20, 40,
        // 80, 160, 320 ms..
        ensure!((11..=75).contains(&count), "{count} {counted} in eight seconds: {found:#}");
        ensure!(found["status"] == "RUNNING", "{found:#}");
    }
    Ok(())
}
