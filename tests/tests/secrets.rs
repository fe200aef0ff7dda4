//! Secrets: a rotation reencrypts them while hosts run, even if it is killed and repeated; a secret
//! that a node reveals is redacted everywhere.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, binary, check, failing_start};
use serde_json::{Value, json};

const SECRET: &str = "hush-hush-hush";

/// Returns a graph of one node that returns the secret `token`, and reveals it in a given way.
fn reads(tell: Option<&str>) -> Value {
    let inputs = json!({"name": "token", "tell": tell});
    json!({
        "nodes": [{"node_name": "secret", "identifier": "only", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
    })
}

fn with_secret(value: &str) -> Value {
    let mut graph = reads(None);
    graph["secrets"] = json!({"token": value});
    graph
}

/// Returns the secret that a node of a graph sees.
fn seen(host: &Host, graph: &str) -> Result<String> {
    let run = host.run(graph, &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(host.output(&run, "only")?["value"].as_str().context("a secret")?.to_owned())
}

fn secrets(arguments: &[&str], master_key: Option<&str>) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg("secrets").args(arguments).env_remove("EXOSPHERE_MASTER_KEY");
    command.envs(master_key.map(|key| ("EXOSPHERE_MASTER_KEY", key)));
    Ok(command)
}

fn output_text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream)).concat()
}

/// Runs `exosphere secrets`, which must succeed, and returns its JSON.
fn run_json(arguments: &[&str], master_key: Option<&str>) -> Result<Value> {
    let output = secrets(arguments, master_key)?.arg("--json").output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", output_text(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of ours")
}

#[test]
fn rotation_is_invisible_to_running_hosts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, key) = (text(folder.path())?, folder.path().join("host.key"));
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    host.apply("g", &with_secret(SECRET))?;
    ensure!(seen(&host, "g")? == SECRET);
    let first = fs::read(&key)?;

    let done = run_json(&["rotate", "--data", data], None)?;
    ensure!(done["secrets"] == 1 && done["resumed"] == false, "{done}");
    let second = fs::read(&key)?;
    ensure!(second.len() == 32 && second != first, "{} bytes", second.len());
    ensure!(seen(&host, "g")? == SECRET, "the host has read the file again");
    host.apply("g", &with_secret("another-secret"))?;
    ensure!(seen(&host, "g")? == "another-secret");

    let done = run_json(&["rotate", "--data", data, "--keep-old"], None)?;
    ensure!(done["has_older"] == true, "{done}");
    let third = fs::read(&key)?;
    ensure!(third.len() == 64 && third[32..] == second, "the old one stands behind");
    // The host also learns of the new key by setting a secret.
    host.apply("h", &with_secret("a third secret"))?;
    ensure!(seen(&host, "h")? == "a third secret" && seen(&host, "g")? == "another-secret");
    host.kill()?;
    check(&["--data", data])?;

    // A start with the old key is rejected with the reason.
    fs::write(&key, &first)?;
    let message = failing_start(&["--data", data])?;
    ensure!(message.contains("encrypted with the key") && message.contains("--key"), "{message}");
    fs::write(&key, &third[..32])?;
    let host = Host::start_in(folder.path())?;
    ensure!(seen(&host, "g")? == "another-secret");
    Ok(())
}

/// A rotation may be killed at any point: the running host and the next one decrypt all secrets,
/// and the next call finishes the rotation.
#[test]
fn a_killed_rotation_can_be_finished() -> Result<()> {
    const GRAPHS: usize = 300;
    const KILLS: u32 = 16;
    let folder = tempfile::tempdir()?;
    let (data, key) = (text(folder.path())?, folder.path().join("host.key"));
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    for at in 0..GRAPHS {
        host.apply(&format!("g{at}"), &with_secret(&format!("{SECRET} {at}")))?;
    }
    // An uninterrupted rotation measures the duration.
    let started = Instant::now();
    run_json(&["rotate", "--data", data], None)?;
    let elapsed = started.elapsed();
    let mut resumed = 0;
    for kill in 0..KILLS {
        let mut rotate = secrets(&["rotate", "--data", data], None)?;
        let mut rotate = rotate.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(elapsed.mul_f64(f64::from(kill + 1) / f64::from(KILLS)));
        rotate.kill()?;
        rotate.wait()?;
        let graph = usize::try_from(kill)? % GRAPHS;
        let seen = seen(&host, &format!("g{graph}"))?;
        ensure!(seen == format!("{SECRET} {graph}"), "after {kill} kills: {seen}");
        let keys = fs::read(&key)?.len();
        ensure!(keys % 32 == 0 && keys <= 64 * 32, "{keys} bytes");
        if kill % 3 == 2 {
            let done = run_json(&["rotate", "--data", data], None)?;
            resumed += i32::from(done["resumed"] == true);
            ensure!(fs::read(&key)?.len() == 32, "it finished");
        }
    }
    eprintln!(
        "a rotation of {GRAPHS} graphs took {elapsed:?}; {resumed} were finished by the next"
    );
    run_json(&["rotate", "--data", data], None)?;
    host.kill()?;
    let host = Host::start_in(folder.path())?;
    for at in 0..GRAPHS {
        ensure!(seen(&host, &format!("g{at}"))? == format!("{SECRET} {at}"));
    }
    check(&["--data", data])
}

#[test]
fn keys_in_the_environment_stay_hidden() -> Result<()> {
    let (old, new) = ("0f".repeat(32), "1e".repeat(32));
    let both = format!("{new},{old}");
    let folder = tempfile::tempdir()?;
    let data = text(folder.path())?;
    let postgres = Postgres::shared()?.create_database("variable")?;
    let start = |key: &str| {
        Host::start_with(folder.path(), &["--database", &postgres], |command| {
            command.env("EXOSPHERE_MASTER_KEY", key);
        })
    };
    let host = start(&old)?;
    ensure!(!folder.path().join("host.key").exists(), "a key file was created");
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    host.apply("g", &with_secret(SECRET))?;
    let place = ["--data", data, "--database", &postgres];
    let refused = secrets(&[&["rotate"][..], &place[..]].concat(), Some(&old))?.output()?;
    let message = output_text(&refused);
    ensure!(!refused.status.success() && message.contains("secrets reseal"), "{message}");
    ensure!(!message.contains(&old), "{message}");
    host.kill()?;
    let host = start(&both)?;
    ensure!(seen(&host, "g")? == SECRET);
    let done = run_json(&[&["reseal"][..], &place[..]].concat(), Some(&both))?;
    ensure!(done["secrets"] == 1, "{done}");
    ensure!(seen(&host, "g")? == SECRET);
    host.kill()?;
    let host = start(&new)?;
    ensure!(seen(&host, "g")? == SECRET);
    host.kill()?;

    let second_reseal =
        secrets(&["reseal", "--data", data, "--key", "file"], Some(&new))?.output()?;
    ensure!(second_reseal.status.code() == Some(2), "{}", output_text(&second_reseal));
    let without_key = secrets(&["reseal", "--data", data], Some("hunter2"))?.output()?;
    let message = output_text(&without_key);
    ensure!(without_key.status.code() == Some(2) && !message.contains("hunter2"), "{message}");
    Ok(())
}

/// Null removes a secret from a graph that no longer has a node for it.
#[test]
fn a_secret_can_be_removed() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    host.apply("g", &with_secret(SECRET))?;
    let mut graph = with_secret("");
    graph["secrets"] = json!({"token": null});
    let (status, problem) = host.refused("PUT", "/graphs/g", &graph)?;
    ensure!(status == 422 && problem.to_string().contains("which this removes"), "{problem:#}");
    ensure!(seen(&host, "g")? == SECRET, "a rejected graph changed the secret");
    // A secret that the template does not name is kept.
    host.apply("g", &reads(None))?;
    ensure!(seen(&host, "g")? == SECRET);

    graph["nodes"][0] =
        json!({"node_name": "whoami", "identifier": "only", "inputs": {}, "next_nodes": []});
    host.apply("g", &graph)?;
    let (status, problem) = host.refused("PUT", "/graphs/g", &reads(None))?;
    ensure!(status == 422 && problem.to_string().contains("which is not set"), "{problem:#}");
    // A secret that no node can read is not kept.
    graph["secrets"] = json!({"token": SECRET});
    let (status, problem) = host.refused("PUT", "/graphs/g", &graph)?;
    ensure!(status == 422 && problem["errors"][0]["path"] == "$.secrets.token", "{problem:#}");
    Ok(())
}

#[test]
fn host_memory_cannot_be_dumped() -> Result<()> {
    let host = Host::start()?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core = core.context("a limit of core files")?.split_whitespace().nth(4);
    ensure!(core == Some("0"), "{limits}");
    // A process that cannot be dumped has its files in `/proc` owned by root.
    use std::os::unix::fs::MetadataExt;
    let memory = fs::metadata(format!("/proc/{}/mem", host.pid()))?;
    ensure!(memory.uid() == 0);
    Ok(())
}

#[test]
fn revealed_secrets_are_redacted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = fs::File::create(folder.path().join("log"))?;
    let host = Host::start_with(&folder.path().join("data"), &[], |command| {
        command.stderr(log).env("EXOSPHERE_LOG", "debug");
    })?;
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    for (tell, kind, message) in [
        ("print", None, "[secret token]"),
        ("fail", Some("permanent"), "cannot sign in with [secret token]"),
        ("panic", Some("trap"), r#"no way with "[secret token]""#),
    ] {
        let mut graph = reads(Some(tell));
        graph["secrets"] = json!({"token": SECRET});
        let found = host.result_of(tell, &graph, &json!({}))?;
        let run = found["run"].as_str().context("an id")?;
        let state = host.states(run, "only")?.remove(0);
        ensure!(state["failure"]["kind"].as_str() == kind, "{state:#}");
        let shown = json!([state["failure"], state["attempts"], found]).to_string();
        ensure!(!shown.contains("hush"), "{shown}");
        ensure!(shown.contains(Value::from(message).to_string().trim_matches('"')), "{shown}");
    }
    host.kill()?;
    let log = fs::read_to_string(folder.path().join("log"))?;
    ensure!(!log.contains("hush"), "the host's own log reveals the secret");
    ensure!(log.lines().count() > 3 && !log.contains('\u{1b}'), "a file is no terminal: {log}");
    // It is in the output of the node that returned it, and nowhere else.
    let database = rusqlite::Connection::open(folder.path().join("data/exosphere.db"))?;
    for (table, columns) in [
        ("attempt", ["message", "details", "logs"]),
        ("state", ["message", "details", "refs"]),
        ("secret", ["name", "sealed", "key_id"]),
        ("revision", ["body", "digest", "number"]),
    ] {
        for column in columns {
            let sql = format!(
                "SELECT COUNT(*) FROM {table} WHERE instr(CAST({column} AS BLOB), CAST('hush' AS BLOB)) > 0"
            );
            let count: i64 = database.query_row(&sql, [], |row| row.get(0))?;
            ensure!(count == 0, "{table}.{column}");
        }
    }
    Ok(())
}

/// A node without declared secrets gets one through the output of another.
#[test]
fn secrets_revealed_by_later_nodes_are_redacted() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.grant("lab", &json!({"secrets": ["token"]}))?;
    let mut graph = with_secret(SECRET);
    graph["nodes"][0]["next_nodes"] = json!(["later"]);
    let lines = json!({"lines": ["it is ${{ only.outputs.value }}"]});
    let second_state =
        json!({"node_name": "log", "identifier": "later", "inputs": lines, "next_nodes": []});
    graph["nodes"].as_array_mut().context("nodes")?.push(second_state);
    let found = host.result_of("g", &graph, &json!({}))?;
    let run = found["run"].as_str().context("an id")?;
    let shown = host.states(run, "later")?.remove(0)["attempts"].to_string();
    ensure!(shown.contains("it is [secret token]") && !shown.contains("hush"), "{shown}");
    Ok(())
}

#[test]
fn responses_carry_security_headers() -> Result<()> {
    let host = Host::start()?;
    for (path, status) in [("/plugins", 200), ("/graphs/none", 404), ("//nowhere", 404)] {
        let answer = host.request("GET", path)?.timeout(Duration::from_secs(10)).send()?;
        ensure!(answer.status() == status, "{path}: {}", answer.status());
        for (header, wanted) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            let found = answer.headers().get(header).and_then(|value| value.to_str().ok());
            ensure!(found == Some(wanted), "{path}: {header}: {found:?}");
        }
    }
    Ok(())
}
