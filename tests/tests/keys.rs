//! Keys of the API: who may do what, in which namespaces, and with which keys.
//!
//! Not here: TLS (`tls`).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::honest_traffic::slack;
use exosphere_tests::host::client;
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, MAX_WAIT, binary, failing_start, good, path_of, problem, tail, until};
use reqwest::blocking::Response;
use serde_json::{Value, json};

/// Maximum time until a key that was revoked on one host is refused on another.
const MAX_REVOCATION_TIME: Duration = Duration::from_secs(1);

fn id_of(key: &str) -> &str {
    &key[4..16]
}

/// Sends a request with a key, or with none if it is empty.
fn send(host: &Host, key: &str, method: &str, path: &str, body: &Value) -> Result<Response> {
    let url = format!("{}{path}", host.url());
    Ok(client(key, MAX_WAIT)?.request(method.parse()?, url).json(body).send()?)
}

fn status(host: &Host, key: &str, method: &str, path: &str) -> Result<u16> {
    Ok(send(host, key, method, path, &json!({}))?.status().as_u16())
}

const RUNS: &str = "/v1/namespaces/default/runs";

fn echo() -> Value {
    json!({"nodes": [{
        "node_name": "echo", "identifier": "only", "inputs": {"value": "a payload"},
        "next_nodes": [],
    }]})
}

#[test]
fn the_first_start_creates_an_admin_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    let file = folder.path().join("admin.key");
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    let key = std::fs::read_to_string(&file)?;
    ensure!(status(&host, key.trim(), "GET", RUNS)? == 200);
    ensure!(status(&host, "", "GET", "/health")? == 200);
    let refused = send(&host, "", "GET", RUNS, &json!({}))?;
    ensure!(refused.headers()["www-authenticate"] == "Bearer realm=\"exosphere\"");
    let (status, found) = problem(refused)?;
    ensure!(status == 401 && found["type"] == "/problems/no-key", "{found}");
    ensure!(found["detail"].as_str().is_some_and(|it| it.contains("--key-file")), "{found}");
    // The command line finds the key in the data folder, and a restart creates no other.
    let list = |data: &str| {
        let mut command = Command::new(binary()?);
        command.args(["--host", host.url(), "--json", "key", "list"]);
        command.env("EXOSPHERE_DATA", data).env_remove("EXOSPHERE_KEY");
        Ok::<_, anyhow::Error>(command.output()?)
    };
    let listed = list(&folder.path().to_string_lossy())?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    ensure!(listed["keys"][0]["id"] == id_of(key.trim()) && listed["keys"][1].is_null());
    ensure!(list("/nonexistent")?.status.code() == Some(1), "without a key it is refused");
    host.kill()?;
    Host::start_in(folder.path())?;
    ensure!(std::fs::read_to_string(&file)? == key);
    Ok(())
}

#[test]
fn each_role_may_do_what_it_should() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("echo", &echo())?;
    let run = host.run("echo", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    // A path for each role, and the statuses of an allowed request.
    let cancel = format!("{RUNS}/{run}/cancel");
    let show = format!("{RUNS}/{run}");
    let requests: [(&str, &str, &str, u16); 16] = [
        ("viewer", "GET", RUNS, 200),
        ("viewer", "GET", &show, 200),
        ("viewer", "GET", "/v1/namespaces/default/graphs/echo", 200),
        ("viewer", "GET", "/v1/namespaces/default/plugins", 200),
        ("viewer", "GET", "/v1/namespaces/default/bulk", 200),
        ("operator", "POST", "/v1/namespaces/default/bulk", 422),
        ("operator", "POST", "/v1/namespaces/default/graphs/echo/runs", 201),
        ("operator", "POST", &cancel, 409),
        ("deployer", "PUT", "/v1/namespaces/default/graphs/echo", 422),
        ("deployer", "POST", "/v1/namespaces/default/graphs/echo/validate", 422),
        ("deployer", "POST", "/v1/namespaces/default/plugins?name=x", 422),
        ("admin", "GET", "/v1/operator/namespaces/default", 200),
        ("admin", "PUT", "/v1/operator/namespaces/default", 200),
        ("admin", "GET", "/v1/operator/hosts", 200),
        ("admin", "GET", "/v1/operator/keys", 200),
        ("admin", "GET", "/v1/operator/audit", 200),
    ];
    let roles = ["viewer", "operator", "deployer", "admin"];
    for (rank, role) in roles.iter().enumerate() {
        let key = host.new_key(&json!({"label": role, "role": role}))?;
        for (least, method, path, allowed) in requests {
            let needed = roles.iter().position(|role| *role == least).context("a role")?;
            let expected = if rank >= needed { allowed } else { 403 };
            let found = status(&host, &key, method, path)?;
            ensure!(found == expected, "{role}: {method} {path}: {found}, not {expected}");
        }
    }
    Ok(())
}

#[test]
fn other_namespaces_do_not_exist_for_a_key() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("echo", &echo())?;
    let run = host.run("echo", &json!({}), &json!({}))?;
    host.namespace("a", &json!({}))?;
    for role in ["viewer", "admin"] {
        let key = host.new_key(&json!({"label": "a", "role": role, "namespaces": ["a"]}))?;
        ensure!(status(&host, &key, "GET", "/v1/namespaces/a/runs")? == 200);
        for (path, absent) in [
            (format!("{RUNS}/{run}"), format!("/v1/namespaces/absent/runs/{run}")),
            (RUNS.to_owned(), "/v1/namespaces/absent/runs".to_owned()),
            (
                "/v1/namespaces/default/graphs/echo".to_owned(),
                "/v1/namespaces/absent/graphs/echo".to_owned(),
            ),
            (
                "/v1/operator/namespaces/default".to_owned(),
                "/v1/operator/namespaces/absent".to_owned(),
            ),
        ] {
            let answer = |path: &str| problem(send(&host, &key, "GET", path, &json!({}))?);
            let (status, found) = answer(&path)?;
            let (_, there) = answer(&absent)?;
            ensure!(status == 404, "{path}: {found}");
            let same: Value = found.to_string().replace("default", "absent").parse()?;
            ensure!(same == there, "they differ: {found} {there}");
        }
        // What belongs to no namespace is not for a key of some.
        ensure!(status(&host, &key, "GET", "/v1/operator/keys")? == 403);
    }
    Ok(())
}

#[test]
fn payloads_are_withheld_from_a_key() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("echo", &echo())?;
    let run = host.run("echo", &json!({}), &json!({"k": "a payload"}))?;
    host.wait_for(&run)?;
    let state = path_of(&host.list(&run, "")?[0])?.to_owned();
    let key = |payloads: bool| {
        host.new_key(&json!({"label": "v", "role": "operator", "payloads": payloads}))
    };
    let (blind, seeing) = (key(false)?, key(true)?);
    let start = "/v1/namespaces/default/graphs/echo/runs?wait_ms=10000".to_owned();
    for (method, path, withheld) in [
        ("GET", format!("{RUNS}/{run}"), json!(["store"])),
        ("GET", format!("{RUNS}/{run}/states/{state}"), json!(["data", "outputs"])),
        ("GET", format!("{RUNS}/{run}/states"), json!([])),
        ("POST", start, json!(["store"])),
    ] {
        let found = good(send(&host, &blind, method, &path, &json!({}))?)?;
        ensure!(found["withheld"] == withheld, "{path}: {found:#}");
        ensure!(!found.to_string().contains("a payload"), "{path}: {found:#}");
        let found = good(send(&host, &seeing, method, &path, &json!({}))?)?;
        ensure!(found["withheld"].is_null(), "{path}: {found:#}");
        for name in withheld.as_array().context("a list")? {
            ensure!(!found[name.as_str().unwrap_or_default()].is_null() || name == "data");
        }
    }
    // The definition of a graph is not a payload.
    let graph =
        good(send(&host, &blind, "GET", "/v1/namespaces/default/graphs/echo", &json!({}))?)?;
    ensure!(graph["template"]["nodes"][0]["inputs"]["value"] == "a payload", "{graph:#}");
    Ok(())
}

#[test]
fn a_revoked_key_is_refused_on_every_host() -> Result<()> {
    let hosts = [Setup::slots(2), Setup::slots(2)];
    with_cluster(Postgres::shared()?, "revoked", &hosts, |cluster| {
        let (first, second) = (cluster.host(0)?, cluster.host(1)?);
        for round in 0..5 {
            let key = first.new_key(&json!({"label": "r", "role": "viewer"}))?;
            until("the key to be known", || {
                Ok((status(second, &key, "GET", RUNS)? == 200).then_some(()))
            })?;
            first.send("DELETE", &format!("//v1/operator/keys/{}", id_of(&key)), &json!({}))?;
            let revoked = Instant::now();
            ensure!(status(first, &key, "GET", RUNS)? == 401, "the host itself refuses it at once");
            until("the other host to refuse the key", || {
                Ok((status(second, &key, "GET", RUNS)? == 401).then_some(()))
            })?;
            let took = revoked.elapsed();
            println!("round {round}: the other host refused the key after {took:.1?}");
            ensure!(took < MAX_REVOCATION_TIME.mul_f64(slack()), "{took:?}");
        }
        Ok(())
    })
}

#[test]
fn a_stolen_database_reveals_no_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    let key = host.new_key(&json!({"label": "stolen", "role": "admin"}))?;
    host.kill()?;
    let mut stolen = Vec::new();
    for file in ["exosphere.db", "exosphere.db-wal"] {
        File::open(folder.path().join(file))?.read_to_end(&mut stolen)?;
    }
    let contains =
        |part: &[u8]| stolen.windows(part.len()).any(|bytes| bytes.eq_ignore_ascii_case(part));
    ensure!(contains(id_of(&key).as_bytes()), "the id is there");
    // Not even a part of the secret.
    for begin in (17..key.len() - 8).step_by(4) {
        ensure!(!contains(&key.as_bytes()[begin..begin + 8]), "a part of the secret is there");
    }
    Ok(())
}

#[test]
fn wrong_keys_are_slow_and_logged_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log_file = folder.path().join("log");
    let log = File::create(&log_file)?;
    let host = Host::start_with(&folder.path().join("data"), &[], |command| {
        command.stderr(log);
    })?;
    // Well-formed keys that this host does not have: of another host.
    let other = Host::start()?;
    let wrong = other.new_key(&json!({"label": "w", "role": "admin"}))?;
    // Returns the number of answers, and the slowest.
    let answers = |key: &str, time: Duration, statuses: &[u16]| -> Result<(u64, Duration)> {
        let (end, client) = (Instant::now() + time, client(key, MAX_WAIT)?);
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < end {
            let begun = Instant::now();
            let status = client.get(format!("{}{RUNS}", host.url())).send()?.status();
            ensure!(statuses.contains(&status.as_u16()), "{status}");
            slowest = slowest.max(begun.elapsed());
            count += 1;
        }
        Ok((count, slowest))
    };
    ensure!(status(&host, host.key(), "GET", RUNS)? == 200);
    // The burst that people may need.
    for _ in 0..20 {
        ensure!(status(&host, &wrong, "GET", RUNS)? == 401);
    }
    // Beside them, from the same address, a caller with a key that was right before.
    let time = Duration::from_secs(4);
    let (wrong_count, right) = std::thread::scope(|scope| {
        let ask = || answers(&wrong, time, &[401, 429]);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let right = answers(host.key(), time, &[200])?;
        let wrong = all.into_iter().map(|one| Ok(one.join().unwrap()?.0)).sum::<Result<u64>>()?;
        anyhow::Ok((wrong, right))
    })?;
    let (right_count, slowest) = right;
    println!(
        "{wrong_count} answers to wrong keys on 8 connections, {right_count} to the right one, the \
         slowest after {slowest:?}"
    );
    ensure!(wrong_count <= 8 * 6, "{wrong_count} wrong keys were answered in {time:?}");
    ensure!(right_count > 2 * wrong_count, "{right_count} {wrong_count}");
    ensure!(slowest < Duration::from_secs(1), "a right key waited for {slowest:?}");
    // A malformed key is refused, too, and needs no database.
    ensure!(status(&host, &wrong.replace('_', "-"), "GET", RUNS)? == 401);
    let lines = tail(&log_file, 100, |line| line.contains("wrong keys"));
    ensure!(lines.lines().count() == 1, "{lines}");
    Ok(())
}

#[test]
fn a_key_keeps_to_its_rate() -> Result<()> {
    let host = Host::start()?;
    let key = host.new_key(&json!({"label": "r", "role": "viewer", "requests_per_second": 1}))?;
    let mut refused = None;
    for _ in 0..10 {
        let answer = send(&host, &key, "GET", RUNS, &json!({}))?;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.context("ten requests at once were taken")?;
    ensure!(refused.headers()["retry-after"] == "1");
    let (_, found) = problem(refused)?;
    ensure!(found["type"] == "/problems/too-many-requests", "{found}");
    until("the next request to be taken", || {
        Ok((status(&host, &key, "GET", RUNS)? == 200).then_some(()))
    })?;
    Ok(())
}

#[test]
fn exposed_hosts_are_refused_with_a_remedy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let data = data.to_string_lossy();
    let refused = |arguments: &[&str]| {
        // The last of two addresses counts.
        failing_start(&[&["--data", &data], arguments].concat())
    };
    let message = refused(&["--listen", "0.0.0.0:0"])?;
    ensure!(message.contains("--tls-cert cert.pem --tls-key key.pem"), "{message}");
    let message = refused(&["--listen", "0.0.0.0:0", "--no-auth", "--insecure-http"])?;
    ensure!(message.contains("--no-auth is for the loopback alone"), "{message}");
    ensure!(!folder.path().join("data").exists(), "a refused host changes nothing");
    let host = Host::start_with(&folder.path().join("data"), &["--no-auth"], |_| ())?;
    ensure!(!folder.path().join("data/admin.key").exists());
    ensure!(status(&host, "", "GET", RUNS)? == 200);
    Ok(())
}

#[test]
fn changes_are_audited_without_payloads() -> Result<()> {
    let host = Host::start()?;
    let key = host.new_key(&json!({"label": "d", "role": "deployer"}))?;
    host.push("lab")?;
    let slow = json!({"nodes": [{
        "node_name": "wait", "identifier": "only", "inputs": {"ms": 61_234}, "next_nodes": [],
    }]});
    let graph = "/v1/namespaces/default/graphs/slow";
    good(send(&host, &key, "PUT", graph, &slow)?)?;
    let run = good(send(&host, &key, "POST", &format!("{graph}/runs"), &json!({}))?)?;
    let run = run["run"].as_str().context("a run")?;
    for action in ["pause", "resume", "cancel"] {
        good(send(&host, &key, "POST", &format!("{RUNS}/{run}/{action}"), &json!({}))?)?;
    }
    let bulk = json!({"action": "redrive", "filter": {"graph": "slow"}});
    let begun = good(send(&host, &key, "POST", "/v1/namespaces/default/bulk", &bulk)?)?;
    ensure!(begun["by"] == id_of(&key), "{begun:#}");
    // One that fails changes nothing.
    ensure!(status(&host, &key, "POST", &format!("{RUNS}/{run}/cancel"))? == 409);
    let paused = good(send(&host, &key, "POST", &format!("{graph}/pause"), &json!({}))?)?;
    ensure!(paused["pause"]["by"] == id_of(&key), "{paused:#}");
    let given = good(send(&host, &key, "GET", &format!("{RUNS}/{run}/inputs"), &json!({}))?)?;
    ensure!(given["started_by"] == id_of(&key), "{given:#}");
    let secret = format!("{graph}/secrets/token");
    let value = json!({"value": "hush-61234"});
    for (method, path, body) in [
        ("POST", format!("{graph}/resume"), json!({})),
        ("PUT", secret.clone(), value),
        ("DELETE", secret, json!({})),
        ("DELETE", format!("{RUNS}/{run}"), json!({})),
        ("DELETE", graph.to_owned(), json!({})),
        ("DELETE", "/v1/namespaces/default/plugins/lab".to_owned(), json!({})),
    ] {
        let answer = send(&host, &key, method, &path, &body)?;
        good(answer).with_context(|| format!("{method} {path}"))?;
    }
    for action in ["pause", "resume"] {
        let path = format!("//v1/operator/namespaces/default/{action}");
        host.send("POST", &path, &json!({}))?;
    }
    host.send("DELETE", &format!("//v1/operator/keys/{}", id_of(&key)), &json!({}))?;
    let found = host.get("//v1/operator/audit")?;
    let changes = found["changes"].as_array().context("a list")?;
    let actions: Vec<_> = changes.iter().rev().map(|it| it["action"].as_str().unwrap()).collect();
    let expected = [
        "key create",
        "plugin push",
        "graph apply",
        "run pause",
        "run resume",
        "run cancel",
        "bulk redrive",
        "graph pause",
        "graph resume",
        "secret set",
        "secret remove",
        "run delete",
        "graph delete",
        "plugin remove",
        "namespace pause",
        "namespace resume",
        "key revoke",
    ];
    ensure!(actions == expected, "{actions:?}");
    let of_key = host.get(&format!("//v1/operator/audit?key={}&limit=9", id_of(&key)))?;
    let (bulk, cancel) = (&of_key["changes"][7], &of_key["changes"][8]);
    ensure!(bulk["action"] == "bulk redrive" && bulk["object"] == begun["bulk"], "{of_key:#}");
    ensure!(cancel["action"] == "run cancel" && cancel["object"] == run, "{of_key:#}");
    ensure!(cancel["address"] == "127.0.0.1" && cancel["namespace"] == "default", "{of_key:#}");
    let next = of_key["next"].as_str().context("there are more")?;
    let rest = host.get(&format!("//v1/operator/audit?key={}&before={next}", id_of(&key)))?;
    ensure!(rest["changes"][2]["action"] == "graph apply", "{rest:#}");
    ensure!(rest["changes"][2]["after"].as_str().is_some_and(|it| it.len() == 64), "{rest:#}");
    ensure!(!found.to_string().contains("61234"), "a payload is in the audit log");
    Ok(())
}

#[test]
fn the_command_line_manages_keys() -> Result<()> {
    let host = Host::start()?;
    host.namespace("a", &json!({}))?;
    let run = |arguments: &[&str]| -> Result<String> {
        let output = host.command()?.args(arguments).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let line = ["key", "create", "--label", "ci", "--role", "deployer", "--in", "a"];
    let printed = run(&line)?;
    let key = printed.trim();
    ensure!(printed == format!("{key}\n") && key.starts_with("exo_"), "{printed}");
    ensure!(status(&host, key, "GET", "/v1/namespaces/a/runs")? == 200);
    ensure!(run(&["key", "list"])?.contains("deployer"));
    ensure!(run(&["key", "revoke", id_of(key)])?.contains("revoked"));
    ensure!(status(&host, key, "GET", "/v1/namespaces/a/runs")? == 401);
    ensure!(run(&["audit", "list", "--action", "key revoke"])?.contains(id_of(key)));
    // What a key may not see is named.
    let run_id = {
        host.push("lab")?;
        host.apply("echo", &echo())?;
        host.run("echo", &json!({}), &json!({}))?
    };
    let blind = host.new_key(&json!({"label": "b", "role": "viewer"}))?;
    let blind = |words: [&str; 3]| -> Result<std::process::Output> {
        Ok(host.command()?.env("EXOSPHERE_KEY", &blind).args(words).output()?)
    };
    let refused = blind(["run", "result", &run_id])?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && why.contains("key create --payloads"), "{why}");
    let shown = blind(["run", "inputs", &run_id])?;
    let note = String::from_utf8_lossy(&shown.stderr).into_owned();
    ensure!(shown.status.success() && note.contains("left out: inputs, store;"), "{shown:?}");
    // The last admin key stays.
    let last = host.command()?.args(["key", "revoke", id_of(host.key())]).output()?;
    ensure!(last.status.code() == Some(1));
    let stderr = String::from_utf8_lossy(&last.stderr).into_owned();
    ensure!(stderr.contains("key create --role admin"), "{stderr}");
    Ok(())
}

#[test]
fn a_creation_of_keys_takes_no_idempotency_key() -> Result<()> {
    let host = Host::start()?;
    let body = json!({"label": "a", "role": "viewer", "namespaces": ["*"]});
    let request = host.request("POST", "//v1/operator/keys")?.header("idempotency-key", "k");
    let (status, found) = problem(request.json(&body).send()?)?;
    ensure!(status == 400 && found["type"] == "/problems/bad-header", "{found:#}");
    let keys = host.get("//v1/operator/keys")?["keys"].clone();
    ensure!(keys.as_array().map(Vec::len) == Some(1), "none was created: {keys:#}");
    ensure!(keys[0]["namespaces"] == json!(["*"]), "{keys:#}");
    Ok(())
}

#[test]
fn an_admin_of_a_namespace_sets_no_quotas() -> Result<()> {
    let host = Host::start()?;
    host.send("PUT", "//v1/operator/namespaces/a/quotas", &json!({"quotas": {"graphs": 1}}))?;
    let key = host.new_key(&json!({"label": "a", "role": "admin", "namespaces": ["a"]}))?;
    let quotas = "/v1/operator/namespaces/a/quotas";
    ensure!(status(&host, &key, "GET", quotas)? == 200);
    ensure!(status(&host, &key, "PUT", quotas)? == 403);
    let found = host.get(&format!("/{quotas}"))?;
    ensure!(found["quotas"] == json!({"graphs": 1}), "{found:#}");
    Ok(())
}

#[test]
fn quotas_bound_what_a_namespace_has() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("one", &echo())?;
    let set = |quotas: Value| {
        let set =
            host.send("PUT", "//v1/operator/namespaces/default/quotas", &json!({"quotas": quotas}));
        // A start uses settings that are a second old at most.
        std::thread::sleep(Duration::from_millis(1_100));
        set
    };
    let refused = |method: &str, path: &str, body: &Value, quota: &str| -> Result<u16> {
        let (status, found) = host.refused(method, path, body)?;
        let command = format!("exosphere quota set --namespace default {quota}=..");
        let detail = found["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains(&command), "{found:#}");
        Ok(status)
    };
    let found = set(json!({"graphs": 1, "revisions": 2, "plugins": 1}))?;
    ensure!(found["used"] == json!({"graphs": 1, "revisions": 1, "plugins": 1}), "{found:#}");
    ensure!(refused("PUT", "/graphs/two", &echo(), "graphs")? == 403);
    let mut changed = echo();
    changed["nodes"][0]["inputs"]["value"] = json!(2);
    host.apply("one", &changed)?;
    host.apply("one", &changed)?;
    ensure!(refused("PUT", "/graphs/one", &echo(), "revisions")? == 403);
    let (status, found) = problem(host.upload("other", exosphere_tests::component("text")?)?)?;
    ensure!(status == 403 && found["type"] == "/problems/quota-exceeded", "{found:#}");
    host.push("lab")?;
    set(json!({"runs_per_minute": 2}))?;
    for _ in 0..2 {
        host.run("one", &json!({}), &json!({}))?;
    }
    ensure!(refused("POST", "/graphs/one/runs", &json!({}), "runs_per_minute")? == 429);
    set(json!({"open_states": 0}))?;
    ensure!(refused("POST", "/graphs/one/runs", &json!({}), "open_states")? == 429);
    set(json!({}))?;
    host.run("one", &json!({}), &json!({}))?;
    Ok(())
}
