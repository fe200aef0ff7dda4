//! The environment of a host: a standard error without a reader, data folders that are open to
//! other users, a renamed lock, and killed compilers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::{Host, failing_start, good, problem, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Runs a host whose standard error cannot be written, during an outage of its database, which it
/// logs.
fn survives_unwritable_stderr(database: &str, set_up: impl FnOnce(&mut Command)) -> Result<()> {
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
    until("the host to be unhealthy", || {
        let status = host.request("GET", "//health")?.send()?.status();
        Ok((status == 503).then_some(()))
    })?;
    postgres.start_again()?;
    until("the host to be healthy", || Ok(host.get("//health").ok()))?;
    ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
    let healthy_run = host.run("fan", &json!({}), &json!({}))?;
    ensure!(host.wait_for(&healthy_run)?["status"] == "SUCCESS");
    Ok(())
}

#[test]
fn a_closed_standard_error_harms_nothing() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    survives_unwritable_stderr("closed", |command| _ = command.stderr(writer))
}

#[test]
fn a_full_standard_error_harms_nothing() -> Result<()> {
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    survives_unwritable_stderr("full", |command| _ = command.stderr(full))
}

#[test]
fn an_unread_standard_error_harms_nothing() -> Result<()> {
    // The pipe's buffer is full after 64 kB.
    let (reader, writer) = std::io::pipe()?;
    survives_unwritable_stderr("unread", |command| _ = command.stderr(writer))?;
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
    let client = exosphere_tests::host::client("", exosphere_tests::MAX_WAIT)?;
    let health = until("the host to be healthy", || {
        let answer = client.get(format!("http://{free}/health")).send();
        Ok(answer.ok().map(|answer| answer.status().as_u16()))
    });
    host.kill()?;
    host.wait()?;
    ensure!(health? == 200);
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
    until("the warning in the log", || {
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
    let message = failing_start(&["--data", data])?;
    ensure!(message.contains("chmod 700") && message.contains("65534"), "{message}");
    Ok(())
}

#[test]
fn a_renamed_lock_still_excludes_hosts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    let data = folder.path().to_str().unwrap();
    for file in ["lock", "host.id"] {
        fs::rename(folder.path().join(file), folder.path().join("moved"))?;
        let message = failing_start(&["--data", data])?;
        ensure!(message.contains("in use by another exosphere host"), "{file}: {message}");
    }
    ensure!(host.get("//health")?["status"] == "ok");
    Ok(())
}

/// Builds a component that takes the compiler a second or more.
fn slow_component() -> Result<Vec<u8>> {
    let slow = format!("(func {})", "(drop (memory.grow (i32.const 0)))".repeat(24_000));
    Ok(wat::parse_str(format!("(component (core module (memory 1) {}))", slow.repeat(6)))?)
}

/// Kills the compilers of a host, as the system does when memory is low.
fn kill_compilers(host: &Host, max: usize) -> Result<usize> {
    let (mut killed, started) = (0, Instant::now());
    while killed < max && started.elapsed() < Duration::from_secs(20) {
        for task in fs::read_dir(format!("/proc/{}/task", host.pid()))?.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                if killed == max {
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
