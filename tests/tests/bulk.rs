//! Bulk operations: each run is changed once, however often its host is killed; through the API and
//! the command line, on both databases.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, check, until};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Number of runs that are redriven while hosts are killed.
const RUNS: u64 = 10_000;

/// Number of runs that are started at once.
const STARTS_AT_ONCE: u64 = 24;

/// Returns a graph of one node, which fails whenever it is executed.
fn failing() -> Value {
    json!({
        "nodes": [{"node_name": "fail_when", "identifier": "only", "next_nodes": [],
                   "inputs": {"value": 1, "equals": 1}}],
        "retry_policy": {"max_retries": 0},
    })
}

/// Returns a graph of one node, which echoes its input.
fn echo() -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []},
    ]})
}

/// Starts runs of a graph, several at once.
fn start_many(host: &Host, graph: &str, runs: u64, body: &Value) -> Result<()> {
    let path = format!("/graphs/{graph}/runs");
    let each = |share: u64| (0..share).try_for_each(|_| host.send("POST", &path, body).map(drop));
    std::thread::scope(|scope| {
        let shares = (0..STARTS_AT_ONCE).map(|at| (runs + at) / STARTS_AT_ONCE);
        let starts: Vec<_> = shares.map(|share| scope.spawn(move || each(share))).collect();
        starts.into_iter().try_for_each(|start| match start.join() {
            Ok(started) => started,
            Err(_) => anyhow::bail!("a thread that starts runs panicked"),
        })
    })
}

/// Waits until no run is RUNNING. A page whose only run ends while it is read is empty, but not the
/// last.
fn wait_for_all(host: &Host) -> Result<()> {
    until("the end of every run", || {
        let page = host.get("/runs?status=RUNNING&limit=1")?;
        Ok((page["runs"] == json!([]) && page["next"].is_null()).then_some(()))
    })
}

/// Begins an operation, and returns its id.
fn begin(host: &Host, body: &Value) -> Result<String> {
    let begun = host.send("POST", "/bulk", body)?;
    Ok(begun["bulk"].as_str().context("an operation has an id")?.to_owned())
}

/// Waits until an operation is as wanted, and returns it.
fn wait_until(host: &Host, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = until("the progress of the operation", || {
        let found = host.get(&format!("/bulk/{id}"))?;
        Ok(wanted(&found).then_some(found))
    });
    found.with_context(|| format!("{:?}", host.get(&format!("/bulk/{id}"))))
}

fn wait_for_end(host: &Host, id: &str) -> Result<Value> {
    wait_until(host, id, |bulk| bulk["status"] != "RUNNING")
}

fn count(bulk: &Value, name: &str) -> u64 {
    bulk[name].as_u64().unwrap_or_default()
}

/// Runs the command line on a host.
fn exosphere(host: &Host, arguments: &[&str]) -> Result<Output> {
    Ok(host.command()?.args(arguments).output()?)
}

/// Returns the standard output of a command that must succeed.
fn output(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = exosphere(host, arguments)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "exosphere {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A database that the test looks into.
enum Rows<'a> {
    Sqlite(&'a Path),
    Postgres(&'a Postgres, &'a str),
}

impl Rows<'_> {
    fn number(&self, sql: &str) -> Result<i64> {
        match self {
            Rows::Sqlite(data) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let database = Connection::open_with_flags(data.join("exosphere.db"), flags)?;
                Ok(database.query_row(sql, [], |row| row.get(0))?)
            }
            Rows::Postgres(postgres, database) => Ok(postgres.psql(database, sql)?.parse()?),
        }
    }

    /// Fails unless each of `runs` states has failed exactly twice: at first, and after one redrive.
    fn check_redriven_once(&self, runs: u64) -> Result<()> {
        let failed = "SELECT state, COUNT(*) AS times FROM attempt WHERE message = '1 was told to fail' \
                      GROUP BY state";
        let all = self.number(&format!("SELECT COUNT(*) FROM ({failed}) f"))?;
        let twice = self.number(&format!("SELECT COUNT(*) FROM ({failed}) f WHERE times = 2"))?;
        let most = self.number(&format!("SELECT MAX(times) FROM ({failed}) f"))?;
        ensure!(
            (all.unsigned_abs(), twice.unsigned_abs(), most) == (runs, runs, 2),
            "of {all} states, {twice} have failed twice; the most failures are {most}"
        );
        Ok(())
    }
}

/// Redrives runs, and kills the host in the middle, several times.
fn redrive_with_kills(data: &Path, arguments: &[&str]) -> Result<()> {
    let start = || Host::start_with(data, arguments, |_| ());
    let mut host = start()?;
    host.push("lab")?;
    host.apply("failing", &failing())?;
    start_many(&host, "failing", RUNS, &json!({}))?;
    wait_for_all(&host)?;
    let filter = json!({"graph": "failing", "status": ["FAILED"]});
    let body = json!({"action": "redrive", "filter": filter, "reason": "a test"});
    let id = begin(&host, &body)?;
    for part in [RUNS / 5, RUNS / 2] {
        let found = wait_until(&host, &id, |bulk| count(bulk, "done") >= part)?;
        ensure!(found["status"] == "RUNNING", "it was too fast to be interrupted: {found:#}");
        host.kill()?;
        host = start()?;
    }
    let ended = wait_for_end(&host, &id)?;
    wait_for_all(&host)?;
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    let counts = ["selected", "done", "skipped", "failed"].map(|name| count(&ended, name));
    ensure!(counts == [RUNS, RUNS, 0, 0], "{ended:#}");
    ensure!(ended["expected"] == json!({"runs": RUNS, "exact": true}), "{ended:#}");
    Ok(())
}

#[test]
fn kills_redrive_no_run_twice_on_sqlite() -> Result<()> {
    let folder = tempfile::tempdir()?;
    redrive_with_kills(folder.path(), &[])?;
    Rows::Sqlite(folder.path()).check_redriven_once(RUNS)?;
    check(&["--data", &folder.path().to_string_lossy()])
}

#[test]
fn kills_redrive_no_run_twice_on_postgres() -> Result<()> {
    let postgres = Postgres::shared()?;
    let url = postgres.create_database("bulk_kills")?;
    let folder = tempfile::tempdir()?;
    redrive_with_kills(folder.path(), &["--database", &url])?;
    Rows::Postgres(postgres, "bulk_kills").check_redriven_once(RUNS)?;
    check(&["--database", &url])
}

#[test]
fn another_host_continues_the_operation() -> Result<()> {
    const RUNS: u64 = 1_500;
    let (postgres, database) = (Postgres::shared()?, "bulk_hosts");
    with_cluster(postgres, database, &[Setup::slots(4), Setup::slots(4)], |cluster| {
        let host = cluster.host(0)?;
        host.push("lab")?;
        host.apply("failing", &failing())?;
        start_many(host, "failing", RUNS, &json!({}))?;
        wait_for_all(host)?;
        let body = json!({"action": "redrive", "filter": {"graph": "failing"}});
        let id = begin(host, &body)?;
        wait_until(host, &id, |bulk| count(bulk, "done") >= RUNS / 3)?;
        cluster.member(0).kill()?;
        let host = cluster.host(1)?;
        let found = host.get(&format!("/bulk/{id}"))?;
        ensure!(found["status"] == "RUNNING", "{found:#}");
        let ended = wait_for_end(host, &id)?;
        ensure!(ended["status"] == "SUCCESS" && count(&ended, "done") == RUNS, "{ended:#}");
        wait_for_all(host)?;
        Rows::Postgres(postgres, database).check_redriven_once(RUNS)
    })
}

#[test]
fn a_stopped_operation_leaves_the_rest() -> Result<()> {
    const RUNS: u64 = 400;
    on_both("bulk_stop", &[], |host| {
        host.push("lab")?;
        host.apply("echo", &echo())?;
        // None of them begins before it is cancelled.
        start_many(host, "echo", RUNS, &json!({"delay_ms": 3_600_000}))?;
        let body = json!({"action": "cancel", "filter": {"status": ["RUNNING"]}});
        let id = begin(host, &body)?;
        wait_until(host, &id, |bulk| count(bulk, "done") > 0)?;
        let stopped = host.send("POST", &format!("/bulk/{id}/cancel"), &json!({}))?;
        ensure!(stopped["status"] == "CANCELLED", "{stopped:#}");
        let done = count(&stopped, "done");
        ensure!((1..RUNS).contains(&done), "{stopped:#}");
        // A second stop changes nothing.
        let again = host.send("POST", &format!("/bulk/{id}/cancel"), &json!({}))?;
        ensure!(again == stopped, "{again:#}");
        // The next operation finds the rest, and ends after the steps of the first.
        let id = begin(host, &body)?;
        let ended = wait_for_end(host, &id)?;
        ensure!(ended["status"] == "SUCCESS", "{ended:#}");
        ensure!(count(&ended, "done") + done == RUNS, "{done}: {ended:#}");
        let page = host.get("/runs?status=CANCELLED&limit=1000")?;
        ensure!(page["runs"].as_array().map(Vec::len) == Some(RUNS as usize));
        Ok(())
    })
}

#[test]
fn a_dry_run_changes_nothing() -> Result<()> {
    on_both("bulk_dry", &[], |host| {
        host.push("lab")?;
        host.apply("echo", &echo())?;
        start_many(host, "echo", 30, &json!({"labels": {"team": "a"}}))?;
        start_many(host, "echo", 5, &json!({"delay_ms": 3_600_000}))?;
        let ended = "status=SUCCESS&limit=1000";
        until("the end of the runs", || {
            let page = host.get(&format!("/runs?{ended}"))?;
            Ok((page["runs"].as_array().map(Vec::len) == Some(30)).then_some(()))
        })?;
        let dry = |action: &str, filter: &Value| {
            let body = json!({"action": action, "filter": filter, "dry_run": true});
            host.send("POST", "/bulk", &body)
        };
        let all = json!({"graph": "echo"});
        for (action, filter, runs) in [
            ("delete", &all, 30),
            ("cancel", &all, 5),
            ("redrive", &all, 0),
            ("delete", &json!({"label": ["team:a"]}), 30),
            ("delete", &json!({"label": ["team:b"]}), 0),
        ] {
            let found = dry(action, filter)?;
            ensure!(found["expected"] == json!({"runs": runs, "exact": true}), "{found:#}");
            ensure!(found["action"] == action && found["filter"] == *filter, "{found:#}");
        }
        ensure!(host.get("/bulk")?["bulk"] == json!([]));
        let id = begin(host, &json!({"action": "delete", "filter": {"label": ["team:a"]}}))?;
        ensure!(count(&wait_for_end(host, &id)?, "done") == 30);
        ensure!(host.get(&format!("/runs?{ended}"))?["runs"] == json!([]));
        Ok(())
    })
}

#[test]
fn impossible_operations_are_refused() -> Result<()> {
    on_both("bulk_refused", &[], |host| {
        host.push("lab")?;
        host.apply("echo", &echo())?;
        for (body, path) in [
            (json!({"action": "cancel", "filter": {}}), "$.filter"),
            (json!({"action": "cancel"}), "$"),
            (json!({"action": "stop", "filter": {"graph": "echo"}}), "$.action"),
            (json!({"action": "cancel", "filter": {"status": ["FAILED"]}}), "$.filter.status[0]"),
            (json!({"action": "cancel", "filter": {"graf": "echo"}}), "$.filter.graf"),
        ] {
            let (status, problem) = host.refused("POST", "/bulk", &body)?;
            ensure!(status == 422 && problem["errors"][0]["path"] == path, "{problem:#}");
        }
        let body = json!({"action": "cancel", "filter": {"graph": "ekho"}});
        let (status, problem) = host.refused("POST", "/bulk", &body)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(status == 404 && detail.contains("did you mean echo?"), "{problem:#}");
        let (status, _) =
            host.refused("GET", "/bulk/00000000-0000-7000-8000-000000000000", &json!({}))?;
        ensure!(status == 404);
        Ok(())
    })
}

#[test]
fn a_key_begins_one_operation() -> Result<()> {
    on_both("bulk_keys", &[], |host| {
        host.push("lab")?;
        host.apply("echo", &echo())?;
        let send = |body: &Value| -> Result<(u16, Value)> {
            let request = host.request("POST", "/bulk")?.header("idempotency-key", "k");
            let answer = request.json(body).send()?;
            Ok((answer.status().as_u16(), serde_json::from_str(&answer.text()?)?))
        };
        let body = json!({"action": "cancel", "filter": {"graph": "echo"}});
        let (status, first) = send(&body)?;
        ensure!(status == 202, "{first:#}");
        let (status, second) = send(&body)?;
        ensure!(status == 202 && second["bulk"] == first["bulk"], "{second:#}");
        let (status, other) = send(&json!({"action": "delete", "filter": {"graph": "echo"}}))?;
        ensure!(status == 422 && other["errors"][0]["path"] == "$.action", "{other:#}");
        // The answer to the first request stays, also when the graph of its filter is gone.
        wait_for_end(host, first["bulk"].as_str().context("an id")?)?;
        host.send("DELETE", "/graphs/echo", &json!({}))?;
        let (status, third) = send(&body)?;
        ensure!(status == 202 && third["bulk"] == first["bulk"], "{third:#}");
        Ok(())
    })
}

#[test]
fn commands_begin_and_follow_operations() -> Result<()> {
    on_both("bulk_commands", &[], |host| {
        host.push("lab")?;
        host.apply("failing", &failing())?;
        start_many(host, "failing", 12, &json!({}))?;
        wait_for_all(host)?;
        let filter = ["--graph", "failing", "--status", "failed"];
        fn bulk<'w>(words: &[&'w str]) -> Vec<&'w str> {
            [&["bulk"], words].concat()
        }
        let dry = output(host, &bulk(&[&["redrive", "--dry-run"], &filter[..]].concat()))?;
        ensure!(dry.starts_with("redrive 12 runs with graph=failing status=FAILED"), "{dry}");
        // Without a terminal there is no question.
        let refused = exosphere(host, &bulk(&[&["redrive"], &filter[..]].concat()))?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2), "{words}");
        ensure!(words.contains("redrive 12 runs") && words.contains("--yes"), "{words}");
        let empty = exosphere(host, &bulk(&["redrive", "--yes"]))?;
        let words = String::from_utf8_lossy(&empty.stderr).into_owned();
        ensure!(empty.status.code() == Some(2) && words.contains("--graph"), "{words}");
        ensure!(host.get("/bulk")?["bulk"] == json!([]), "nothing has begun");
        let watched = [&["redrive", "--yes", "--watch", "--reason", "fixed"], &filter[..]].concat();
        let watched = output(host, &bulk(&watched))?;
        ensure!(watched.contains("SUCCESS") && watched.contains("reason: fixed"), "{watched}");
        let listed = output(host, &["bulk", "list"])?;
        ensure!(listed.lines().count() == 2 && listed.contains("redrive"), "{listed}");
        let id = listed.lines().nth(1).and_then(|line| line.split(' ').next());
        let id = id.context("the list has an id")?;
        for name in [id, &id[..13], "latest"] {
            let shown = output(host, &["bulk", "show", name])?;
            ensure!(shown.contains(id) && shown.contains("12"), "{shown}");
        }
        let begun = output(host, &bulk(&["delete", "--graph", "failing", "--yes"]))?;
        let follow = begun.lines().find_map(|line| line.strip_prefix("follow it with: exosphere "));
        let follow: Vec<_> = follow.context("the next command is named")?.split(' ').collect();
        let [words @ .., "--host", url] = follow.as_slice() else {
            anyhow::bail!("the command names no host: {follow:?}");
        };
        ensure!(*url == host.url() && words[..2] == ["bulk", "watch"], "{follow:?}");
        ensure!(output(host, words)?.contains("SUCCESS"));
        let stopped = output(host, &["bulk", "stop", "latest"])?;
        ensure!(stopped.contains("SUCCESS"), "it was over: {stopped}");
        let pages = output(host, &["bulk", "list", "--limit", "1"])?;
        ensure!(pages.contains("bulk list --limit 1 --after"), "{pages}");
        Ok(())
    })
}
