//! Several hosts on one Postgres: a lost host is replaced in time, a frozen one changes nothing
//! when it wakes, and a client may use any host.
//!
//! Not here: random faults (`chaos`).

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::cluster::{Cluster, Setup, with_cluster};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::{Host, failing_start, good, until};
use serde_json::{Value, json};

/// Maximum time until a state runs on another host after a kill.
const MAX_RECLAIM_TIME: Duration = Duration::from_secs(15);
/// Maximum time until a state runs on another host after a graceful stop.
const MAX_HANDOVER_TIME: Duration = Duration::from_secs(1);
/// Maximum time until the guests of a cancelled run have stopped on all hosts.
const MAX_CANCEL_TIME: Duration = Duration::from_secs(2);
/// Maximum delay of a due event on a busy machine.
const MAX_LATENESS: Duration = Duration::from_millis(1_500);

/// Returns a graph of `n` branches that wait.
fn waits(n: usize, ms: u64) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": n}, "next_nodes": ["waiter"]},
        {"node_name": "wait", "identifier": "waiter", "inputs": {"ms": ms},
         "timeout_ms": 300_000, "next_nodes": []},
    ]})
}

/// Returns a graph of one `chore` node.
fn chore(inputs: Value, retry_delay_ms: u64) -> Value {
    json!({
        "nodes": [{"node_name": "chore", "identifier": "worker", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 1, "strategy": "FIXED", "backoff_factor": retry_delay_ms},
        "store_config": {"keep": true},
    })
}

/// Applies a graph to a host and starts a run there.
fn begin(host: &Host, name: &str, graph: &Value) -> Result<String> {
    host.apply(name, graph)?;
    host.run(name, &json!({}), &json!({}))
}

/// Returns the run and path of a run's states at an identifier, once there are `n`.
fn states(host: &Host, run: &str, identifier: &str, n: usize) -> Result<Vec<String>> {
    let states = until("the states", || {
        let states = host.list(run, &format!("identifier={identifier}"))?;
        Ok((states.len() == n).then_some(states))
    })?;
    states.iter().map(|state| Ok(state["state"].as_str().context("a state")?.to_owned())).collect()
}

/// Cancels a run, and waits until no state of it is claimed.
fn cancel(host: &Host, run: &str) -> Result<()> {
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    host.wait_until(run, |run| run["counts"]["open"] == 0)?;
    until("the end of the guests", || Ok((host.holding()? == 0).then_some(())))
}

/// Warms up hosts: each executes a state, since the first execution loads the plugin. Returns the
/// number of executions.
fn warm_up(cluster: &Cluster, hosts: std::ops::Range<usize>) -> Result<usize> {
    cluster.host(hosts.start)?.apply("warm", &chore(json!({"i": 0, "key": "n"}), 1))?;
    let mut executions = 0;
    for at in hosts {
        until("an execution on each", || {
            let run = cluster.host(at)?.run("warm", &json!({}), &json!({}))?;
            cluster.host(at)?.wait_for(&run)?;
            executions += 1;
            Ok((!cluster.members()[at].executions()?.is_empty()).then_some(()))
        })?;
    }
    Ok(executions)
}

/// Waits until a run matches `wanted`, also during outages of the database.
fn wait_despite_outages(host: &Host, run: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    until("the run", || Ok(host.get(&format!("/runs/{run}")).ok().filter(&wanted)))
}

#[test]
fn killed_hosts_are_replaced_within_15_seconds() -> Result<()> {
    with_cluster(Postgres::shared()?, "killed", &vec![Setup::slots(16); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        let run = begin(cluster.host(0)?, "waits", &waits(6, 120_000))?;
        let states = states(cluster.host(0)?, &run, "waiter", 6)?;
        for state in &states {
            cluster.wait_for_executor(state, None)?;
        }
        let victim = cluster.wait_for_executor(&states[0], None)?;
        let mut host_states = Vec::new();
        for state in &states {
            if cluster.executor(state, None)? == Some(victim) {
                host_states.push(state);
            }
        }
        cluster.member(victim).kill()?;
        let killed_at = Instant::now();
        for &state in &host_states {
            cluster.wait_for_executor(state, Some(victim))?;
        }
        let elapsed = killed_at.elapsed();
        println!("{} states of a killed host ran elsewhere after {elapsed:?}", host_states.len());
        ensure!(elapsed <= MAX_RECLAIM_TIME, "it took {elapsed:?}");
        cancel(cluster.host(1 - victim)?, &run)
    })
}

#[test]
fn stopped_hosts_hand_over_within_a_second() -> Result<()> {
    let postgres = Postgres::shared()?;
    with_cluster(postgres, "stopped", &[Setup::slots(2), Setup::slots(64)], |cluster| {
        cluster.host(0)?.push("lab")?;
        warm_up(cluster, 0..2)?;
        // All executions so far were fast: the host prefetches, and is stopped before it knows that
        // these are slow.
        let run = begin(cluster.host(0)?, "waits", &waits(20, 4_000))?;
        until("claims ahead", || Ok((cluster.host(0)?.holding()? > 2).then_some(())))?;
        cluster.host(0)?.terminate()?;
        let stop_requested = Instant::now();
        let states = states(cluster.host(1)?, &run, "waiter", 20)?;
        let mut released = Vec::new();
        for state in states {
            if !cluster.members()[0].read_begun(&state)? {
                released.push(state);
            }
        }
        ensure!(!released.is_empty(), "it held nothing that it had not begun");
        let mut elsewhere = 0;
        for state in &released {
            // Some may have begun before the host read the signal.
            elsewhere += usize::from(cluster.wait_for_executor(state, None)? != 0);
        }
        let elapsed = stop_requested.elapsed();
        println!("{elsewhere} states of a stopped host ran elsewhere after {elapsed:?}");
        ensure!(elsewhere > 0, "it gave nothing back");
        ensure!(elapsed <= MAX_HANDOVER_TIME, "it took {elapsed:?}");
        let found = cluster.host(1)?.wait_for(&run)?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        let losses = postgres.psql(cluster.database(), "SELECT MAX(losses) FROM state")?;
        ensure!(losses == "0", "a released state was charged with a loss");
        Ok(())
    })
}

#[test]
fn results_of_frozen_hosts_are_discarded() -> Result<()> {
    with_cluster(Postgres::shared()?, "frozen", &vec![Setup::default(); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        // It wakes during the execution on the other host, then after it.
        for is_early in [true, false] {
            let graph = chore(json!({"i": 7, "ms": 4_000, "key": "effects"}), 100);
            let run = begin(cluster.host(0)?, "chore", &graph)?;
            let state = &states(cluster.host(0)?, &run, "worker", 1)?[0];
            let frozen = cluster.wait_for_executor(state, None)?;
            cluster.member(frozen).freeze()?;
            let other = cluster.wait_for_executor(state, Some(frozen))?;
            if is_early {
                cluster.member(frozen).thaw()?;
            }
            let found = cluster.host(other)?.wait_for(&run)?;
            cluster.member(frozen).thaw()?;
            check_single_execution(cluster, &run, &found, state, other)?;
            // The woken host discards its result, and executes new states.
            let thawed = cluster.host(frozen)?;
            until("the host that woke", || Ok(thawed.holding().ok().filter(|&held| held == 0)))?;
            let now = thawed.get(&format!("/runs/{run}"))?;
            ensure!(now == found, "a late result changed {found:#} to {now:#}");
            let rerun = begin(thawed, "again", &chore(json!({"i": 1, "key": "n"}), 100))?;
            ensure!(thawed.wait_for(&rerun)?["status"] == "SUCCESS");
        }
        Ok(())
    })
}

/// Checks that the run's one state had its effect once, by the execution on `winner`.
fn check_single_execution(
    cluster: &Cluster,
    run: &str,
    found: &Value,
    state: &str,
    winner: usize,
) -> Result<()> {
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    ensure!(found["store"] == json!({"effects": "1"}), "{found:#}");
    let executions = cluster.members()[winner].executions()?;
    let last = executions.iter().rfind(|execution| execution.state == state);
    let attempt = last.context("it executed it")?.attempt;
    let output = cluster.host(winner)?.output(run, "worker")?;
    ensure!(output["attempt"] == attempt, "not by attempt {attempt}: {output}");
    Ok(())
}

#[test]
fn ten_hosts_initialize_an_empty_database_together() -> Result<()> {
    with_cluster(Postgres::shared()?, "ten", &vec![Setup::slots(2); 10], |cluster| {
        cluster.host(9)?.push("lab")?;
        cluster.host(8)?.apply("waits", &waits(3, 1))?;
        for at in 0..10 {
            let run = cluster.host(at)?.run("waits", &json!({}), &json!({}))?;
            let found = cluster.host((at + 1) % 10)?.wait_for(&run)?;
            ensure!(found["status"] == "SUCCESS", "{found:#}");
        }
        Ok(())
    })
}

#[test]
fn a_newer_database_version_is_rejected() -> Result<()> {
    let postgres = Postgres::shared()?;
    let url = postgres.create_database("newer")?;
    let folder = tempfile::tempdir()?;
    let mut host = Host::start_with(&folder.path().join("a"), &["--database", &url], |_| ())?;
    host.terminate()?;
    host.wait()?;
    postgres.psql(
        "newer",
        "INSERT INTO _sqlx_migrations \
         (version, description, installed_on, success, checksum, execution_time) \
         VALUES (9999, 'of the future', now(), true, '\\x00', 0)",
    )?;
    let message = failing_start(&["--data", path(&folder.path().join("b"))?, "--database", &url])?;
    println!("{message}");
    ensure!(message.contains("newer"), "this is not clear: {message}");
    Ok(())
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

#[test]
fn wrong_host_clocks_change_nothing() -> Result<()> {
    const HOUR: i64 = 3_600_000;
    let setup = |clock_offset_ms| Setup { clock_offset_ms, ..Setup::default() };
    let setups = [setup(HOUR), setup(-HOUR), setup(0)];
    let postgres = Postgres::shared()?;
    with_cluster(postgres, "clocks", &setups, |cluster| {
        cluster.host(0)?.push("lab")?;
        for (name, graph) in [
            ("delayed", chore(json!({"i": 0, "key": "n"}), 1)),
            (
                "requeues",
                chore(json!({"i": 0, "key": "n", "turns": ["requeue"], "requeue_ms": 2_000}), 1),
            ),
            ("retries", chore(json!({"i": 0, "key": "n", "turns": ["fail"]}), 2_000)),
            // The state runs for longer than a lease: a host that considered this one dead would run it again.
            ("long", chore(json!({"i": 0, "key": "n", "ms": 13_000}), 1)),
        ] {
            cluster.host(0)?.apply(name, &graph)?;
        }
        let warming = warm_up(cluster, 0..setups.len())?;
        std::thread::scope(|scope| {
            let mut waiting = Vec::new();
            for at in 0..setups.len() {
                let (from, other) = (cluster.host(at)?, cluster.host((at + 1) % setups.len())?);
                for name in ["delayed", "requeues", "retries"] {
                    waiting.push(scope.spawn(move || takes_two_seconds(name, from, other)));
                }
                waiting.push(scope.spawn(move || takes(13, "long", from, other, 0)));
            }
            waiting.into_iter().try_for_each(|it| it.join().ok().context("it panicked")?)
        })?;
        let losses = postgres.psql(cluster.database(), "SELECT MAX(losses) FROM state")?;
        ensure!(losses == "0", "a live host was declared dead");
        let mut executions = 0;
        for member in cluster.members() {
            executions += member.executions()?.len();
        }
        ensure!(executions == warming + 3 * (1 + 2 + 2 + 1), "{executions} executions");
        Ok(())
    })
}

fn takes_two_seconds(name: &str, from: &Host, other: &Host) -> Result<()> {
    takes(2, name, from, other, if name == "delayed" { 2_000 } else { 0 })
}

/// Checks that a run started on one host ends on time, as the other host sees it.
fn takes(seconds: u64, name: &str, from: &Host, other: &Host, delay_ms: u64) -> Result<()> {
    let body = json!({"inputs": {}, "delay_ms": delay_ms});
    let requested_at = Instant::now();
    let run = from.send("POST", &format!("/graphs/{name}/runs"), &body)?;
    let started = Instant::now();
    let found = other.wait_for(run["run"].as_str().context("a run has an id")?)?;
    let status = if name == "retries" { "FAILED" } else { "SUCCESS" };
    ensure!(found["status"] == status, "{found:#}");
    let due = Duration::from_secs(seconds);
    let (shortest, longest) = (started.elapsed(), requested_at.elapsed());
    println!("{name} took {longest:?}");
    ensure!(longest >= due, "{name} was early: {longest:?}");
    ensure!(shortest <= due + MAX_LATENESS, "{name} was late: {shortest:?}");
    Ok(())
}

#[test]
fn a_cancel_stops_guests_on_any_host() -> Result<()> {
    with_cluster(Postgres::shared()?, "cancelled", &vec![Setup::slots(4); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        // There are more states than one host can run, so both hosts have claimed some.
        let run = begin(cluster.host(0)?, "waits", &waits(100, 60_000))?;
        for at in 0..2 {
            until("guests on both hosts", || {
                Ok((cluster.members()[at].executions()?.len() >= 4).then_some(()))
            })?;
        }
        let from = Instant::now();
        let cancelled =
            cluster.host(0)?.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
        ensure!(cancelled["status"] == "CANCELLED", "{cancelled:#}");
        for member in cluster.members() {
            until("the end of the guests", || Ok((member.holding()? == 0).then_some(())))?;
        }
        let elapsed = from.elapsed();
        println!("guests were stopped after {elapsed:?}");
        ensure!(elapsed <= MAX_CANCEL_TIME, "it took {elapsed:?}");
        cluster.host(1)?.wait_until(&run, |run| run["counts"]["open"] == 0)?;
        Ok(())
    })
}

#[test]
fn uploads_and_graphs_reach_every_host() -> Result<()> {
    with_cluster(Postgres::shared()?, "plugins", &vec![Setup::slots(2); 3], |cluster| {
        cluster.host(0)?.push("lab")?;
        cluster.host(1)?.apply("waits", &waits(200, 100))?;
        let run = cluster.host(2)?.run("waits", &json!({}), &json!({}))?;
        for member in cluster.members() {
            until("an execution on each", || Ok((!member.executions()?.is_empty()).then_some(())))?;
        }
        let found = cluster.host(0)?.wait_for(&run)?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        Ok(())
    })
}

/// Each host caches graphs; none starts an old revision.
#[test]
fn applied_revisions_take_effect_cluster_wide() -> Result<()> {
    with_cluster(Postgres::shared()?, "applies", &vec![Setup::default(); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        // Some revisions take inputs that the one before would refuse.
        let roots =
            [("fan", json!({"n": 1})), ("fan", json!({"n": 2})), ("wait", json!({"ms": 0}))];
        for revision in 1..=9 {
            let (node, inputs) = &roots[revision % roots.len()];
            let named = format!("revision_{revision}");
            let single =
                json!({"node_name": node, "identifier": named, "inputs": inputs, "next_nodes": []});
            let graph = json!({"nodes": [single]});
            cluster.host(revision % 2)?.apply("changes", &graph)?;
            for member in 0..2 {
                let host = cluster.host(member)?;
                let run = host.run("changes", inputs, &json!({}))?;
                let found = host.wait_for(&run)?;
                ensure!(found["revision"] == json!(revision), "host {member}: {found:#}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_postgres_restart_only_delays_runs() -> Result<()> {
    const BRANCHES: usize = 400;
    // Not the shared server, which other tests use.
    let postgres = Postgres::start()?;
    with_cluster(&postgres, "restarted", &vec![Setup::default(); 2], |cluster| {
        let graph = json!({
            "nodes": [
                {"node_name": "fan", "identifier": "splitter", "inputs": {"n": BRANCHES}, "next_nodes": ["worker"]},
                {"node_name": "chore", "identifier": "worker", "next_nodes": ["merger"],
                 "inputs": {"i": "${{ splitter.outputs.i }}", "key": "effects", "ms": 200}},
                {"node_name": "collect", "identifier": "merger", "unites": {"identifier": "splitter"},
                 "inputs": {"values": "${{ worker.outputs.value }}"}, "next_nodes": []},
            ],
            "store_config": {"keep": true},
        });
        cluster.host(0)?.push("lab")?;
        let from = Instant::now();
        let run = begin(cluster.host(0)?, "load", &graph)?;
        for (mode, done) in [(Mode::Fast, 80), (Mode::Immediate, 200)] {
            wait_despite_outages(cluster.host(1)?, &run, |run| {
                run["counts"]["success"].as_u64().is_some_and(|count| count >= done)
            })?;
            postgres.restart(mode)?;
        }
        let found = wait_despite_outages(cluster.host(1)?, &run, |run| run["status"] != "RUNNING")?;
        let elapsed = from.elapsed();
        println!("with two restarts it took {elapsed:?}");
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        ensure!(found["counts"]["retries"] == 0, "{found:#}");
        ensure!(found["store"] == json!({"effects": BRANCHES.to_string()}), "{found:#}");
        let merged = cluster.host(0)?.output(&run, "merger")?;
        ensure!(merged["values"] == json!((0..BRANCHES).collect::<Vec<_>>()), "{merged}");
        let failed = "SELECT COUNT(*) FROM attempt WHERE outcome = 'FAILED'";
        ensure!(postgres.psql(cluster.database(), failed)? == "0", "an attempt failed");
        ensure!(elapsed < Duration::from_secs(30), "it took {elapsed:?}");
        for member in cluster.members() {
            member.holding().context("a host is well again")?;
        }
        Ok(())
    })
}

#[test]
fn watchers_see_changes_from_other_hosts() -> Result<()> {
    const ROUNDS: usize = 5;
    with_cluster(Postgres::shared()?, "watched", &vec![Setup::default(); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        cluster.host(0)?.apply("waits", &waits(1, 1_500))?;
        let mut delays = Vec::new();
        for _ in 0..ROUNDS {
            let run = cluster.host(1)?.run("waits", &json!({}), &json!({}))?;
            let state = &states(cluster.host(1)?, &run, "waiter", 1)?[0];
            let busy = cluster.wait_for_executor(state, None)?;
            delays.push(notification_delay(cluster.host(busy)?, cluster.host(1 - busy)?, &run)?);
        }
        delays.sort();
        println!("news took {delays:?}");
        ensure!(delays[ROUNDS / 2] <= Duration::from_millis(300), "{delays:?}");
        Ok(())
    })
}

/// Returns the delay with which a waiter on another host learns of a run's end, compared with a
/// client that polls the executing host.
fn notification_delay(busy: &Host, other: &Host, run: &str) -> Result<Duration> {
    let (known, notified) = std::thread::scope(|scope| {
        let known = scope.spawn(|| {
            let has_ended = |run: &Value| run["status"] != "RUNNING";
            until("the end", || Ok(busy.get(&format!("/runs/{run}")).ok().filter(has_ended)))?;
            anyhow::Ok(Instant::now())
        });
        let notified = scope.spawn(|| {
            let mut found = other.get(&format!("/runs/{run}"))?;
            while found["status"] == "RUNNING" {
                // The wait is much longer than the run, so only a notification ends it.
                let after = format!("/runs/{run}?after={}&wait_ms=20000", found["version"]);
                found = other.get(&after)?;
            }
            anyhow::Ok(Instant::now())
        });
        (known.join(), notified.join())
    });
    let (Ok(known), Ok(notified)) = (known, notified) else { bail!("it panicked") };
    Ok(notified?.saturating_duration_since(known?))
}

#[test]
fn one_key_starts_one_run_cluster_wide() -> Result<()> {
    const KEYS: usize = 20;
    with_cluster(Postgres::shared()?, "keys", &vec![Setup::default(); 2], |cluster| {
        cluster.host(0)?.push("lab")?;
        cluster.host(0)?.apply("waits", &waits(1, 1))?;
        for number in 0..KEYS {
            let body = json!({"inputs": {}, "idempotency_key": format!("key {number}")});
            let together = Barrier::new(2);
            let start = |at: usize| -> Result<Value> {
                let request = cluster.host(at)?.request("POST", "/graphs/waits/runs")?.json(&body);
                together.wait();
                Ok(good(request.send()?)?["run"].clone())
            };
            let (first, second) = std::thread::scope(|scope| {
                let other = scope.spawn(|| start(1));
                (start(0), other.join())
            });
            let (first, second) = (first?, second.ok().context("it panicked")??);
            ensure!(first.is_string() && first == second, "{first} and {second}");
            let repeated = cluster.host(0)?.send("POST", "/graphs/waits/runs", &body)?;
            ensure!(repeated["run"] == first, "{repeated:#}");
            cluster.host(1)?.wait_for(first.as_str().unwrap_or_default())?;
        }
        let runs = cluster.host(0)?.get("/runs?limit=1000")?;
        let count = runs["runs"].as_array().map_or(0, Vec::len);
        ensure!(count == KEYS, "{count} runs of {KEYS} keys");
        Ok(())
    })
}
